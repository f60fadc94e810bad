"""Training on other people's data sets, on miniatures of each: what is drawn, what is learnt from it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filmed_clips import film, swinging
from small_reconstructor import DYNAMICS, FLOW, LIFTER, captures, training_task
from swings import save_swings
from test_config_effects_training import check, leaves, same
from torch import Tensor

from kinflow.assets.weights import load_weights, save_weights
from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.cameras import project
from kinflow.cli.train import main
from kinflow.config import DataSetConfig, ProjectionConfig, ReconstructorTrainingConfig, SourcesConfig, load_config
from kinflow.datasets.miniature import write_3dpw, write_coco, write_emdb, write_single_frames
from kinflow.datasets.miniature.scenes import FOCAL, IMAGE_SIZE
from kinflow.datasets.recording import DataSet
from kinflow.datasets.threedpw import ThreeDPW
from kinflow.dynamics import LatentDynamics
from kinflow.errors import ConfigError, FormatError, MissingAssetError, UsageError
from kinflow.flow import PoseFlow
from kinflow.reconstruction.geometry import solve_translation
from kinflow.reconstruction.lifting import Lifter
from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS
from kinflow.training.streams.footage import CACHE
from kinflow.training.streams.projected import ProjectedMotions, Sample, Stream, join
from kinflow.training.streams.recorded import RecordedMotions
from kinflow.training.streams.sources import DATA_SETS, Mixture, Shared, open_data_sets
from kinflow.training.tasks.reconstructor import ReconstructorTask

FRAMES = 8
LIMBS = [BLAZEPOSE.index(f"{s}_{j}") for s in ("left", "right") for j in ("elbow", "wrist", "knee", "ankle")]
ALIGNMENT = ("keypoints.seen", "parts", "joints3d.positions", "latent")
SUPERVISED = (
    "posterior.smoothed",
    "posterior.frame",
    "rotations",
    "rotations.root_smooth",
    "keypoints",
    "joints3d",
    "acceleration",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of every data set."""
    out = tmp_path_factory.mktemp("sets")
    write_3dpw(out / "threedpw", sequences=2, frames=20, split="train", images=False)
    write_3dpw(out / "threedpw_too", sequences=1, frames=9, split="train", images=False)
    write_emdb(out / "emdb", frames=12, images=False)
    write_single_frames(out / "h36m.npz", smpl=False)
    write_single_frames(out / "mpi_inf_3dhp.npz", "mpi_inf_3dhp")
    write_coco(out / "coco", split="train")
    person, _ = swinging(Body.open("light"), 24)
    film(out / "clips", [person])
    film(out / "clips_too", [dataclasses.replace(person, keypoints2d=person.keypoints2d + 1)])
    kept, other = ((out / f / CACHE) for f in ("clips", "clips_too"))
    shutil.copytree(kept, out / "cache")  # of the same clip, with something else in it
    shutil.copy(next(other.rglob("*.npz")), next((out / "cache").rglob("*.npz")))
    return out


def places(root: Path) -> dict[str, Path]:
    return {name: root / (f"{name}.npz" if name in ("h36m", "mpi_inf_3dhp") else name) for name in DATA_SETS}


def opened(root: Path, *names: str) -> SourcesConfig:
    settings = [f"{n}.{k}={v}" for n in names for k, v in (("path", places(root)[n]), ("weight", 1))]
    for n in set(names) & {"h36m", "mpi_inf_3dhp"}:
        settings += [f"{n}.focal={FOCAL}", f"{n}.image_size={list(IMAGE_SIZE)}"]
    return load_config(SourcesConfig, None, settings)


def stream(root: Path, body: Body, name: str) -> Stream:
    return open_data_sets(opened(root, name), body, FRAMES)[name]


def drawn(root: Path, body: Body, name: str, batch: int = 12) -> Sample:
    return stream(root, body, name).draw(np.random.default_rng(0), batch)


