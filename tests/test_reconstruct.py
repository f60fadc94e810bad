"""The reconstruction network, the whole reconstructor untrained, refinement, and the projected training stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_reconstructor import DYNAMICS, FLOW, SMALL, captures, evidence_of, observations, training_task, untrained

from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.cameras import project
from kinflow.config import (
    FitLossConfig,
    ProjectionConfig,
    RefineConfig,
)
from kinflow.dynamics import LatentDynamics, load_dynamics
from kinflow.errors import ShapeError, UsageError
from kinflow.flow import PoseFlow
from kinflow.motion import Motion
from kinflow.reconstruction import Observations, ReconstructionNetwork, Reconstructor
from kinflow.reconstruction.gaussian import Gaussian
from kinflow.reconstruction.observation import canonicalise, flatten_view
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.streams.noise import ar1
from kinflow.training.streams.projected import ProjectedMotions


@pytest.fixture
def network() -> ReconstructionNetwork:
    net = ReconstructionNetwork(SMALL, LatentDynamics(DYNAMICS).double()).double().eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def change(obs: Observations, **fields: torch.Tensor) -> Observations:
    return dataclasses.replace(obs, **fields)


def outputs(network: ReconstructionNetwork, obs: Observations, streaming: bool = False) -> list[torch.Tensor]:
    with torch.no_grad():
        p, _ = network(obs, streaming)
    return [p.chart.mean, p.chart.log_var, p.root_to_camera, p.root_log_var, p.contact_logits]


def test_a_roll_of_the_camera_turns_the_root_and_nothing_else(network: ReconstructionNetwork, body: Body) -> None:
    obs = observations(body)
    roll = rotvec_to_rotmat(torch.tensor([0.0, 0, 0.7], dtype=torch.float64))
    centre = obs.K[0, :2, 2]
    rolled = change(obs, keypoints2d=(obs.keypoints2d - centre) @ roll[:2, :2].T + centre, world=obs.world @ roll.T)
    canonical, turned = (canonicalise(x, flatten_view(x), x.world) for x in (obs, rolled))
    assert torch.allclose(turned.root_to_camera, roll @ canonical.root_to_camera, atol=1e-6)
    # All features but the direction of the image's vertical (three numbers, given so that gravity can be guessed).
    same = torch.ones(canonical.features.shape[-1], dtype=torch.bool)
    same[33 * 7 + 3 : 33 * 7 + 6] = False
    assert torch.allclose(turned.features[..., same], canonical.features[..., same], atol=1e-5)
    assert not torch.allclose(turned.features[..., ~same], canonical.features[..., ~same], atol=1e-2)


def test_features_do_not_depend_on_the_scale_of_the_image(network: ReconstructionNetwork, body: Body) -> None:
    obs = observations(body)
    K = obs.K.clone()
    K[:, :2] *= 3
    larger = change(obs, keypoints2d=obs.keypoints2d * 3, K=K)
    for a, b in zip(outputs(network, obs), outputs(network, larger), strict=True):
        assert torch.allclose(a, b, atol=1e-8)


@pytest.mark.parametrize("streaming", [False, True])
def test_company_and_padding_change_nothing(network: ReconstructionNetwork, body: Body, streaming: bool) -> None:
    obs = observations(body, 2, 9)
    valid, times = obs.valid.clone(), obs.timestamps.clone()
    valid[1, 6:] = False
    times[1, 6:] = times[1, 5]
    hole = obs.observed.clone()
    hole[1, 2] = False
    padded = change(obs, valid=valid, observed=hole & valid, timestamps=times)
    alone = Observations(
        **{
            f.name: getattr(padded, f.name)[1:2] if f.name == "K" else getattr(padded, f.name)[1:2, :6]
            for f in dataclasses.fields(Observations)
        }
    )
    for a, b in zip(outputs(network, padded, streaming), outputs(network, alone, streaming), strict=True):
        assert torch.allclose(a[1:2, :6], b, atol=1e-9)


def test_streaming_does_not_look_ahead(network: ReconstructionNetwork, body: Body) -> None:
    obs = observations(body)
    later = obs.keypoints2d.clone()
    later[:, 5:] += 30
    for a, b in zip(outputs(network, obs, True), outputs(network, change(obs, keypoints2d=later), True), strict=True):
        assert torch.allclose(a[:, :5], b[:, :5]) and not torch.allclose(a[:, 5:], b[:, 5:])


def test_frames_not_observed_are_not_looked_at_but_predicted(network: ReconstructionNetwork, body: Body) -> None:
    obs = observations(body)
    observed = obs.observed.clone()
    observed[:, 3:6] = False
    blind = change(obs, observed=observed, has_world=observed, confidence=obs.confidence * observed[..., None])
    other = change(
        blind,
        keypoints2d=torch.where(observed[..., None, None], obs.keypoints2d, 0.0),
        world=torch.where(observed[..., None, None], obs.world, 0.0),
    )
    for a, b in zip(outputs(network, blind), outputs(network, other), strict=True):
        assert torch.allclose(a, b) and torch.isfinite(a).all()
    # The filter knows less where nothing was seen.
    with torch.no_grad():
        _, traces = network(blind)
    assert (traces.ahead.filtered.log_var[:, 5] > traces.ahead.filtered.log_var[:, 2]).double().mean() > 0.8


def test_filter_reads_the_dynamics_prediction(network: ReconstructionNetwork, body: Body) -> None:
    """Without evidence at a frame the filtered Gaussian is what the dynamics predict; evidence moves it by its precision."""
    from kinflow.reconstruction.filter import predict

    z = torch.randn(1, 2, 63, dtype=torch.float64)
    evidence = Gaussian(z, torch.full_like(z, -3.0))
    seen = torch.tensor([[True, False]])
    dt = torch.full((1, 2), 0.04, dtype=torch.float64)
    run = network.filter(evidence, seen, dt, torch.zeros(1, dtype=torch.long))
    state = network.filter.dynamics.initial_state((1,))
    first = predict(network.filter.dynamics, state)
    assert torch.equal(first.mean, torch.zeros(1, 63, dtype=torch.float64))
    state = network.filter.dynamics.update(state, run.filtered.mean[:, 0], valid=seen[:, 0])
    expected = predict(network.filter.dynamics, network.filter.dynamics.advance(state, dt[:, 1]))
    # Widened, a prediction is shortened towards the prior's mean, axis by axis.
    ratio = run.predicted.mean[:, 1] / expected.mean
    assert (ratio > 0).all() and (ratio <= 1 + 1e-9).all() and (run.predicted.log_var[:, 1] < 0).all()
    assert torch.equal(run.filtered.mean[:, 1], run.predicted.mean[:, 1])
    # The first frame's prediction is the prior, so its filtered Gaussian is the frame's own posterior.
    assert torch.allclose(run.filtered.mean[:, 0], z[:, 0], atol=1e-12)
    assert torch.allclose(run.filtered.log_var[:, 0], torch.full_like(z[:, 0], -3.0), atol=1e-12)


def test_gaps_are_filled_by_the_dynamics_from_both_sides(network: ReconstructionNetwork, body: Body) -> None:
    obs = observations(body)
    observed = obs.observed.clone()
    observed[:, 3:6] = False
    blind = change(obs, observed=observed)
    z = Gaussian(torch.randn(2, 9, 63, dtype=torch.float64), torch.full((2, 9, 63), -4.0, dtype=torch.float64))
    filled = network.fill_gaps(z, blind)
    assert torch.equal(filled.mean[observed], z.mean[observed]) and torch.equal(
        filled.log_var[observed], z.log_var[observed]
    )
    # It does not look at what stands in the gap, but at both sides; and it knows least in the middle.
    other = Gaussian(torch.where(observed[..., None], z.mean, 9.0), z.log_var)
    assert torch.equal(network.fill_gaps(other, blind).mean, filled.mean)
    later = Gaussian(torch.cat((z.mean[:, :6], z.mean[:, 6:] + 1), 1), z.log_var)
    assert not torch.allclose(network.fill_gaps(later, blind).mean[:, 3:6], filled.mean[:, 3:6])
    assert (filled.log_var[:, 4] > filled.log_var[:, 2]).all() and (filled.log_var[:, 3:6] < 0.1).all()
    assert network.fill_gaps(z, obs) is z


def test_long_gaps_stay_within_what_was_seen(body: Body) -> None:
    """The packaged dynamics' predictions grow wider than the prior over seconds; fused, they must not reach further."""
    network = ReconstructionNetwork(SMALL, load_dynamics().double()).double().eval()
    obs = observations(body, 2, 150)
    observed = obs.observed.clone()
    observed[:, 40:115] = False  # 3 s
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(2, 1, 63, dtype=torch.float64, generator=generator)
    mean = mean + 0.05 * torch.randn(2, 150, 63, dtype=torch.float64, generator=generator).cumsum(1)
    z = Gaussian(mean, torch.full_like(mean, -4.0))
    filled = network.fill_gaps(z, change(obs, observed=observed))
    seen = z.mean[observed].abs().max()
    assert filled.mean[~observed].abs().max() < 1.05 * seen
    assert (filled.log_var <= 0).all()


