"""No option without effect: each setting of networks, perception and video, changed alone, changes what comes out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from small_reconstructor import observations

from kinflow import config
from kinflow.body import Body
from kinflow.clip import Clip
from kinflow.config import (
    DenoiserConfig,
    DynamicsConfig,
    FlowConfig,
    LifterConfig,
    PerceptionConfig,
    SidesConfig,
    VideoConfig,
)
from kinflow.denoiser import Denoiser
from kinflow.dynamics import LatentDynamics
from kinflow.errors import UsageError
from kinflow.flow import build_flow
from kinflow.perception import Perceiver, settling
from kinflow.perception.sides import SidesNetwork, Sighted
from kinflow.reconstruction.lifting import Lifter
from kinflow.rotations import rotvec_to_rotmat
from kinflow.video import VideoWriter

ELSEWHERE = {
    "RenderConfig": "test_render_overlay.py",
    "FitLossConfig": "test_reconstruct_options.py",
    "TrainingLossConfig": "test_reconstruct_options.py",
    "WeakLossConfig": "test_reconstruct_options.py",
    "RefineConfig": "test_reconstruct_options.py",
    "ReconstructorConfig": "test_reconstruct_options.py",
    "TrainConfig": "test_config_effects_training.py",
    "NoiseConfig": "test_config_effects_training.py",
    "ProjectionConfig": "test_config_effects_training.py",
    "FlowTrainingConfig": "test_config_effects_training.py",
    "DynamicsTrainingConfig": "test_config_effects_training.py",
    "DenoiserTrainingConfig": "test_config_effects_training.py",
    "LifterTrainingConfig": "test_config_effects_training.py",
    "SidesTrainingConfig": "test_config_effects_training.py",
    "ReconstructorTrainingConfig": "test_config_effects_training.py",
    "TiltConfig": "test_world.py",
    "SourcesConfig": "test_training_sources.py",
    "DataSetConfig": "test_training_sources.py",
    "ClipsConfig": "test_training_sources.py",
    "AdaptationConfig": "test_adaptation.py",
    "FramesDataSetConfig": "test_training_sources.py",
}
"""Configurations walked by tests of their own."""


def digest(*values: Any) -> str:
    """A hash of tensors, arrays and plain values."""
    out = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().float().numpy()
        out.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return out.hexdigest()


def check(base: Any, changes: Mapping[str, Any], probe: Callable[[Any], str]) -> None:
    """Every field of ``base`` has a change, and each changes what ``probe`` sees; the probe itself repeats."""
    names = {f.name for f in dataclasses.fields(base)}
    assert names == set(changes), f"fields without a probe, or gone: {names ^ set(changes)}"
    before = probe(base)
    assert probe(base) == before, "the probe does not repeat"
    idle = []
    for name, value in changes.items():
        values = value if isinstance(value, Mapping) else {name: value}
        assert getattr(base, name) != values[name]
        rest = {k: v for k, v in values.items() if k != name}
        start = probe(dataclasses.replace(base, **rest)) if rest else before
        try:
            idle += [name] if probe(dataclasses.replace(base, **values)) == start else []
        except UsageError as error:  # openvino, where it is not installed
            assert name in str(error)
    assert not idle, f"settings without effect: {idle}"


def _train_twice(module: torch.nn.Module, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What ``run`` gives after one step of training: networks begin at the identity, where much has no effect yet."""
    run().backward()
    with torch.no_grad():
        for p in module.parameters():
            if p.grad is not None:
                p -= 0.3 * p.grad / (p.grad.norm() + 1e-6)
    return run()


def test_flow() -> None:
    pose = rotvec_to_rotmat(0.4 * torch.randn(16, 21, 3, generator=torch.Generator().manual_seed(1)))
    far = rotvec_to_rotmat(1.5 * torch.randn(16, 21, 3, generator=torch.Generator().manual_seed(2)))

    def probe(c: FlowConfig) -> str:
        torch.manual_seed(0)
        flow = build_flow(c)
        flow.fit_chart(pose)
        flow.train()
        torch.manual_seed(3)
        return digest(_train_twice(flow, lambda: -flow(torch.cat((pose, far))).mean()))

    small = FlowConfig(layers=3, hidden=16, dropout=0.1)
    changes: dict[str, Any] = dict(
        representation="rot6d", coupling="affine", layers=4, hidden=24, blocks=2, dropout=0.5, input_noise=0.1, bins=6,
        bound=3.0, log_scale_cap=0.2, tail=2.0, gram_schmidt_spread={"gram_schmidt_spread": 0.5, "representation": "rot6d"},
    )  # fmt: skip
    check(small, changes, probe)