def task_on(root: Path, body: Body, *names: str, own: float = 0.0) -> ReconstructorTask:
    return training_task(body, sources=dataclasses.replace(opened(root, *names), own=own))


# -- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_configuration_names_every_data_set() -> None:
    assert {f.name for f in dataclasses.fields(SourcesConfig)} == {"own", "clips", *DATA_SETS}


@pytest.mark.parametrize(("name", "misfit"), [("threedpw", 0.12), ("emdb", 0.12), ("mpi_inf_3dhp", 0.12)])
def test_known_poses_project_onto_the_keypoints(root: Path, body: Body, name: str, misfit: float) -> None:
    """Mirrored and rolled ones too: the truth goes with what is seen. Betas are another body's, hence the slack."""
    sample = drawn(root, body, name)
    sure = sample.known.pose & sample.obs.observed
    assert sample.known.pose.any() and not sample.known.betas.any() and not sample.known.masked.any()
    betas = torch.zeros(*sample.root_to_camera.shape[:2], 10)
    landmarks = body.landmarks(betas, full_pose(sample.pose_rotmat, sample.root_to_camera), sample.transl)
    off = (project(landmarks, sample.K[:, None]) - sample.obs.keypoints2d)[..., LIMBS, :].norm(dim=-1)
    size = 3 * sample.obs.keypoints2d[..., LIMBS, :].std(-2).norm(dim=-1)
    there = sample.obs.confidence[..., LIMBS] > 0
    share = ((off * there).sum(-1) / there.sum(-1).clamp_min(1) / size)[sure]
    assert share.max() < misfit and share.median() < 0.03
    # Mirrored windows are among them: some have the left wrist where others have the right one.
    torch.testing.assert_close(sample.root_to_ray.det()[sure], torch.ones(int(sure.sum())))


def test_frames_whose_truth_does_not_belong_to_the_image_teach_nothing(root: Path, body: Body) -> None:
    whole = ThreeDPW(root / "threedpw", "train")
    one = whole.read(whole.sequences[0])[0]

    class One:
        name, sequences, missing = "one", ("a",), ()

        def read(self, sequence: str) -> list[Any]:
            return [dataclasses.replace(one, valid=np.arange(len(one)) % 2 == 0)]

    data: DataSet = One()
    sample = RecordedMotions(data, body, len(one), augment=False).draw(np.random.default_rng(0), 1)
    assert sample.known.pose[0].tolist() == [t % 2 == 0 for t in range(len(one))]
    assert sample.obs.observed.all() and sample.obs.valid.all()


def test_positions_project_onto_the_keypoints(root: Path, body: Body) -> None:
    """Human3.6M without fitted poses: positions in camera axes, moved to where they project best, lie on the 2D points."""
    sample = drawn(root, body, "h36m")
    assert not sample.known.pose.any() and sample.known.joints_known.any()
    names = [n for n in SMPL_JOINTS if n in BLAZEPOSE]
    mine, theirs = [SMPL_JOINTS.index(n) for n in names], [BLAZEPOSE.index(n) for n in names]
    joints, pixels = sample.known.joints[..., mine, :], sample.obs.keypoints2d[..., theirs, :]
    weight = sample.known.joints_known[..., mine].float() * (sample.obs.confidence[..., theirs] > 0)
    place = solve_translation(joints, pixels, weight, sample.K[:, None]).mean
    off = (project(joints + place[..., None, :], sample.K[:, None]) - pixels).norm(dim=-1) * weight
    assert off[sample.obs.observed].max() < 0.5 and weight.sum() > 100


def test_masks_go_with_the_keypoints(root: Path, body: Body) -> None:
    sample = drawn(root, body, "coco")
    assert not sample.known.pose.any() and not sample.known.joints_known.any()
    assert torch.equal(sample.known.masked, sample.obs.observed)
    assert sample.obs.valid.sum(1).tolist() == [1] * len(sample.obs.valid)
    away = torch.cdist(sample.obs.keypoints2d, sample.known.pixels).amin(-1)
    inside = away[sample.obs.confidence > 0]
    assert inside.median() < 6 and inside.quantile(0.95) < 20  # of people 200 px high, by 128 pixels