def test_every_weight_learns(body: Body) -> None:
    """After one step, since the corrections start at zero and what feeds them has no gradient before."""
    task = training_task(body)
    sample = task.draw(np.random.default_rng(0))
    learned = [p for p in task.module.parameters() if p.requires_grad]
    step = torch.optim.SGD(learned, lr=1e-3)
    for _ in range(2):
        step.zero_grad()
        loss, terms = task.loss(sample)
        loss.backward()
        step.step()
    assert torch.isfinite(loss) and all(torch.isfinite(torch.as_tensor(v)) for v in terms.values())
    idle = [
        name
        for name, p in task.module.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all() or p.grad.abs().sum() == 0)
    ]
    assert not idle
    assert not any(n.startswith("filter.dynamics") and p.grad is not None for n, p in task.module.named_parameters())


# -- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reconstructor(body: Body) -> Reconstructor:
    return untrained(body)


def test_reconstruction_is_complete_and_finite(reconstructor: Reconstructor, body: Body) -> None:
    obs = observations(body, 2, 45)
    evidences = [evidence_of(obs, 0, slice(20, 27)), evidence_of(obs, 1)]
    motions = reconstructor.reconstruct(evidences, obs.K[0].numpy())
    for motion, evidence in zip(motions, evidences, strict=True):
        assert len(motion) == 45 and np.array_equal(motion.observed, evidence.observed)
        assert (motion.joints3d_std > 0).all() and (motion.transl[:, 2] > 0.5).all()
        rotmats = rotvec_to_rotmat(
            torch.from_numpy(np.concatenate((motion.global_orient[:, None], motion.body_pose), 1))
        )
        joints = body.joints(motion.betas, rotmats, motion.transl)
        assert np.allclose(joints.numpy(), motion.joints3d, atol=1e-4)
    # The one person alone gives the same, to the last bit: company is in no rounding.
    alone = reconstructor.reconstruct(evidences[1:], obs.K[0].numpy())[0]
    np.testing.assert_array_equal(alone.joints3d, motions[1].joints3d)


