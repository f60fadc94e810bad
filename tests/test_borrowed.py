"""Errors lent to other motion: a clip that borrows its own gets back what the front end saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_perceived import seen_clip

from kinflow.body import Body
from kinflow.errors import MissingAssetError
from kinflow.reconstruction.geometry import local_view
from kinflow.training.streams.borrowed import _LIKE, BorrowedErrors, _at_times, exact_view
from kinflow.training.streams.perceived import PerceivedClip


@pytest.fixture(scope="module")
def clips() -> list[PerceivedClip]:
    """Clips whose front end errs by up to 2 cm a landmark, has seen everything and is unsure of some."""
    rng, out = np.random.default_rng(0), []
    for seed in range(3):
        clip = seen_clip(rng.normal(0, 0.02, (33, 3)).astype(np.float32), seed)
        out.append(
            dataclasses.replace(
                clip,
                has_world=np.ones(len(clip), bool),
                world_landmarks=rng.normal(0, 0.3, (len(clip), 33, 3)).astype(np.float32),
                confidence=rng.uniform(0.2, 1, (len(clip), 33)).astype(np.float32),
            )
        )
    return out


def truth(clip: PerceivedClip) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    body = Body.open("light")
    betas = torch.from_numpy(clip.betas).expand(1, len(clip), -1)
    landmarks = body.landmarks(betas, clip.pose_rotmat[None], torch.from_numpy(clip.transl)[None])
    times = torch.from_numpy(clip.timestamps).float()
    return landmarks, torch.from_numpy(clip.K).float()[None], (times - times[len(times) // 2])[None]


@pytest.mark.parametrize("coherent", [True, False])
def test_who_borrows_his_own_errors_is_seen_as_he_was(clips: list[PerceivedClip], coherent: bool) -> None:
    lender = BorrowedErrors(clips[:1], Body.open("light"), coherent=coherent)
    # Of the clip and its mirror image the pose finds the clip itself: offer nothing else.
    own = len(lender.pose) // 2
    for name in ("pose", "times", "points", "world", "confidence"):
        setattr(lender, name, getattr(lender, name)[:own])
    landmarks, K, times = truth(clips[0])
    if not coherent:  # the likest frame of five: offer one at a time
        frames = []
        for t in range(landmarks.shape[1]):
            one = BorrowedErrors(clips[:1], Body.open("light"), coherent=False)
            for name in ("pose", "points", "world", "confidence"):
                setattr(one, name, getattr(one, name)[t : t + 1])
            frames.append(one.lend(landmarks[:, t : t + 1], K, times[:, t : t + 1], torch.Generator().manual_seed(0)))
        seen = type(frames[0])(*(torch.cat(x, 1) for x in zip(*frames, strict=True)))
    else:
        seen = lender.lend(landmarks, K, times, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(seen.keypoints2d[0], clips[0].keypoints2d, atol=0.02)
    np.testing.assert_allclose(seen.confidence[0], clips[0].confidence, atol=1e-5)
    hips = clips[0].world_landmarks[:, [23, 24]].mean(1, keepdims=True)
    np.testing.assert_allclose(seen.world[0], clips[0].world_landmarks - hips, atol=1e-4)


def test_the_likest_pose_lends(clips: list[PerceivedClip]) -> None:
    lender = BorrowedErrors(clips, Body.open("light"))
    landmarks, K, _ = truth(clips[1])
    wanted = exact_view(landmarks, K).landmarks[:, landmarks.shape[1] // 2]
    offered = lender.pose[:, lender.pose.shape[1] // 2]
    near = torch.cdist(wanted[:, list(_LIKE)].flatten(1), offered.flatten(1))[0].argsort()
    assert int(near[0]) == 1


def test_exact_views_stand_upright_and_project_exactly(clips: list[PerceivedClip]) -> None:
    landmarks, K, _ = truth(clips[0])
    exact = exact_view(landmarks, K)
    shoulders, hips = exact.landmarks[..., [11, 12], :].mean(-2), exact.landmarks[..., [23, 24], :].mean(-2)
    torch.testing.assert_close(hips, torch.zeros_like(hips), atol=1e-5, rtol=0)
    assert (shoulders[..., 1] < -0.3).all()
    sure = torch.ones(landmarks.shape[:3])
    view = local_view(exact.pixels, sure, K[:, None])
    assert torch.isfinite(view.points).all()
    lengths = (landmarks[..., 11, :] - landmarks[..., 12, :]).norm(dim=-1)
    torch.testing.assert_close((exact.landmarks[..., 11, :] - exact.landmarks[..., 12, :]).norm(dim=-1), lengths)


def test_beyond_its_ends_a_stretch_runs_back() -> None:
    known = torch.tensor([[-2.0, 0.0, 2.0]])
    values = torch.tensor([[[-2.0], [0.0], [2.0]]])
    at = torch.tensor([[-1.0, 0.5, 2.0, 3.0, 6.0, -3.0, -6.0]])
    expected = torch.tensor([[-1.0, 0.5, 2.0, 1.0, -2.0, -1.0, 2.0]])
    torch.testing.assert_close(_at_times(values, known, at)[..., 0], expected)


def test_every_frame_seen_lends_whatever_the_clips_lengths(clips: list[PerceivedClip]) -> None:
    short = dataclasses.replace(
        clips[0], **{f.name: value[:3] for f in dataclasses.fields(clips[0]) if isinstance(value := getattr(clips[0], f.name), np.ndarray) and len(value) == len(clips[0]) and value.ndim}
    )  # fmt: skip
    lost = dataclasses.replace(clips[1], observed=np.arange(len(clips[1])) != 2)
    lender = BorrowedErrors([short, lost], Body.open("light"), coherent=False)
    assert lender.points.shape == (2 * (3 + len(clips[1]) - 1), 1, 33, 2)
    landmarks, K, _ = truth(lost)
    wanted = exact_view(landmarks, K).landmarks[0, 3, list(_LIKE)]
    torch.testing.assert_close(lender.pose[3 + 2, 0], wanted, atol=1e-5, rtol=0)  # row 2 was not seen


def test_nobody_to_borrow_from(clips: list[PerceivedClip]) -> None:
    with pytest.raises(MissingAssetError, match="render_and_perceive"):
        BorrowedErrors(clips, Body.open("light"), frames=500)
