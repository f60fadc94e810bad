"""The verb, its seed, and every option of the room: none is without effect, and what does not fit says so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from filmed_clips import film, swinging
from small_reconstructor import SMALL, evidence_of, observations, training_task, untrained

from kinflow.assets import asset_path
from kinflow.assets.weights import load_weights, save_weights
from kinflow.body import Body
from kinflow.config import (
    ClipsConfig,
    DataSetConfig,
    FitLossConfig,
    PipelineConfig,
    ReconstructorConfig,
    ReconstructorTrainingConfig,
    RefineConfig,
    SourcesConfig,
    TrainConfig,
    TrainingLossConfig,
    config_hash,
    load_config,
)
from kinflow.datasets.miniature import write_coco
from kinflow.denoiser import load_denoiser
from kinflow.dynamics import load_dynamics
from kinflow.errors import ConfigError, FormatError, UsageError
from kinflow.evidence import Evidence
from kinflow.flow import load_flow
from kinflow.motion import Motion
from kinflow.reconstruction import Reconstructor, Refiner, reconstruct
from kinflow.reconstruction.gaussian import Gaussian
from kinflow.reconstruction.reconstructor import cholesky
from kinflow.reconstruction.refine import Variables
from kinflow.reconstruction.target import gather_target
from kinflow.skeleton import BODYPIX24
from kinflow.training.tasks.reconstructor import OwnWeights, ReconstructorTask

K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def reconstructor(body: Body) -> Reconstructor:
    return untrained(body)


@pytest.fixture(scope="module")
def evidence(body: Body) -> Evidence:
    """45 frames with a gap; a left half and a right half of the crop as masks, in turn."""
    plain = evidence_of(observations(body, 1, 45), 0, slice(20, 24))
    masks = np.zeros((45, 64, 64), np.uint8)
    masks[::2, :, :40], masks[1::2, :, 24:] = 255, 255
    return dataclasses.replace(plain, masks=masks)


def different(a: Motion, b: Motion) -> set[str]:
    """Names of the arrays in which two motions differ."""
    return {f.name for f in dataclasses.fields(Motion) if not np.array_equal(getattr(a, f.name), getattr(b, f.name))}


# -- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_is_the_reconstructor(reconstructor: Reconstructor, evidence: Evidence) -> None:
    for streaming in (False, True):
        (ours,) = reconstruct([evidence], K, reconstructor=reconstructor, streaming=streaming)
        assert not different(ours, reconstructor.reconstruct([evidence], K, streaming=streaming)[0])
    with pytest.raises(UsageError, match="beside a reconstructor"):
        reconstruct([evidence], K, reconstructor=reconstructor, device="cpu")


def test_the_verb_loads_the_packaged_weights_for_a_body(body: Body, evidence: Evidence) -> None:
    (motion,) = reconstruct([evidence], K, body=body, device="cpu")
    assert len(motion) == len(evidence) and not different(
        motion, Reconstructor.load(body=body).reconstruct([evidence], K)[0]
    )


def test_one_seed_gives_one_result_and_another_another(reconstructor: Reconstructor, evidence: Evidence) -> None:
    def run(seed: int) -> Motion:
        return reconstruct([hidden], K, reconstructor=reconstructor, seed=seed)[0]

    hidden = dataclasses.replace(
        evidence, observed=evidence.observed & ~np.isin(np.arange(len(evidence)), range(20, 30))
    )
    torch.manual_seed(5)  # the state of torch's own generator does not enter
    first = run(3)
    torch.manual_seed(6)
    assert not different(first, run(3))
    # Without masks in the fit, the draws behind the deviations of frames that were not seen alone.
    assert different(first, run(4)) == {"joints3d_std", "joints3d_depth_std"}
    np.testing.assert_allclose(first.joints3d_std, run(4).joints3d_std, rtol=1.0)

    def fit(seed: int) -> Motion:
        return reconstructor.refine([first], [hidden], RefineConfig(iterations=2, pixels=16), seed=seed)[0]

    assert not different(fit(3), fit(3))
    assert {"z", "transl"} <= different(fit(3), fit(4))


def test_what_was_fitted_is_what_is_written(body: Body, evidence: Evidence) -> None:
    """Also by a flow whose tails were trained, which its chart's were not."""
    reconstructor = untrained(body)
    with torch.no_grad():
        reconstructor.flow.tail.log_c.sub_(0.7)
        reconstructor.flow.whitening.factor.mul_(0.2)
    reconstructor.chart = reconstructor.flow.linear()
    (first,) = reconstructor.reconstruct([evidence], K)
    still = RefineConfig(iterations=1, pixels=16, lr=0, lr_root=0, lr_transl=0, lr_betas=0)
    fitted = reconstructor.refiner(still).fit(first, evidence)
    np.testing.assert_allclose(fitted.joints3d, first.joints3d, atol=1e-5)
    with torch.no_grad():
        again = reconstructor.flow.decode(torch.tensor(fitted.z))[0]
    assert (again - fitted.pose_rotmat()[:, 1:22]).abs().max() < 1e-4