def test_translation_puts_the_body_where_the_keypoints_are(reconstructor: Reconstructor, body: Body) -> None:
    obs = observations(body, 1, 12)
    motion = reconstructor.reconstruct([evidence_of(obs)], obs.K[0].numpy())[0]
    pelvis = project(torch.tensor(motion.joints3d[:, :1]), torch.tensor(motion.K))[:, 0].numpy()
    hips = motion.keypoints2d[:, [23, 24]].mean(1)
    torso = np.linalg.norm(motion.keypoints2d[:, [11, 12]].mean(1) - hips, axis=-1)
    assert np.median(np.linalg.norm(pelvis - hips, axis=-1) / torso) < 0.2


def test_bad_arguments_are_named(reconstructor: Reconstructor, body: Body) -> None:
    obs = observations(body, 1, 5)
    with pytest.raises(ShapeError, match="K"):
        reconstructor.reconstruct([evidence_of(obs)], np.eye(4))
    with pytest.raises(UsageError, match="no frame is observed"):
        reconstructor.reconstruct([evidence_of(obs, 0, slice(0, 5))], np.eye(3))
    motion = reconstructor.reconstruct([evidence_of(obs)], obs.K[0].numpy())
    with pytest.raises(UsageError, match="expected one for each"):
        reconstructor.refine(motion, [])


def test_refinement_improves_alignment(reconstructor: Reconstructor, body: Body) -> None:
    obs = observations(body, 1, 10)
    evidence = evidence_of(obs)
    plain = dataclasses.replace(SMALL, align=RefineConfig(iterations=0))
    plain_one = Reconstructor(
        plain, body, reconstructor.lifter, reconstructor.flow, reconstructor.network.filter.dynamics
    )
    plain_one.network.load_state_dict(reconstructor.network.state_dict())
    before = plain_one.reconstruct([evidence], obs.K[0].numpy())
    fitted = reconstructor.reconstruct([evidence], obs.K[0].numpy())
    calls: list[tuple[int, int]] = []
    config = RefineConfig(iterations=40, lr=0.05, pixels=20, vertices=40, kernel=0.0)
    # What the untrained network begins with shakes; a fit that minds would first of all still it.
    losses = FitLossConfig(acceleration=1.5)
    after = reconstructor.refine(before, [evidence], config, losses, progress=lambda i, n: calls.append((i, n)))
    assert calls[-1] == (40, 40)

    def error(motion: Motion) -> float:
        rotmats = rotvec_to_rotmat(
            torch.from_numpy(np.concatenate((motion.global_orient[:, None], motion.body_pose), 1))
        )
        points = body.landmarks(motion.betas, rotmats, motion.transl)
        return float((project(points, torch.tensor(motion.K)) - torch.tensor(motion.keypoints2d)).norm(dim=-1).mean())

    assert error(after[0]) < 0.7 * error(before[0])
    assert error(fitted[0]) < error(before[0])