def test_draws_are_repeatable_and_differ(root: Path, body: Body) -> None:
    config = opened(root, *DATA_SETS)
    for one, two in zip(*(open_data_sets(config, body, FRAMES).values() for _ in range(2)), strict=True):
        first, again, other = (s.draw(np.random.default_rng(n), 4) for s, n in ((one, 0), (two, 0), (two, 1)))
        assert same(first, again) and not same(first, other)


def test_shares_of_a_batch() -> None:
    class Marked:
        def __init__(self, value: float) -> None:
            self.value, self.drawn = value, 0

        def draw(self, rng: np.random.Generator, batch: int) -> Any:
            self.drawn += batch
            return torch.full((batch, 1), self.value)

    streams = {name: Marked(i) for i, name in enumerate(("own", "coco", "never"))}
    mixture = Mixture(streams, {"own": 3.0, "coco": 1.0, "never": 0.0})  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for _ in range(200):
        batch: Any = mixture.draw(rng, 8)
        assert len(batch) == 8
    assert streams["never"].drawn == 0 and streams["coco"].drawn == pytest.approx(400, abs=60)
    shared: Any = Shared(Marked(0.0), Marked(1.0), 0.25)
    assert shared.draw(rng, 8)[:, 0].tolist() == [0.0] * 6 + [1.0] * 2


# -- what is learnt from it -------------------------------------------------------------------------------------------


def terms_of(task: ReconstructorTask, sample: Sample) -> tuple[Tensor, dict[str, float]]:
    torch.manual_seed(1)
    loss, terms = task.loss(sample)
    return loss, {k: float(torch.as_tensor(v).detach()) for k, v in terms.items()}


@pytest.mark.parametrize(("name", "known"), [("threedpw", True), ("coco", False), ("h36m", False)])
def test_losses_are_those_of_what_is_known(root: Path, body: Body, name: str, known: bool) -> None:
    task = task_on(root, body, name)
    _, terms = terms_of(task, task.draw(np.random.default_rng(0)))
    if known:  # but for frames whose pose is not
        assert all(terms[k] != 0 for k in SUPERVISED)
    else:
        assert all(terms[k] == 0 for k in SUPERVISED)
        assert terms["keypoints.seen"] > 0 and terms["latent"] > 0
        assert (terms["parts"] > 0) == (name == "coco") and (terms["joints3d.positions"] > 0) == (name == "h36m")
    assert terms["posterior.betas_smooth"] == 0 and terms["contacts.smooth"] == 0


def test_own_windows_alone_have_no_terms_of_alignment(body: Body) -> None:
    task = training_task(body)
    _, terms = terms_of(task, task.draw(np.random.default_rng(0)))
    assert not set(ALIGNMENT) & set(terms)


