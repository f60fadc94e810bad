"""Real clips in training: found and kept, cut into windows, and what is learnt from them, on clips whose 3D is known."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filmed_clips import film, swinging
from small_reconstructor import training_task
from torch import Tensor

from kinflow import metrics
from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.cli.train import main
from kinflow.config import ClipsConfig, PerceptionConfig, SourcesConfig
from kinflow.errors import MissingAssetError, NobodyFoundError, OutputError
from kinflow.evidence import Evidence
from kinflow.reconstruction.target import inside_crops
from kinflow.skeleton import BLAZEPOSE, BODYPIX24
from kinflow.training.streams import footage as module
from kinflow.training.streams.filmed import FilmedMotions
from kinflow.training.streams.footage import CACHE, Footage, read_footage
from kinflow.training.streams.projected import Sample
from kinflow.training.tasks.reconstructor import ReconstructorTask

TERMS = ("keypoints.seen", "parts", "landmarks", "latent", "dynamics", "smoothness", "betas")


@pytest.fixture(scope="module")
def light() -> Body:
    return Body.open("light")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, light: Body) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    film(folder, [swinging(light, 40)[0]])
    return folder


def task_on(clips: Path, body: Body, **weights: float) -> ReconstructorTask:
    """On windows of the clips alone; with weights, by those terms alone."""
    task = training_task(body, sources=SourcesConfig(own=0.0, clips=ClipsConfig(str(clips), 1.0)))
    losses = task.config.losses
    if weights:
        off = {f.name: 0.0 for f in dataclasses.fields(losses) if not f.name.endswith("_scale")}
        # Scales so wide that an untrained pose is no outlier.
        losses = dataclasses.replace(losses, **{**off, **weights, "keypoint_scale": 1.0, "part_scale": 1.0})
    task.config = dataclasses.replace(task.config, losses=losses)
    return task


# -- windows ----------------------------------------------------------------------------------------------------------


def test_windows_know_no_pose_and_keep_their_times(light: Body) -> None:
    person, _ = swinging(light, 30)
    stream = FilmedMotions([Footage(Path("x"), (person,))], light, 12)
    sample = stream.draw(np.random.default_rng(0), 16)
    assert not sample.known.pose.any() and not sample.known.betas.any() and not sample.contacts_known.any()
    assert sample.known.labelled.all() and torch.equal(sample.known.masked, sample.obs.observed)
    steps = sample.obs.timestamps.diff(dim=1)[:, 0]
    assert {round(float(s) * 25) for s in steps} >= {1, 2} and bool((steps > 0.039).all())
    whole = FilmedMotions([Footage(Path("x"), (person,))], light, 12, augment=False).whole()
    assert whole.obs.valid.sum(1).tolist() == [12, 12, 6]
    torch.testing.assert_close(whole.obs.keypoints2d[1, 3], torch.from_numpy(person.keypoints2d[15]))


def test_parts_go_with_the_keypoints_when_a_window_is_mirrored_and_rolled(light: Body) -> None:
    person, _ = swinging(light, 30)
    sample = FilmedMotions([Footage(Path("x"), (person,))], light, 12).draw(np.random.default_rng(0), 24)
    facing = (
        sample.obs.keypoints2d[..., BLAZEPOSE.index("left_shoulder"), 0]
        > sample.obs.keypoints2d[..., BLAZEPOSE.index("right_shoulder"), 0]
    )
    assert facing.any()
    near = []
    for side, other in (("left", "right"), ("right", "left")):
        here = sample.known.parts == BODYPIX24.index(f"{side}_foot")
        own, wrong = (sample.obs.keypoints2d[..., BLAZEPOSE.index(f"{s}_ankle"), :] for s in (side, other))
        apart = (own - wrong).norm(dim=-1)[..., None].expand_as(here)
        right = (sample.known.pixels - own[..., None, :]).norm(dim=-1) < (
            sample.known.pixels - wrong[..., None, :]
        ).norm(dim=-1)
        near.append(right[here & (apart > 20)])
    assert len(near[0]) > 50 and torch.cat(near).float().mean() > 0.95
    # All pixels lie in their crops, which turn with them.
    inside = inside_crops(sample.known.pixels.flatten(0, 1), sample.known.crops.flatten(0, 1))
    assert inside[sample.known.masked.flatten()].all()
    assert sample.known.crops[..., 3].std() > 0.1


# -- what is learnt ---------------------------------------------------------------------------------------------------


def loss_of(task: ReconstructorTask, sample: Sample) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    loss, terms = task.loss(sample)
    return loss, {k: torch.as_tensor(v).detach() for k, v in terms.items()}


@pytest.mark.parametrize("term", TERMS)
def test_each_term_pulls(clips: Path, light: Body, term: str) -> None:
    """A gradient reaches the encoder from each term by itself, and the term falls along it."""
    task = task_on(clips, light, **{term.split(".")[0]: 1.0})
    torch.nn.init.normal_(task.module.fusion_head[-1].bias, std=0.3)
    sample = task.draw(np.random.default_rng(0))
    optimiser = torch.optim.Adam([p for p in task.module.parameters() if p.requires_grad], 2e-4)
    values = []
    for step in range(12):
        loss, terms = loss_of(task, sample)
        optimiser.zero_grad()
        loss.backward()
        first = next(p for n, p in task.module.named_parameters() if n.startswith("encoder") and p.dim() > 1)
        assert step or (first.grad is not None and float(first.grad.norm()) > 0)
        optimiser.step()
        values.append(float(terms[term]))
    assert values[-1] < values[0]
    assert all(p.grad is None for p in task.module.filter.dynamics.parameters())


def test_what_is_seen_teaches_what_is_not(clips: Path, light: Body) -> None:
    """On a clip whose 3D is known, from its keypoints, parts and landmarks alone: the losses fall, and the error in 3D with them."""
    task = task_on(clips, light, keypoints=1.0, parts=1.0, landmarks=0.05, latent=0.02)
    task.config = dataclasses.replace(task.config, filter=False)
    person, truth = swinging(light, 40)
    whole = FilmedMotions([Footage(Path("x"), (person,))], light, 8, augment=False).whole()
    std = torch.full((*whole.obs.observed.shape, 33, 2), 0.03)
    # The lifter is untrained; the clip's own world landmarks are exact.
    whole = dataclasses.replace(whole, known=dataclasses.replace(whole.known, world_std=std))

    def error() -> float:
        with torch.no_grad():
            prediction, _ = task.module.eval()(whole.obs, dynamics=False)
            pose = task.chart.decode(prediction.chart.mean)[0]
            joints = light.joints(torch.zeros(10), full_pose(pose, prediction.root_to_camera), None)
            task.module.train()
        return float(metrics.mpjpe(joints.flatten(0, 1)[:40], truth.joints).mean())

    before = error()
    optimiser = torch.optim.Adam([p for p in task.module.parameters() if p.requires_grad], 1e-2)
    first, last = {}, {}
    for _ in range(60):
        loss, last = loss_of(task, whole)
        first = first or last
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for term in ("keypoints.seen", "parts", "landmarks"):
        assert last[term] < 0.8 * first[term], term
    assert error() < 0.8 * before


# -- files ------------------------------------------------------------------------------------------------------------


class Looks:
    """Stands for perception: sees the given people in whatever clip, and counts the clips."""

    def __init__(self, people: list[Evidence]) -> None:
        self.people, self.clips = people, []  # type: list[Evidence], list[Any]

    def __call__(self, clip: Any, config: PerceptionConfig, *_: Any) -> Any:
        self.clips.append(clip)
        self.config = config
        return self

    def finish(self) -> list[Evidence]:
        return self.people


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, light: Body) -> Looks:
    looks = Looks([swinging(light, 20)[0]])
    monkeypatch.setattr(module, "watch", looks)
    monkeypatch.setattr(module.Clip, "open", lambda path: path)
    return looks


def test_a_clip_is_looked_at_once_and_again_when_it_changes(looks: Looks, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    first = read_footage([tmp_path])
    assert [c.path.name for c in first] == ["a.mp4", "b.mp4"] and len(looks.clips) == 2 and first[0].seen == 20
    # Parts are looked at in every frame, or no maps of them would be kept and nothing learnt from them.
    assert looks.config.parts and looks.config.parts_interval_s == 0
    again = read_footage([tmp_path])
    assert len(looks.clips) == 2
    np.testing.assert_array_equal(again[1].people[0].parts, looks.people[0].parts)
    (tmp_path / "a.mp4").write_bytes(b"other")
    read_footage([tmp_path])
    assert len(looks.clips) == 3 and looks.clips[-1].name == "a.mp4"
    assert {p.name[:2] for p in (tmp_path / CACHE).iterdir()} == {"a-", "b-"}  # no half-written one


def test_a_cache_elsewhere(looks: Looks, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    read_footage([tmp_path / "a.mp4"], tmp_path / "kept")
    assert not (tmp_path / CACHE).exists() and len(list((tmp_path / "kept").iterdir())) == 1
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"sources\.clips\.cache"):
        read_footage([tmp_path / "a.mp4"], tmp_path / "file")


def test_clips_that_cannot_teach(looks: Looks, tmp_path: Path, light: Body, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MissingAssetError, match="absent: expected a video"):
        read_footage([tmp_path / "absent"])
    with pytest.raises(MissingAssetError, match="expected videos, found none"):
        read_footage([tmp_path])
    (tmp_path / "a.mp4").write_bytes(b"x")
    looks.people = []
    with pytest.raises(NobodyFoundError, match=r"a\.mp4: expected people seen in 8 frames"):
        read_footage([tmp_path])
    assert len(read_footage([film(tmp_path / "more", [swinging(light, 9)[0]]), tmp_path])) == 1
    assert "a.mp4: nobody is seen" in caplog.text
    with pytest.raises(NobodyFoundError):  # seven frames are too few
        read_footage([film(tmp_path / "short", [swinging(light, 7)[0]])])


@pytest.mark.parametrize(("made", "code"), [(None, 3), ("folder", 3), ("nobody", 5)])
def test_the_command_says_what_is_wrong_with_clips(
    made: str | None, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "clips"
    if made == "nobody":
        film(place, [])
    elif made:
        place.mkdir()
    assert main(["adapt", str(place), "-o", str(tmp_path / "w.safetensors"), "--quiet"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "w.safetensors").exists() and not os.path.exists(tmp_path / "w.md")