def test_denoiser() -> None:
    generator = torch.Generator().manual_seed(1)
    rotmat = rotvec_to_rotmat(0.4 * torch.randn(2, 12, 21, 3, generator=generator))
    times = (torch.arange(12, dtype=torch.float64) / 30).expand(2, -1)

    def probe(c: DenoiserConfig) -> str:
        torch.manual_seed(0)
        model = Denoiser(c).train()
        torch.manual_seed(3)
        valid, noise = torch.ones(2, 12, dtype=torch.bool), torch.full((2,), 0.1)
        return digest(_train_twice(model, lambda: model(rotmat, times, valid, noise).square().sum()
                                   + model(rotmat, times, valid, noise)[..., 0, 1].sum()))  # fmt: skip

    small = DenoiserConfig(width=24, hidden=16, layers=1, heads=2, overview=4, mix=2, dropout=0.1)
    check(small, dict(width=36, hidden=24, layers=2, heads=4, overview=8, mix=4, dropout=0.5), probe)


def test_lifter(body: Body) -> None:
    obs = observations(body)

    def probe(c: LifterConfig) -> str:
        torch.manual_seed(0)
        model = Lifter(c).double().train()
        torch.manual_seed(3)
        return digest(_train_twice(model, lambda: (model(obs).mean - 1).square().mean()))

    check(
        LifterConfig(part_width=16, whole_width=16, blocks=1),
        dict(by_parts=1, whole=0, part_width=24, whole_width=24, blocks=2, overview=8, dropout=0.5),
        probe,
    )


def test_sides() -> None:
    g = torch.Generator().manual_seed(0)
    seen = Sighted(
        200 * torch.rand(2, 6, 33, 2, generator=g), torch.rand(2, 6, 33, generator=g), torch.randn(2, 6, 33, 3, generator=g),
        torch.ones(2, 6, dtype=torch.bool), torch.arange(6).expand(2, -1) / 25,
    )  # fmt: skip

    def probe(c: SidesConfig) -> str:
        torch.manual_seed(0)
        model = SidesNetwork(c).train()
        torch.manual_seed(3)
        return digest(_train_twice(model, lambda: (model(seen) - 1).square().mean()))

    check(SidesConfig(width=8), dict(width=12, dropout=0.5), probe)