def test_what_is_not_known_is_not_read(root: Path, body: Body) -> None:
    """Whatever stands in for an unknown pose, shape or place, loss and gradient are the same."""
    task = task_on(root, body, "coco", "threedpw", own=1.0)
    sample = task.draw(np.random.default_rng(0))
    unknown = ~sample.known.pose
    assert unknown.any() and sample.known.pose.any() and sample.known.betas.any()
    wrong = torch.randn(10).expand_as(sample.betas)
    other = dataclasses.replace(
        sample,
        pose_rotmat=torch.where(
            unknown[..., None, None, None], sample.pose_rotmat.flip(0, 1, 2).mT, sample.pose_rotmat
        ),
        root_to_ray=torch.where(unknown[..., None, None], sample.root_to_ray.mT.flip(0), sample.root_to_ray),
        betas=torch.where(sample.known.betas[:, None], sample.betas, wrong),
        transl=torch.where(unknown[..., None], sample.transl + 1, sample.transl),
    )
    results = []
    for one in (sample, other):
        task.module.zero_grad()
        loss, terms = terms_of(task, one)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in task.module.parameters() if p.grad is not None])
        results.append((float(loss.detach()), terms, gradient))
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "term"), [("coco", "keypoints.seen"), ("coco", "parts"), ("h36m", "joints3d.positions")]
)
def test_alignment_teaches(root: Path, body: Body, name: str, term: str) -> None:
    """Each term by itself falls on a batch that is seen again and again; scales so wide that an untrained pose is no outlier."""
    task = task_on(root, body, name)
    group = term.split(".")[0]
    off = {f.name: 0.0 for f in dataclasses.fields(task.config.losses) if not f.name.endswith("_scale")}
    weights = dataclasses.replace(task.config.losses, **{**off, group: 1.0, "keypoint_scale": 1.0, "part_scale": 1.0})
    task.config = dataclasses.replace(task.config, losses=weights, filter=False)
    sample = task.draw(np.random.default_rng(0))
    optimiser = torch.optim.Adam([p for p in task.module.parameters() if p.requires_grad], 1e-2)
    values = []
    for _ in range(30):
        loss, terms = terms_of(task, sample)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(terms[term])
    assert values[-1] < 0.8 * values[0]


def test_own_windows_are_drawn_as_before(body: Body) -> None:
    """Without data sets the batch is that of the stream of projections, number by number."""
    task = training_task(body)
    projected = ProjectedMotions(captures(), body, task.config.projection, task.flow)
    plain = projected.draw(np.random.default_rng(4), 4)
    assert same(task.draw(np.random.default_rng(4)).pose_rotmat, plain.pose_rotmat)
    assert plain.known.pose.all() and plain.known.betas.all() and join([plain, plain]).known.pixels.shape[0] == 8


# -- settings and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(leaves(SourcesConfig)))
def test_every_setting_counts(name: str, root: Path, body: Body) -> None:
    sets = {**places(root), "clips": root / "clips"}
    base = [f"{n}.{k}={v}" for n in sets for k, v in (("path", sets[n]), ("weight", 1))]
    copies = {"threedpw": root / "threedpw_too", "h36m": root / "mpi_inf_3dhp.npz", "mpi_inf_3dhp": root / "h36m.npz",
              "clips": root / "clips_too"}  # fmt: skip
    group, _, field = name.partition(".")
    others = {
        "own": "3",
        "clips.cache": str(root / "cache"),
        f"{group}.weight": "3",
        f"{group}.image_size": "[400, 300]",
    }
    if field == "path":
        if group not in copies:  # one that is empty but for one image or person
            copies[group] = thinned(root, group)
        others[name] = str(copies[group])
    projected = ProjectedMotions(captures(), body, ProjectionConfig(frames=FRAMES))

    def observe(config: SourcesConfig) -> Any:
        sets = open_data_sets(config, body, FRAMES)
        weights = {"own": config.own, **{n: one.weight for n, one in config.data_sets.items()}}
        return Mixture({"own": projected, **sets}, weights).draw(np.random.default_rng(0), 40)

    check(name, SourcesConfig, base, others, observe)


def thinned(root: Path, name: str) -> Path:
    out = root / f"{name}_thin"
    if name == "coco" and not out.exists():
        path = root / "coco/annotations/person_keypoints_train2017.json"
        content = json.loads(path.read_text())
        content["annotations"] = content["annotations"][:1]
        (out / "annotations").mkdir(parents=True)
        (out / "annotations" / path.name).write_text(json.dumps(content))
    elif not out.exists():
        write_emdb(out, frames=9, images=False)
    return out


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["sources.cocoa.path=x"], r"sources\.cocoa: no such setting. Did you mean sources\.coco"),
        (["sources.coco.path=x"], r"sources\.coco\.weight: expected one above 0, or no path, got 0 for x"),
        (["sources.coco.weight=2"], r"sources\.coco\.path: expected the data set's folder or file, got none for a weight of 2"),
        (["sources.own=0"], r"sources\.own: expected a weight above 0 where there is no other source, got 0"),
        (["sources.coco.path=x", "sources.coco.weight=-1"], r"sources\.coco\.weight: expected 0 to"),
        (["sources.h36m.image_size=[0, 5]"], r"sources\.h36m\.image_size\[0\]: expected 1 to"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings: list[str], told: str, body: Body) -> None:
    with pytest.raises(ConfigError, match=told):
        open_data_sets(load_config(ReconstructorTrainingConfig, None, settings).sources, body, FRAMES)


