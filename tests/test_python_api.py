"""What is called with something that cannot be meant says so by name."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_motion import a_motion

import kinflow
from kinflow.errors import UsageError
from kinflow.perception import Perceiver, read_keypoints
from kinflow.prior import LiveFilter
from kinflow.reconstruction import Reconstructor, reconstruct


@pytest.mark.parametrize("value", [None, 5, 2.5, b"clip.mp4", ["clip.mp4"]], ids=repr)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (kinflow.reconstruct, "clip"),
        (kinflow.run, "clip"),
        (kinflow.Clip.open, "clip"),
        (kinflow.Motion.load, "path"),
        (kinflow.Evidence.load, "path"),
        (kinflow.Body.from_file, "path"),
    ],
)
def test_what_is_no_path_is_named(call: Callable[[object], object], name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected the path of a file or folder, got "):
        call(value)


CLIP = Path(__file__)
POSE, TIMES, POINTS, K = np.zeros((4, 23, 3)), np.arange(4) / 30, np.zeros((33, 3)), np.eye(3)
NO = object()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("clip", lambda prior: kinflow.perceive(NO)),
        ("config", lambda prior: Perceiver(NO)),
        ("device", lambda prior: Perceiver(device="abacus")),
        ("images", lambda prior: Perceiver().update(NO, TIMES, TIMES)),
        ("keypoints", lambda prior: read_keypoints(NO, NO)),
        ("clip", lambda prior: read_keypoints(CLIP, NO)),
        ("options", lambda prior: kinflow.run(CLIP, NO)),
        ("config", lambda prior: kinflow.run(CLIP, config=NO)),
        ("max_people", lambda prior: kinflow.RunOptions(max_people=2.5)),
        ("batch_size", lambda prior: kinflow.RunOptions(batch_size="8")),
        ("seed", lambda prior: kinflow.RunOptions(seed=None)),
        ("refine", lambda prior: kinflow.RunOptions(refine="no")),
        ("start", lambda prior: kinflow.Clip.open(CLIP, start="1")),
        ("end", lambda prior: kinflow.Clip.open(CLIP, end=True)),
        ("config", lambda prior: kinflow.Clip.open(CLIP, config=NO)),
        ("K", lambda prior: reconstruct([], None)),
        ("evidences", lambda prior: reconstruct(3, K)),
        (r"evidences\[0\]", lambda prior: reconstruct([None], K)),
        ("reconstructor", lambda prior: reconstruct([], K, reconstructor=NO)),
        ("body", lambda prior: reconstruct([], K, body=NO)),
        ("motions", lambda prior: Reconstructor.load().refine(3, [])),
        (r"evidences\[0\]", lambda prior: Reconstructor.load().refine([a_motion(5)], [a_motion(5)])),
        ("body", lambda prior: a_motion(5).vertices(body=NO)),
        ("path", lambda prior: a_motion(5).save(NO)),
        ("flow", lambda prior: kinflow.MotionPrior(NO, NO, NO)),
        ("body_pose", lambda prior: prior.log_prob(None, TIMES)),
        ("timestamps, fps", lambda prior: prior.log_prob(POSE, None)),
        ("fps", lambda prior: prior.log_prob(POSE, fps="fast")),
        ("timestamps", lambda prior: prior.denoise(POSE, NO)),
        ("valid", lambda prior: prior.infill(POSE, TIMES, valid=NO)),
        ("noise", lambda prior: prior.denoise(POSE, TIMES, noise=NO)),
        ("future", lambda prior: prior.forecast(POSE, TIMES, None)),
        ("samples", lambda prior: prior.forecast(POSE, TIMES, TIMES + 1, samples=None)),
        ("samples", lambda prior: prior.forecast(POSE, TIMES, TIMES + 1, samples=-1)),
        ("temperature", lambda prior: prior.forecast(POSE, TIMES, TIMES + 1, samples=1, temperature=None)),
        ("timestamps", lambda prior: prior.sample(None)),
        ("samples", lambda prior: prior.sample(TIMES, 1.5)),
        ("temperature", lambda prior: prior.sample(TIMES, temperature="cold")),
        ("generator", lambda prior: prior.sample(TIMES, generator=3)),
        ("longest", lambda prior: prior.core(None)),
        ("body_pose", lambda prior: prior.encode(None)),
        ("z", lambda prior: prior.decode(None)),
        ("prior", lambda prior: LiveFilter(NO)),
        ("body", lambda prior: LiveFilter(prior, NO)),
        ("betas", lambda prior: LiveFilter(prior, betas=[0.0] * 9)),
        ("iterations", lambda prior: LiveFilter(prior, iterations=1.5)),
        ("forget_after", lambda prior: LiveFilter(prior, forget_after=None)),
        ("timestamp", lambda prior: LiveFilter(prior).landmarks(None, POINTS)),
        ("points", lambda prior: LiveFilter(prior).landmarks(0.0, NO)),
        ("std", lambda prior: LiveFilter(prior).landmarks(0.0, POINTS, std=0.1)),
        ("body_pose", lambda prior: LiveFilter(prior).rotations(0.0, NO)),
        ("std", lambda prior: LiveFilter(prior).rotations(0.0, POSE[0], std=None)),
    ],
)
def test_what_cannot_be_meant_is_named(
    prior: kinflow.MotionPrior, name: str, call: Callable[[kinflow.MotionPrior], object]
) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: ") as caught:
        call(prior)
    assert "\n" not in str(caught.value)


def test_a_clips_batches_are_counted(clip30: Path) -> None:
    clip = kinflow.Clip.open(clip30)
    for n in (None, 0, 2.5, "8"):
        with pytest.raises(UsageError, match=r"^n: expected a batch of at least one frame, got "):
            next(clip.batches(n))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^n: "):
        kinflow.perceive(clip, batch_size=None, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^device: "):
        kinflow.run(clip, device=None)  # type: ignore[arg-type]


def test_numpys_numbers_are_numbers(prior: kinflow.MotionPrior) -> None:
    options = kinflow.RunOptions(max_people=np.int64(2), seed=np.int32(3))  # type: ignore[arg-type]
    assert options.max_people == 2 and options.seed == 3
    live = LiveFilter(prior)
    now = live.landmarks(np.float32(0.5), POINTS + np.arange(3), std=np.full(3, 0.02))  # type: ignore[arg-type]
    assert now.observed and live.landmarks(torch.tensor(0.6), None).size == pytest.approx(now.size)  # type: ignore[arg-type]


def test_weights_that_are_no_path_are_named() -> None:
    with pytest.raises(UsageError, match="weights: expected the path"):
        kinflow.MotionPrior.load(flow=5)  # type: ignore[arg-type]


def test_type_checkers_see_the_public_names() -> None:
    """Names handed on lazily are invisible to them and to the API page, unless imported under TYPE_CHECKING as well."""
    tree = ast.parse(Path(kinflow.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If))
    seen = {a.name: f"kinflow.{n.module}" for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == kinflow._PUBLIC