# -- training streams -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact() -> Callable[[Body], ProjectedMotions]:
    """A stream without errors of the front end."""
    from kinflow.config import NoiseConfig

    none = NoiseConfig((1e-9, 1e-9), 0.0, (1e-9, 1e-9), (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    config = ProjectionConfig(none, frames=12, perturb=0.0, focal_error=0.0, gaps=0.0, size=(0.3, 0.6), off_centre=0.05)
    return lambda body: ProjectedMotions(captures(), body, config, None)


def test_projected_stream_agrees_with_its_own_truth(exact: Callable[[Body], ProjectedMotions], body: Body) -> None:
    sample = exact(body).draw(np.random.default_rng(0), 16)
    rotmats = full_pose(sample.pose_rotmat, sample.root_to_camera)
    landmarks = body.landmarks(sample.betas[:, None].expand(-1, 12, -1), rotmats, sample.transl)
    pixels = project(landmarks, sample.K[:, None])
    obs = sample.obs
    there = obs.observed[..., None] & (obs.confidence > 0)
    assert ((pixels - obs.keypoints2d).norm(dim=-1)[there] < 0.5).all()
    assert landmarks[..., 2].min() > 0.2
    steps = obs.timestamps.diff(dim=1)
    assert (steps[obs.valid[:, 1:]] > 0).all() and (steps[~obs.valid[:, 1:]] == 0).all()


def test_projected_stream_repeats_with_its_seed_and_stays_finite(body: Body) -> None:
    stream = ProjectedMotions(captures(), body, ProjectionConfig(frames=10), PoseFlow(FLOW).eval())
    a, b = (stream.draw(np.random.default_rng(5), 64) for _ in range(2))
    for f in dataclasses.fields(Observations):
        x, y = getattr(a.obs, f.name), getattr(b.obs, f.name)
        assert torch.equal(x, y) and torch.isfinite(x.float()).all()
    assert 0.2 < a.obs.has_world.float().mean() < 1 and a.obs.observed.float().mean() < 1


def test_correlated_noise_has_unit_variance_and_the_asked_correlation() -> None:
    g = torch.Generator().manual_seed(0)
    dt = torch.full((4000, 3), 0.1)
    x = ar1((1,), dt, torch.full((4000,), 0.2), g)[..., 0]
    assert torch.allclose(x.std(0), torch.ones(3), atol=0.05)
    assert float((x[:, 0] * x[:, 1]).mean()) == pytest.approx(np.exp(-0.5), abs=0.05)


def test_training_lowers_the_loss_on_one_batch(body: Body) -> None:
    task = training_task(body)
    sample = task.draw(np.random.default_rng(0))
    optimiser = torch.optim.Adam([p for p in task.module.parameters() if p.requires_grad], 1e-2)
    values = []
    for _ in range(12):
        torch.manual_seed(0)
        loss, _ = task.loss(sample)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.85 * values[0]
    scores = task.validate(task.module.eval())
    assert scores["score"] > 0 and np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize("steps", [1, 2])
def test_single_images_and_pairs_of_frames(reconstructor: Reconstructor, body: Body, steps: int) -> None:
    obs = observations(body, 1, steps)
    motion = reconstructor.reconstruct([evidence_of(obs)], obs.K[0].numpy())[0]
    assert len(motion) == steps
    assert len(reconstructor.refine([motion], [evidence_of(obs)], RefineConfig(iterations=2))[0]) == steps


def test_keypoints_of_another_tool_without_world_landmarks(reconstructor: Reconstructor, body: Body) -> None:
    obs = observations(body, 1, 6)
    seen = torch.zeros(33)
    seen[[0, 2, 5, 7, 8, *range(11, 17), *range(23, 29)]] = 1  # COCO's points
    without = change(
        obs,
        world=torch.zeros_like(obs.world),
        confidence=obs.confidence * seen,
        keypoints2d=obs.keypoints2d * seen[:, None],
    )
    evidence = dataclasses.replace(evidence_of(without), has_world=np.zeros(6, bool), masks=None)
    motion = reconstructor.reconstruct([evidence], obs.K[0].numpy())[0]
    assert (motion.transl[:, 2] > 0.3).all() and (motion.joints3d_std < 2).all()
    refined = reconstructor.refine([motion], [evidence], RefineConfig(iterations=2))
    assert np.isfinite(refined[0].joints3d).all()