@pytest.mark.parametrize("name", list(DATA_SETS))
def test_a_data_set_that_is_not_there_is_named(name: str, body: Body, tmp_path: Path) -> None:
    config = load_config(SourcesConfig, None, [f"{name}.path={tmp_path / 'absent'}", f"{name}.weight=1"])
    with pytest.raises((MissingAssetError, FormatError), match="absent"):
        open_data_sets(config, body, FRAMES)


def test_data_sets_without_people_to_learn_from(root: Path, body: Body) -> None:
    whole = ThreeDPW(root / "threedpw", "train")

    def altered(**fields: Any) -> DataSet:
        class Altered:
            name, sequences, missing = "altered", whole.sequences, ()

            def read(self, sequence: str) -> list[Any]:
                return [dataclasses.replace(r, **fields) for r in whole.read(sequence)]

        return Altered()

    def draw(data: DataSet) -> Callable[[], Sample]:
        return lambda: RecordedMotions(data, body, FRAMES).draw(np.random.default_rng(0), 2)

    frames = len(whole.read(whole.sequences[0])[0])
    with pytest.raises(UsageError, match="altered: expected people with 6 keypoints or more, found none"):
        draw(altered(confidence=np.zeros((frames, 18))))()
    with pytest.raises(UsageError, match="expected 2D keypoints to train on"):
        draw(altered(keypoints2d=None))()
    with pytest.raises(UsageError, match="neither camera nor image size"):
        draw(altered(K=None))()

    class Nothing:
        name, sequences, missing = "nothing", (), ()

        def read(self, sequence: str) -> list[Any]:
            raise AssertionError

    with pytest.raises(MissingAssetError, match="nothing: expected sequences"):
        RecordedMotions(Nothing(), body, FRAMES)


def test_the_command_trains_on_a_mixture(root: Path, tmp_path: Path) -> None:
    capture = save_swings(tmp_path / "mocap.npz")
    torch.manual_seed(0)
    for name, network, config in (("flow", PoseFlow(FLOW), FLOW), ("dynamics", LatentDynamics(DYNAMICS), DYNAMICS),
                                  ("lifter", Lifter(LIFTER), LIFTER)):  # fmt: skip
        save_weights(tmp_path / f"{name}.safetensors", network, config, {})
    settings = ["model.width=16", "model.blocks=1", "model.recurrent=8", "model.head_width=8", "train.batch=6",
                "train.steps=2", "train.validate_every=2", "train.log_every=1", "projection.frames=8", "validation=2",
                "decoded=4", *(f"{n}={tmp_path / n}.safetensors" for n in ("flow", "dynamics", "lifter")),
                f"sources.coco.path={root / 'coco'}", "sources.coco.weight=1",
                f"sources.threedpw.path={root / 'threedpw'}", "sources.threedpw.weight=2"]  # fmt: skip
    arguments = ["reconstructor", "--data", str(capture), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main([*arguments, *(x for s in settings for x in ("--set", s))]) == 0
    _, _, header = load_weights(tmp_path / "out/reconstructor.safetensors")
    assert "threedpw with weight 2; coco with weight 1 beside 1" in header["card"]["data"]
    assert "keypoints.seen" in (tmp_path / "out/log.csv").read_text().splitlines()[0]


def test_a_data_set_needs_both_settings() -> None:
    assert SourcesConfig(coco=DataSetConfig("x", 2.0)).data_sets == {"coco": DataSetConfig("x", 2.0)}