# -- weights of the losses --------------------------------------------------------------------------------------------

FIT = FitLossConfig(contact_velocity=0.3, start=0.1)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A motion away from its start, and what it is fitted to."""

    reconstructor: Reconstructor
    motion: Motion
    evidence: Evidence

    def __call__(self, weights: FitLossConfig) -> tuple[float, dict[str, float]]:
        refiner: Refiner = self.reconstructor.refiner(RefineConfig(pixels=20, vertices=40, window=8), weights)
        target, start = gather_target(self.motion, self.evidence, 20, torch.device("cpu")), refiner.start(self.motion)
        g = torch.Generator().manual_seed(0)
        off = [0.1 * torch.randn(x.shape, generator=g) for x in (start.chart, start.transl, start.transl, start.betas)]
        at = Variables(start.chart + off[0], off[1], start.transl + off[2], start.betas + off[3])
        total, terms = refiner.objective(at, start, target)
        return float(total), {name: float(value) for name, value in terms.items()}


@pytest.fixture(scope="module")
def fit(reconstructor: Reconstructor, evidence: Evidence) -> Fit:
    return Fit(reconstructor, reconstructor.reconstruct([evidence], K)[0], evidence)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(FitLossConfig)])
def test_every_weight_of_a_fit_counts(fit: Fit, name: str) -> None:
    value = getattr(FIT, name)
    total, terms = fit(FIT)
    assert set(terms) == {f.name for f in dataclasses.fields(FIT)} - {
        "keypoint_scale",
        "part_scale",
        "acceleration_scale",
    }
    raised, _ = fit(dataclasses.replace(FIT, **{name: 2 * value}))
    assert abs(raised - total) > 1e-5 * abs(total)
    if name in terms:
        assert raised - total == pytest.approx(value * terms[name], rel=1e-2, abs=1e-5 * abs(total))
        without, left = fit(dataclasses.replace(FIT, **{name: 0.0}))
        assert set(left) == set(terms) - {name}
        assert total - without == pytest.approx(value * terms[name], rel=1e-2, abs=1e-5 * abs(total))


def test_a_fit_to_nothing_is_an_error(fit: Fit) -> None:
    nothing = FitLossConfig(**{f.name: 0.0 for f in dataclasses.fields(FitLossConfig) if not f.name.endswith("_scale")})
    with pytest.raises(UsageError, match="expected a weight above 0"):
        fit(nothing)


@pytest.fixture(scope="module")
def task(body: Body, tmp_path_factory: pytest.TempPathFactory) -> ReconstructorTask:
    """With windows of known poses, images with keypoints and masks alone, and clips."""
    coco = write_coco(tmp_path_factory.mktemp("coco"), split="train")
    clips = film(tmp_path_factory.mktemp("clips"), [swinging(body, 20)[0]]).parent
    sources = SourcesConfig(coco=DataSetConfig(str(coco), 1.0), clips=ClipsConfig(str(clips), 1.0))
    task = training_task(body, sources=sources)
    torch.nn.init.normal_(task.module.fusion_head[-1].bias, std=0.5)  # away from zero, betas too
    return task


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrainingLossConfig)])
def test_every_weight_of_the_training_counts(task: ReconstructorTask, name: str) -> None:
    base = TrainingLossConfig()
    task.config = dataclasses.replace(task.config, train=TrainConfig(batch=24))  # several windows of each source
    sample = task.draw(np.random.default_rng(0))

    def loss(weights: TrainingLossConfig) -> tuple[float, dict[str, float]]:
        task.config = dataclasses.replace(task.config, losses=weights)
        torch.manual_seed(1)
        with torch.no_grad():
            total, terms = task.loss(sample)
        return float(total), {k: float(v) for k, v in terms.items() if k != "chart_std"}

    value = getattr(base, name)
    total, terms = loss(base)
    raised, _ = loss(dataclasses.replace(base, **{name: 1e4 * value}))
    assert abs(raised - total) > 1e-6 * abs(total)
    mine = {k for k in terms if k.split(".")[0] == name}
    if not name.endswith("_scale"):
        assert mine
        without, left = loss(dataclasses.replace(base, **{name: 0.0}))
        assert set(left) == set(terms) - mine
        assert total - without == pytest.approx(value * sum(terms[k] for k in mine), rel=1e-2, abs=1e-5 * abs(total))


@pytest.mark.parametrize(
    ("config", "override", "message"),
    [
        (PipelineConfig, "losses.joints3d=1", "losses.joints3d: no such setting"),
        (PipelineConfig, "losses.contact_vel=1", "Did you mean losses.contact_velocity"),
        (ReconstructorTrainingConfig, "losses.start=1", "losses.start: no such setting"),
        (ReconstructorTrainingConfig, "losses.joint3d=1", "Did you mean losses.joints3d"),
        (ReconstructorTrainingConfig, "model.align_losses.rotations=1", "no such setting"),
        (ReconstructorConfig, "trunk_features=288", "no such setting"),
        (PipelineConfig, "losses.keypoints=-1", "keypoints: expected 0 to .*, got -1"),
        (ReconstructorTrainingConfig, "losses.betas=-0.5", "betas: expected 0 to .*, got -0.5"),
    ],
)
def test_a_weight_of_the_other_side_is_an_error(config: type, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(config, None, [override])


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", dataclasses.fields(RefineConfig), ids=lambda f: f.name)
def test_every_setting_of_the_refinement_counts(fit: Fit, field: dataclasses.Field[float]) -> None:
    base = RefineConfig(iterations=3, pixels=16, vertices=24, window=8)
    other = dataclasses.replace(base, **{field.name: type(field.default)(1.5 * getattr(base, field.name))})
    a, b = (fit.reconstructor.refine([fit.motion], [fit.evidence], config)[0] for config in (base, other))
    assert different(a, b)


OTHER = {
    "align": dataclasses.replace(SMALL.align, iterations=0),
    "align_losses": dataclasses.replace(SMALL.align_losses, keypoints=20.0),
    "dropout": 0.5,
    "std_draws": 20,
}
ARCHITECTURE = ("width", "blocks", "recurrent", "head_width")


@pytest.mark.parametrize("field", dataclasses.fields(ReconstructorConfig), ids=lambda f: f.name)
def test_every_setting_of_the_reconstructor_counts(
    reconstructor: Reconstructor, body: Body, evidence: Evidence, field: dataclasses.Field[object]
) -> None:
    value = getattr(SMALL, field.name)
    config = dataclasses.replace(SMALL, **{field.name: OTHER.get(field.name) or value * 2})
    other = untrained(body, config)
    shapes = [{k: v.shape for k, v in r.network.own_state().items()} for r in (reconstructor, other)]
    assert (shapes[0] != shapes[1]) == (field.name in ARCHITECTURE)
    if field.name == "dropout":  # acts in training alone
        blocks = other.network.train().encoder.blocks
        assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.5 and m.training for m in blocks.modules())
        return
    if field.name not in ARCHITECTURE:
        other.network.load_state_dict(reconstructor.network.state_dict())
        assert different(*(r.reconstruct([evidence], K)[0] for r in (reconstructor, other)))


# -- the joints' uncertainty ------------------------------------------------------------------------------------------


def test_factors_of_covariances_that_rounding_spoilt() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(20, 3, 3))
    sound = half @ half.swapaxes(-1, -2)
    assert np.array_equal(cholesky(sound), np.linalg.cholesky(sound))
    line = 1e-2 * half[..., :1] @ half[..., :1].swapaxes(-1, -2)  # known in all directions but one
    spoilt = line - 1e-14 * np.eye(3)  # not definite, as a long recursion leaves them
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(spoilt)
    for covariance in (line, spoilt, np.zeros((4, 3, 3))):
        factor = cholesky(covariance)
        assert np.isfinite(factor).all()
        np.testing.assert_allclose(factor @ factor.swapaxes(-1, -2), covariance, rtol=0, atol=1e-11)
    # Small beside the jitter that float32 would need: angles of a millionth of a radian keep their size.
    np.testing.assert_allclose(cholesky(1e-12 * sound), 1e-6 * np.linalg.cholesky(sound), rtol=1e-9)


def test_a_wide_and_nearly_singular_root_has_joints_of_finite_uncertainty(
    reconstructor: Reconstructor, evidence: Evidence
) -> None:
    (motion,) = reconstructor.reconstruct([evidence], K)
    at = reconstructor.refiner().start(motion)
    chart = Gaussian(at.chart, torch.full_like(at.chart, math.log(1e-4)))
    axis = np.array([0.6, 0.8, 0.0])
    covariance = np.tile(1.0 * np.outer(axis, axis), (len(motion), 1, 1))
    rows = torch.arange(len(motion))
    std = reconstructor._drawn_std(at, chart, rows, covariance, torch.Generator().manual_seed(0))
    none = reconstructor._drawn_std(at, chart, rows, 0 * covariance, torch.Generator().manual_seed(0))
    assert np.isfinite(std).all() and (std[:, 15] > 2 * none[:, 15]).all()


# -- weights ----------------------------------------------------------------------------------------------------------


def test_the_packaged_weights_carry_the_config_their_card_names() -> None:
    path = asset_path("reconstructor.safetensors")
    _, _, header = load_weights(path)
    loaded = Reconstructor.load(body=Body.open("light"))
    assert config_hash(loaded.config) == header["config_hash"] == loaded.weights["reconstructor"]
    assert f"| config hash | {header['config_hash']} |" in path.with_suffix(".md").read_text()


def test_weights_that_do_not_belong_together_are_refused(reconstructor: Reconstructor, tmp_path: Path) -> None:
    def saved(config: ReconstructorConfig, **card: str) -> Path:
        return save_weights(tmp_path / "r.safetensors", OwnWeights(reconstructor.network), config, card)

    assert Reconstructor.load(saved(SMALL), body=reconstructor.body).config == SMALL
    with pytest.raises(FormatError, match=r"trained with flow 0123, got .* Train the reconstructor anew"):
        Reconstructor.load(saved(SMALL, **{"flow fingerprint": "0123"}), body=reconstructor.body)
    with pytest.raises(FormatError, match="expected weights of a reconstructor"):
        Reconstructor.load(saved(dataclasses.replace(SMALL, width=32)), body=reconstructor.body)
    with pytest.raises(FormatError, match="expected weights of a reconstructor"):
        Reconstructor.load(asset_path("flow.safetensors"), body=reconstructor.body)
    assert FormatError.exit_code == 2


@pytest.mark.parametrize("load", (load_flow, load_dynamics, load_denoiser, Reconstructor.load))
def test_other_weights_and_damaged_ones_are_a_format_error(load: Callable[[Path], object], tmp_path: Path) -> None:
    other = "flow" if load is load_denoiser else "denoiser"
    with pytest.raises(FormatError, match=rf"{other}\.safetensors: expected weights of a?"):
        load(asset_path(f"{other}.safetensors"))
    whole = asset_path("denoiser.safetensors").read_bytes()
    for data, message in (
        (whole[:100], "not a readable safetensors"),
        (b"", "not a readable safetensors"),
        (safetensors.torch.save({"x": torch.zeros(1)}), "no kinflow header"),
        (safetensors.torch.save({"x": torch.zeros(1)}, {"kinflow": "{"}), "not a readable safetensors"),
        (safetensors.torch.save({"x": torch.zeros(1)}, {"kinflow": "[1]"}), "no kinflow header"),
    ):
        (tmp_path / "w.safetensors").write_bytes(data)
        with pytest.raises(FormatError, match=message):
            load(tmp_path / "w.safetensors")


# -- body parts ---------------------------------------------------------------------------------------------------------


def with_parts(evidence: Evidence, parts: np.ndarray) -> Evidence:
    return dataclasses.replace(evidence, parts=parts, part_confidence=parts, part_rois=evidence.rois)


def test_parts_are_fitted_where_there_are_part_maps(reconstructor: Reconstructor, evidence: Evidence) -> None:
    """The maps go before the masks; frames of which they see nobody are left out of the mean."""
    (motion,) = reconstructor.reconstruct([evidence], K)
    half = np.zeros((45, 48, 48), np.uint8)
    half[:, :, :24] = 1 + BODYPIX24.index("left_foot")
    swapped, some = np.where(half > 0, 1 + BODYPIX24.index("right_hand"), 0).astype(np.uint8), half.copy()
    some[10:40] = 0
    fitter = reconstructor.refiner(RefineConfig(pixels=16))
    start = fitter.start(motion)
    v = Variables(start.chart, torch.zeros_like(start.transl), start.transl, start.betas)

    def loss(of: Evidence) -> tuple[float, torch.Tensor]:
        target = gather_target(motion, of, 16, fitter.body.device)
        assert target.silhouette is not None
        terms = fitter.objective(v, start, target)[1]
        return float(terms["parts"]), fitter._posed(v, start, target).parts

    masked, _ = loss(evidence)
    whole, frames = loss(with_parts(evidence, half))
    seen = torch.from_numpy(evidence.observed)
    assert whole == pytest.approx(float(frames[seen].mean()), rel=1e-5) and whole != pytest.approx(masked, rel=1e-3)
    assert loss(with_parts(evidence, swapped))[0] != pytest.approx(whole, rel=1e-3)  # labels count
    fewer, frames = loss(with_parts(evidence, some))
    seen[10:40] = False
    assert fewer == pytest.approx(float(frames[seen].mean()), rel=1e-5) and fewer > 0
    assert loss(with_parts(evidence, np.zeros_like(half)))[0] == 0.0