# -- perception ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene() -> list[np.ndarray]:
    """24 frames of 480 x 240: nobody, then a person who walks and is hidden for a while, and at the end a small one too."""
    path = Path(__file__).parent / "golden" / "make_blazepose.py"
    spec = importlib.util.spec_from_file_location("make_blazepose", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    large = (module.synthetic_person(180) * 255).astype(np.uint8)
    small = (module.synthetic_person(72) * 255).astype(np.uint8)
    frames = []
    for k in range(24):
        frame = np.full((240, 480, 3), (150, 155, 150), np.uint8)
        if k >= 2:
            frame[30:210, 10 + 2 * k : 190 + 2 * k] = large
        if k >= 15:
            frame[100:172, 390:462] = small
        if 9 <= k < 14:
            frame[:, :300] = (90, 90, 120)
        frames.append(frame)
    return frames


def record(calls: list[Any], name: str, network: Any, x: torch.Tensor, *rest: Any) -> Any:
    calls.append((name, tuple(x.shape), x.dtype, rest))
    return network(x, *rest)


def test_perception(scene: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(c: PerceptionConfig) -> str:
        perceiver = Perceiver(c)
        calls: list[Any] = []
        networks = perceiver._networks
        recorded = {
            n: functools.partial(record, calls, n, network)
            for n in ("detect", "landmark", "segment")
            if (network := getattr(networks, n)) is not None
        }
        perceiver._networks = networks._replace(**recorded)
        monkeypatch.setattr(settling, "settle_sides", lambda e, _: calls.append("sides") or e)
        calls.append(networks.runtime)
        images = np.stack(scene)
        for start in range(0, len(images), 8):
            ids = np.arange(start, min(start + 8, len(images)))
            perceiver.update(images[ids], ids / 15, ids)
        people = perceiver.finish()
        return digest(calls, *(getattr(e, f.name) for e in people for f in dataclasses.fields(e)))

    quick = PerceptionConfig(landmarks="full", min_duration_s=0.3, runtime="torch")
    changes: dict[str, Any] = dict(
        max_people=1, detector_interval_s=0.1, search_interval_s=0.03, tile_interval_s=0.1, tile_scales=(0.7,),
        detection_threshold=0.999, tile_threshold=0.999, nms_iou=0.999, landmark_threshold=0.9999, min_roi_px=500.0,
        memory_s=0.1, min_duration_s=0.75, look_back_s=0.0, precision="bfloat16", batch_people=1, look_ahead_s=0.1,
        masks=False, parts=False, parts_interval_s=0.0, features=True, landmarks="heavy", runtime="openvino", missed_interval_s=0.3, least_agreement=1.0,
        reunion_s={"reunion_s": 0.1, "memory_s": 0.1}, landmark_interval_s={"landmark_interval_s": 0.14, "masks": False}, mirror=False, sides=False,
    )  # fmt: skip
    check(quick, changes, probe)


def test_dynamics() -> None:
    z = torch.randn(3, 9, 63, generator=torch.Generator().manual_seed(1))
    steps = torch.tensor([1.0, 1, 1, 5, 1, 2, 1, 1, 1], dtype=torch.float64) / 12
    times = steps.cumsum(0).expand(3, -1)

    def probe(c: DynamicsConfig) -> str:
        torch.manual_seed(0)
        model = LatentDynamics(c).train()
        torch.manual_seed(3)
        data = z if c.latent_dim == 63 else z[..., : c.latent_dim]
        loss = _train_twice(model, lambda: -model.log_prob(data, times).mean())
        model.zero_grad()
        loss.backward()  # "adjoint" changes the gradient alone, by the error of its integration back in time
        return digest(loss, *(p.grad for p in model.parameters() if p.grad is not None))

    small = DynamicsConfig(hidden=16, ode_hidden=12, head_hidden=16, components=2, rank=2, dropout=0.1)
    adaptive = {"solver": "dopri5"}
    changes: dict[str, Any] = dict(
        latent_dim=60, hidden=20, ode_hidden=16, head_hidden=20, components=1, rank=3, solver="rk4", max_step=0.05,
        rtol={"rtol": 1e-2, "atol": 1e-6, **adaptive}, atol={"atol": 1e-2, **adaptive}, adjoint=True, horizon=0.5,
        sigma_floor=0.1, dropout=0.5, between="cell",
    )  # fmt: skip
    check(small, changes, probe)


# -- video ---------------------------------------------------------------------------------------------------------------


def test_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    folder = tmp_path / "frames"
    folder.mkdir()
    for k, frame in enumerate(frames):
        with av.open(str(folder / f"{k:03d}.png"), "w", format="image2") as out:
            stream: Any = out.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
            for packet in [*stream.encode(av.VideoFrame.from_ndarray(frame)), *stream.encode()]:
                out.mux(packet)
    told: list[Any] = []
    monkeypatch.setattr("kinflow.clip.prefetch", lambda source, ahead: told.append(ahead) or _drained(source))

    def probe(c: VideoConfig) -> str:
        told.clear()
        path = tmp_path / "clip.mp4"
        with VideoWriter(path, (64, 48), 25.0, c) as video:
            for frame in frames:
                video.write(frame)
        clip = Clip.open(path, config=c)
        told.append((clip.decoder, clip._source.threads if c.decoder == "pyav" else None))
        seen = [b.timestamps for source in (clip, Clip.open(folder, config=c)) for b in source.batches(8)]
        return digest(path.read_bytes(), told, *seen)

    changes = dict(decoder="decord", threads=1, image_fps=10.0, prefetch_mb=0, crf=40, preset="ultrafast")
    check(VideoConfig(decoder="pyav", prefetch_mb=64), changes, probe)


def _drained(source: Any) -> Any:
    yield from source


def test_every_configuration_is_walked() -> None:
    here = {FlowConfig, DynamicsConfig, DenoiserConfig, SidesConfig, LifterConfig, PerceptionConfig, VideoConfig}
    classes = {v for v in vars(config).values() if isinstance(v, type) and dataclasses.is_dataclass(v)}
    groups = {c for c in classes if all(dataclasses.is_dataclass(f.default_factory) for f in dataclasses.fields(c))}
    missing = {c.__name__ for c in classes - here - groups} - set(ELSEWHERE)
    assert not missing, f"configurations that no test walks: {missing}"
    for name in set(ELSEWHERE.values()):
        assert (Path(__file__).parent / name).is_file(), name
