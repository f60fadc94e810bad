"""The lifter: its upright view, what it keeps under mirrors and rolled cameras, and what it makes of evidence."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_reconstructor import evidence_of, observations
from torch import Tensor

from kinflow.body import Body
from kinflow.config import LifterConfig, LifterTrainingConfig
from kinflow.errors import ConfigError, FormatError, MissingAssetError
from kinflow.reconstruction.lifting import PARTS, Lifter, lift, load_lifter, upright_view
from kinflow.reconstruction.observation import Observations, flatten_view
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE, MIRROR_BLAZEPOSE
from kinflow.training.tasks.lifter import LifterTask

MIRROR = list(MIRROR_BLAZEPOSE)


@pytest.fixture(scope="module")
def lifter() -> Lifter:
    """Untrained, with weights that answer to every input."""
    torch.manual_seed(0)
    made = Lifter(LifterConfig(part_width=32, whole_width=32, blocks=2)).double().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made


def rolled(obs: Observations, angle: Tensor) -> tuple[Observations, Tensor]:
    """What a camera rolled by ``angle`` (B, T) rad about its axis sees, and the turn (B, T, 3, 3) of its axes."""
    zero = torch.zeros_like(angle)
    turn = rotvec_to_rotmat(torch.stack((zero, zero, angle), -1))
    centre = obs.K[:, None, None, :2, 2]
    pixels = torch.einsum("btij,btpj->btpi", turn[..., :2, :2], obs.keypoints2d - centre) + centre
    return dataclasses.replace(obs, keypoints2d=pixels), turn


def test_head_and_shoulders_stand_above_the_hips_in_the_upright_view(body: Body) -> None:
    flat = flatten_view(observations(body, batch=3))
    view = upright_view(flat)
    torch.testing.assert_close(view @ view.transpose(-1, -2), torch.eye(3, dtype=view.dtype).expand_as(view))
    torch.testing.assert_close(view[..., 2, 2], torch.ones_like(view[..., 2, 2]))
    points = flat.points @ view[..., :2, :2]
    up = points[..., [11, 12], :].mean(-2) - points[..., [23, 24], :].mean(-2)
    up = up + 0.5 * (points[..., 0, :] - points[..., [23, 24], :].mean(-2))
    torch.testing.assert_close(up[..., 0], torch.zeros_like(up[..., 0]), atol=1e-9, rtol=0)
    assert (up[..., 1] < 0).all()  # y is down
    nothing = flat._replace(points=torch.zeros_like(flat.points))
    torch.testing.assert_close(upright_view(nothing), torch.eye(3, dtype=view.dtype).expand_as(view))


def test_a_mirrored_person_is_lifted_to_the_mirror_image(lifter: Lifter, body: Body) -> None:
    obs = observations(body, batch=2)
    side = torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    centre = obs.K[:, None, None, :2, 2]
    other = dataclasses.replace(
        obs,
        keypoints2d=((obs.keypoints2d - centre) * side[:2])[:, :, MIRROR] + centre,
        confidence=obs.confidence[..., MIRROR],
        world=(obs.world * side)[:, :, MIRROR],
    )
    with torch.no_grad():
        a, b = lifter(obs), lifter(other)
    torch.testing.assert_close((b.mean * side)[:, :, MIRROR], a.mean)
    torch.testing.assert_close(b.log_std[:, :, MIRROR], a.log_std)
    assert (a.mean - obs.world).norm(dim=-1).mean() > 0.01  # it does something


def test_the_cameras_roll_does_not_matter(lifter: Lifter, body: Body) -> None:
    obs = observations(body, batch=2)
    angle = torch.linspace(-3, 3, obs.observed.numel(), dtype=torch.float64).reshape(obs.observed.shape)
    turned, turn = rolled(obs, angle)
    # World landmarks lie in each view's own ray-aligned axes: they turn with them.
    before, after = flatten_view(obs).ray_to_camera, flatten_view(turned).ray_to_camera
    between = after.transpose(-1, -2) @ turn @ before
    turned = dataclasses.replace(turned, world=torch.einsum("btij,btpj->btpi", between, obs.world))
    with torch.no_grad():
        a, b = lifter(obs), lifter(turned)
    torch.testing.assert_close(torch.einsum("btij,btpj->btpi", between, a.mean), b.mean, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(a.log_std, b.log_std, atol=1e-7, rtol=1e-6)


def test_landmarks_are_about_the_hips_and_deviations_bounded(lifter: Lifter, body: Body) -> None:
    with torch.no_grad():
        lifted = lifter(observations(body))
    hips = lifted.mean[..., [23, 24], :].mean(-2)
    torch.testing.assert_close(hips, torch.zeros_like(hips), atol=1e-9, rtol=0)
    assert lifted.log_std.min() > -5.6 and lifted.log_std.max() < 0.1
    by_axis = lifted.log_std_by_axis()
    assert torch.equal(by_axis[..., 0], by_axis[..., 1]) and torch.equal(by_axis[..., 2], lifted.log_std[..., 1])


def test_a_limb_is_put_right_by_itself_but_for_the_overview(lifter: Lifter, body: Body) -> None:
    assert sorted(i for own, _ in PARTS for i in own) == list(range(33))
    obs = observations(body, batch=2)
    hand = [BLAZEPOSE.index(f"right_{name}") for name in ("wrist", "pinky", "index", "thumb")]
    moved = obs.world.clone()
    moved[..., hand, :] += 0.2
    told = copy.deepcopy(lifter)
    del told.members[-1]
    blind = copy.deepcopy(told)
    for member in blind.members:
        last = cast(Any, member).overview[-1][-1]
        torch.nn.init.zeros_(last.weight)
    changed = {}
    with torch.no_grad():
        for name, one in (("told", told), ("blind", blind)):
            before, after = one(obs), one(dataclasses.replace(obs, world=moved))
            off = (after.mean - moved - before.mean + obs.world).abs().amax((0, 1, 3))
            changed[name] = set(torch.nonzero(off > 1e-9)[:, 0].tolist())
    arm = {BLAZEPOSE.index("right_elbow"), *hand}
    assert changed["blind"] == arm  # in a mirror too
    assert changed["told"] >= arm and len(changed["told"]) > 25


def test_lifted_evidence(body: Body) -> None:
    torch.manual_seed(1)
    lifter = Lifter(LifterConfig(part_width=16, whole_width=16, blocks=1)).eval()
    obs = observations(body, batch=2, steps=9)
    seen = [dataclasses.replace(e, world_std=None) for e in (evidence_of(obs, 0, gap=slice(3, 5)), evidence_of(obs, 1))]
    first, second = lift(lifter, seen, obs.K[0].float())
    for before, after in zip(seen, (first, second), strict=True):
        assert after.world_std is not None and after.world_std.shape == (9, 33, 2)
        np.testing.assert_array_equal(after.has_world, before.observed)
        assert (after.world_std[before.observed] > 0).all() and not after.world_std[~before.observed].any()
        assert not after.world_landmarks[~before.observed].any()
        np.testing.assert_array_equal(after.keypoints2d, before.keypoints2d)
    (alone,) = lift(lifter, seen[1:], obs.K[0].float())
    np.testing.assert_allclose(alone.world_landmarks, second.world_landmarks, atol=1e-6)
    again = lift(lifter, [first, seen[1]], obs.K[0].float())
    assert again[0] is first and np.array_equal(again[1].world_landmarks, second.world_landmarks)


def test_members_differ_and_their_differences_count(body: Body) -> None:
    """The mean of the members, and the variance of their mixture."""
    torch.manual_seed(1)
    lifter = Lifter(LifterConfig(by_parts=2, part_width=16, whole_width=16, blocks=1)).double().eval()
    obs = observations(body)
    with torch.no_grad():
        each, lifted = lifter.each(obs), lifter(obs)
    assert each.mean.shape == (3, *lifted.mean.shape)
    torch.testing.assert_close(lifted.mean, each.mean.mean(0))
    apart = each.mean.var(0, correction=0)
    expected = (2 * each.log_std).exp().mean(0) + torch.stack((apart[..., :2].mean(-1), apart[..., 2]), -1)
    torch.testing.assert_close((2 * lifted.log_std).exp(), expected)
    assert (apart > 0).any()


def test_keypoints_alone_are_lifted(body: Body) -> None:
    torch.manual_seed(1)
    lifter = Lifter(LifterConfig(part_width=16, whole_width=16, blocks=1)).eval()
    obs = observations(body, batch=1)
    blind = dataclasses.replace(
        evidence_of(obs),
        world_landmarks=np.zeros((9, 33, 3), np.float32),
        has_world=np.zeros(9, bool),
        world_std=None,
    )
    (after,) = lift(lifter, [blind], obs.K[0].float())
    assert after.has_world.all() and np.isfinite(after.world_landmarks).all()


def test_weights_that_are_not_a_lifters(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError):
        load_lifter(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError):
        load_lifter(tmp_path / "bad.safetensors")


def test_a_blend_lies_between_what_was_and_what_was_learned() -> None:
    """Of two networks that differ in their last layer alone, it says the mean of what they say, weighted."""
    config = LifterTrainingConfig(
        model=LifterConfig(by_parts=1, whole=0, part_width=8, blocks=1), blend=0.25, init="a.safetensors"
    )
    begun, learned = Lifter(config.model).eval(), Lifter(config.model).eval()
    learned.load_state_dict(begun.state_dict())
    task: Any = SimpleNamespace(config=config, begun=begun)
    with torch.no_grad():
        for member in learned.members:
            cast(Any, member).parts[0][-1][-1].bias.add_(0.4)
    blended = LifterTask.blended(task, learned)
    for name, value in blended.state_dict().items():
        torch.testing.assert_close(value, 0.75 * begun.state_dict()[name] + 0.25 * learned.state_dict()[name])
    assert any(not torch.equal(a, b) for a, b in zip(blended.parameters(), begun.parameters(), strict=True))
    assert (
        LifterTask.blended(cast(Any, SimpleNamespace(config=LifterTrainingConfig(), begun=begun)), learned) is learned
    )
    with pytest.raises(ConfigError, match="nothing to blend with"):
        LifterTask(LifterTrainingConfig(blend=0.5), *cast(Any, [None] * 4))
