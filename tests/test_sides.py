"""Left and right told over time: exchanges that undo themselves, confusions put right, and the training of what tells them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_perceived import captured, seen_clip
from walker import walk

from kinflow.assets import asset_path
from kinflow.body import Body
from kinflow.cameras import intrinsics, project
from kinflow.config import ProjectionConfig, SidesConfig, SidesTrainingConfig, TrainConfig
from kinflow.errors import FormatError
from kinflow.evidence import Evidence
from kinflow.mocap.clips import save_clips
from kinflow.perception.sides import SidesNetwork, Sighted, exchange, load_sides, settle_sides, sighted
from kinflow.skeleton import BLAZEPOSE, MIRROR_BLAZEPOSE
from kinflow.training.loop import fit
from kinflow.training.poses import read_captures
from kinflow.training.streams.perceived import PerceivedClip, PerceivedMotions
from kinflow.training.streams.projected import ProjectedMotions
from kinflow.training.tasks.sides import SidesTask, Window, runs, window_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def walker() -> Evidence:
    """Somebody who walks across, seen exactly, at 20 frames/s."""
    body, K = Body.open("light"), intrinsics((640, 480))
    steps = walk(frames=40, fps=20, heading=0.6)
    with torch.no_grad():
        landmarks = body.landmarks(torch.zeros(1, 10), steps.pose_rotmat, steps.transl)
    frames = len(landmarks)
    world = landmarks - landmarks[:, [23, 24]].mean(1, keepdim=True)
    seen = np.ones(frames, bool)
    return Evidence(
        person_id=0, frame_ids=np.arange(frames), timestamps=steps.timestamps.numpy().astype(np.float64), observed=seen,
        keypoints2d=project(landmarks, K).numpy(), confidence=np.full((frames, 33), 0.9, np.float32),
        world_landmarks=world.numpy(), has_world=seen.copy(), boxes_xyxy=np.zeros((frames, 4), np.float32),
        rois=np.zeros((frames, 4), np.float32), image_size=np.array([640, 480]),
    )  # fmt: skip


def with_exchanged(evidence: Evidence, halves: np.ndarray) -> Evidence:
    """The evidence (T frames, all seen) with halves (T, 2) exchanged."""
    seen = exchange(sighted(evidence), torch.from_numpy(halves)[None])
    return dataclasses.replace(
        evidence,
        keypoints2d=seen.keypoints2d[0].numpy(),
        confidence=seen.confidence[0].numpy(),
        world_landmarks=seen.world[0].numpy(),
    )


def random_sight(frames: int = 7, people: int = 2) -> Sighted:
    g = torch.Generator().manual_seed(0)
    return Sighted(
        200 * torch.rand(people, frames, 33, 2, generator=g),
        torch.rand(people, frames, 33, generator=g),
        torch.randn(people, frames, 33, 3, generator=g),
        torch.ones(people, frames, dtype=torch.bool),
        torch.arange(frames).expand(people, -1) / 25,
    )


def same(a: Sighted, b: Sighted) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_exchange_undoes_itself_and_touches_what_it_says() -> None:
    seen = random_sight()
    halves = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    once = exchange(seen, halves)
    assert same(exchange(once, halves), seen) and not same(once, seen)
    elbow, knee = (BLAZEPOSE.index(f"left_{n}") for n in ("elbow", "knee"))
    upper = exchange(seen, torch.tensor([True, False]).expand(2, 7, 2))
    assert torch.equal(upper.keypoints2d[..., elbow, :], seen.keypoints2d[..., elbow + 1, :])
    assert torch.equal(upper.world[..., elbow, :], seen.world[..., elbow + 1, :])
    assert torch.equal(upper.confidence[..., knee], seen.confidence[..., knee])
    # Who is exchanged altogether is turned round: their exchanged mirror image in depth.
    both = exchange(seen, torch.ones(2, 7, 2, dtype=torch.bool))
    expected = seen.world[..., list(MIRROR_BLAZEPOSE), :] * torch.tensor([1.0, 1.0, -1.0])
    assert torch.equal(both.world, expected)


def test_where_somebody_stands_and_how_large_does_not_matter() -> None:
    torch.manual_seed(0)
    network, seen = SidesNetwork(SidesConfig(width=8)), random_sight()
    with torch.no_grad():
        odds = network(seen)
        moved = seen._replace(keypoints2d=1.7 * seen.keypoints2d + torch.tensor([300.0, 40.0]))
        torch.testing.assert_close(network(moved), odds, atol=1e-5, rtol=1e-4)
    assert odds.shape == (2, 7, 2)


@pytest.mark.parametrize("world", [True, False])
def test_who_is_confused_for_some_frames_is_put_right(walker: Evidence, world: bool) -> None:
    if not world:
        zeros = np.zeros_like(walker.world_landmarks)
        walker = dataclasses.replace(walker, world_landmarks=zeros, has_world=np.zeros_like(walker.has_world))
    network = load_sides()
    assert settle_sides(walker, network) is walker
    halves = np.zeros((40, 2), bool)
    halves[12:16] = True  # altogether
    halves[25:27, 1] = True  # the legs
    confused = with_exchanged(walker, halves)
    assert np.abs(confused.keypoints2d - walker.keypoints2d).max() > 20
    settled = settle_sides(confused, network)
    np.testing.assert_array_equal(settled.keypoints2d, walker.keypoints2d)
    np.testing.assert_array_equal(settled.confidence, walker.confidence)
    np.testing.assert_array_equal(settled.world_landmarks, walker.world_landmarks)


def test_features_go_with_their_landmarks_and_gaps_stay(walker: Evidence) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 33, 4)).astype(np.float16)
    halves = np.zeros((40, 2), bool)
    halves[12:15] = True
    confused = with_exchanged(walker, halves)
    confused = dataclasses.replace(
        confused, features=np.where(halves.all(1)[:, None, None], features[:, list(MIRROR_BLAZEPOSE)], features)
    )
    gap = np.ones(40, bool)
    gap[30:34] = False
    unseen = {
        name: np.where(gap.reshape(-1, *[1] * (getattr(confused, name).ndim - 1)), getattr(confused, name), 0)
        for name in ("keypoints2d", "confidence", "world_landmarks")
    }
    unseen = {name: value.astype(np.float32) for name, value in unseen.items()}
    settled = settle_sides(dataclasses.replace(confused, observed=gap, has_world=gap, **unseen), load_sides())
    assert settled.features is not None
    np.testing.assert_array_equal(settled.features, features)
    np.testing.assert_array_equal(settled.keypoints2d[gap], walker.keypoints2d[gap])
    assert not settled.keypoints2d[~gap].any()


def test_of_a_few_frames_nothing_is_said(walker: Evidence) -> None:
    seen = np.zeros(40, bool)
    seen[[0, 20, 39]] = True
    few = dataclasses.replace(walker, observed=seen, has_world=seen)
    assert settle_sides(few, load_sides()) is few


def test_weights_that_are_not_of_sides(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a network of sides"):
        load_sides(asset_path("tilt.safetensors"))


# -- training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips() -> list[PerceivedClip]:
    ones = [seen_clip(np.zeros((33, 3), np.float32), seed) for seed in range(6)]
    return [dataclasses.replace(c, source=f"walk{i}") for i, c in enumerate(ones)]


def test_what_is_exchanged_is_known_by_the_truth(clips: list[PerceivedClip]) -> None:
    body = Body.open("light")

    def window(clip: PerceivedClip) -> Window:
        return window_of(PerceivedMotions([clip], body, 20, augment=False).whole([clip]), body)

    plain = window(clips[0])
    assert float(plain.kept.max()) < 1e-4
    assert not (plain.exchanged == 1).any() and (plain.exchanged == 0).float().mean() > 0.3
    turned = np.array(clips[0].keypoints2d)
    turned[5:8] = turned[5:8][:, list(MIRROR_BLAZEPOSE)]
    confused = window(dataclasses.replace(clips[0], keypoints2d=turned))
    torch.testing.assert_close(confused.swapped[:, 5:8], plain.kept[:, 5:8])
    was, told = plain.exchanged, confused.exchanged
    assert (told[:, 5:8][was[:, 5:8] == 0] == 1).all()
    assert torch.equal(told[:, 8:].nan_to_num(2), was[:, 8:].nan_to_num(2))
    halves = torch.zeros(1, 20, 2, dtype=torch.bool)
    halves[:, 5:8] = True
    again = confused.with_exchanged(halves)
    assert same(again.seen, plain.seen._replace(world=again.seen.world))
    torch.testing.assert_close(again.kept, plain.kept)


def test_frames_without_a_sighting_repeat_the_last(clips: list[PerceivedClip]) -> None:
    body, seen = Body.open("light"), np.ones(20, bool)
    seen[[0, 6, 7]] = False
    clip = dataclasses.replace(clips[0], observed=seen)
    window = window_of(PerceivedMotions([clip], body, 24, augment=False).whole([clip]), body)
    at = [1, 1, 2, 3, 4, 5, 5, 5, *range(8, 20), 19, 19, 19, 19]
    np.testing.assert_array_equal(window.seen.keypoints2d[0].numpy(), clip.keypoints2d[at])
    np.testing.assert_allclose(window.seen.timestamps[0].numpy(), (clip.timestamps - clip.timestamps[0])[at], atol=1e-6)
    assert window.valid[0].tolist() == [*seen, *[False] * 4]
    assert window.exchanged[0, [0, 6, 7, 20, 23]].isnan().all()


def test_runs_are_exchanged_as_often_as_asked() -> None:
    halves = runs(np.random.default_rng(0), 4000, 20, 0.6)
    some = halves.any((1, 2))
    assert 0.55 < some.mean() < 0.65
    assert not runs(np.random.default_rng(0), 50, 20, 0.0).any()
    both = (halves[some][..., 0].any(1) & halves[some][..., 1].any(1)).mean()
    assert 0.4 < both < 0.75 and 0.01 < halves[some].all((1, 2)).mean() < 0.15


def test_it_learns(clips: list[PerceivedClip], tmp_path: Path) -> None:
    """On walks that are seen exactly, runs exchanged on purpose are told after a few steps."""
    train = TrainConfig(batch=16, steps=80, lr=5e-3, warmup=5, validate_every=40, ema=0.9, precision="fp32")
    projection = ProjectionConfig(frames=20, gaps=0.0, borrowed=0.0)
    config = SidesTrainingConfig(model=SidesConfig(width=24), train=train, perceived_share=1.0, projection=projection)
    body = Body.open("light")
    perceived, held_out = PerceivedMotions(clips[:5], body, 20), PerceivedMotions(clips[5:], body, 20, augment=False)
    save_clips(tmp_path / "mocap.npz", [captured()])
    projected = ProjectedMotions(read_captures(tmp_path / "mocap.npz", "train"), body, projection)
    task = SidesTask(config, body, projected, perceived, held_out, CPU)
    batch = task.draw(np.random.default_rng(7))
    with torch.no_grad():
        before = float(task.loss(batch)[0])
    result = fit(task, train, tmp_path)
    with torch.no_grad():
        assert float(task.loss(batch)[0]) < 0.6 * before
    assert result.scores["exchanged"] == 0 and result.scores["before"] < 0.1
    # The other stream has its share of a batch.
    task.config = dataclasses.replace(config, perceived_share=0.25)
    assert task.draw(np.random.default_rng(7)).valid.shape == (16, 20)
