"""tools/draw_prior.py draws what it says, from a small untrained prior and a small motion-capture file made here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from kinflow.assets.weights import save_weights
from kinflow.clip import Clip
from kinflow.config import DenoiserConfig, DynamicsConfig, FlowConfig
from kinflow.denoiser import Denoiser
from kinflow.dynamics import LatentDynamics
from kinflow.flow import PoseFlow
from kinflow.mocap.clips import MotionClip, save_clips
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
image_module = pytest.importorskip("PIL.Image", reason="JPEG pictures need pillow")

TOOLS = Path(__file__).parents[1] / "tools"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


tool = load("draw_prior")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name the files of a small untrained prior."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("weights")
    flow = PoseFlow(FlowConfig(layers=2, hidden=8, bins=4, dropout=0.0))
    flow.fit_chart(rotvec_to_rotmat(0.2 * torch.randn(400, 21, 3)))
    dynamics = LatentDynamics(DynamicsConfig(hidden=8, ode_hidden=8, head_hidden=8, rank=2, dropout=0.0))
    denoiser = Denoiser(DenoiserConfig(width=24, hidden=16, layers=1, heads=2, dropout=0.0))
    out = []
    for name, module in (("flow", flow), ("dynamics", dynamics), ("denoiser", denoiser)):
        path = save_weights(folder / f"{name}.safetensors", module, module.config, {})
        out += [f"--{name}", str(path)]
    return out


def clip(name: str, speed: float, frames: int = 270, fps: float = 30.0) -> MotionClip:
    swing = np.sin(speed * np.arange(frames) / fps)[:, None] * np.linspace(-0.5, 0.5, 69)
    turning = np.zeros((frames, 3))
    turning[:, 1] = np.linspace(0, 2, frames)
    return MotionClip(
        name=name, subject="10", description="swing", fps=fps, global_orient=turning.astype(np.float32),
        body_pose=swing.reshape(frames, 23, 3).astype(np.float32), transl=np.zeros((frames, 3), np.float32),
        valid=np.arange(frames) != frames - 5, split="validation",
    )  # fmt: skip


def test_all_pictures(tmp_path: Path, weights: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    save_clips(tmp_path / "mocap.npz", [clip("slow", 1.0), clip("quick", 6.0)])
    out = tmp_path / "out"
    sizes = ["--height", "32", "--seconds", "0.25", "--rate", "12", "--prefix", "p_"]
    assert tool.main([*weights, "--out", str(out), "--data", str(tmp_path / "mocap.npz"), *sizes]) == 0
    pictures = ["samples.jpg", "motions.jpg", "traversals.jpg", "likelihood.png", "forecast.png", "infill.png"]
    assert sorted(p.name for p in out.iterdir()) == sorted(f"p_{n}" for n in [*pictures, "motions.mp4"])
    for name in pictures:
        with image_module.open(out / f"p_{name}") as image:
            assert np.asarray(image.convert("RGB")).std() > 3
    (batch,) = Clip.open(out / "p_motions.mp4").batches(8)
    assert len(batch.timestamps) == 3
    told = capsys.readouterr().err
    assert all(name in told for name in pictures)


def test_without_motion_capture_the_others_are_drawn(
    tmp_path: Path, weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*weights, "--out", str(tmp_path), "--data", str(tmp_path / "none.npz"), "--height", "32"]
    assert tool.main([*command, "--only", "samples", "infill"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["samples.jpg"]
    assert "infill left out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("extra", "code", "told"),
    [
        (["--flow", "nowhere.safetensors"], 3, "nowhere.safetensors: no such weight file"),
        (["--rate", "0"], 2, "--rate: expected a positive number"),
        (["--height", "3"], 2, "--height: expected 16 to 2000"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], code: int, told: str
) -> None:
    assert tool.main(["--out", str(tmp_path / "out"), "--data", str(tmp_path / "none.npz"), "--only", "samples", *extra]) == code  # fmt: skip
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("draw_prior: ") and told in last
    assert not (tmp_path / "out").exists()


def test_windows_follow_speed_and_miss_invalid_frames() -> None:
    clips = [clip("slow", 1.0), clip("quick", 6.0)]
    slow, quick = (tool.pick_window(clips, 2.5, rank) for rank in (0.0, 1.0))
    assert slow.source.startswith("slow (swing)") and quick.source.startswith("quick (swing)")
    assert quick.rotmat.shape == (76, 21, 3, 3)
    assert float(quick.times[-1]) == pytest.approx(2.5)
    eye = torch.eye(3).expand_as(quick.root)
    torch.testing.assert_close(quick.root, eye, rtol=0, atol=1e-6)  # it only turned about the vertical
    with pytest.raises(tool.UsageError, match="no valid stretch"):
        tool.pick_window(clips, 8.9, 0.5)


def test_breaks_stay_in_their_places() -> None:
    window = tool.pick_window([clip("quick", 6.0)], 8.0, 1.0)
    broken, spans = tool.break_motion(window.rotmat, window.times, torch.Generator().manual_seed(0))
    changed = geodesic_distance(window.rotmat, broken).amax(-1) > 1e-3
    inside = torch.zeros_like(changed)
    for start, stop, _ in spans:
        part = (window.times >= start) & (window.times <= stop)
        assert changed[part].any()
        inside |= part
    assert not changed[~inside].any()
