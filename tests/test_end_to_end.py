"""A rendered walk with known 3D through the whole command, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from walker import Walk, walk

import kinflow
from kinflow.body import Body
from kinflow.cameras import intrinsics
from kinflow.data.synthetic import random_look, render_clip
from kinflow.metrics import acceleration_error, pa_mpjpe

SIZE = (480, 360)


def render_walk(path: Path, steps: Walk, fps: float, seed: int = 3) -> torch.Tensor:
    """Write the clip; returns the exact joints (T, 24, 3) in camera axes."""
    body = Body.open()
    betas = torch.zeros(1, 10)
    rest = torch.eye(3).expand(1, 24, 3, 3)
    look = random_look(
        SIZE,
        body.part_labels.numpy(),
        body.vertices(betas, rest, None)[0].numpy(),
        np.random.default_rng(seed),
        body.landmarks(betas, rest, None)[0].numpy(),
    )
    vertices = body.vertices(betas, steps.pose_rotmat, steps.transl)
    render_clip(path, vertices, body.faces, intrinsics(SIZE), SIZE, look, fps=fps)
    return body.joints(betas, steps.pose_rotmat, steps.transl)


@pytest.fixture(scope="module")
def reconstructed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """Folder with the command's results, and the true joints."""
    folder = tmp_path_factory.mktemp("walk")
    truth = render_walk(folder / "walk.mp4", walk(frames=60, fps=30), 30)
    command = [sys.executable, "-m", "kinflow.cli.video", str(folder / "walk.mp4"), "-o", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "out", truth


def test_the_3d_is_right(reconstructed: tuple[Path, torch.Tensor]) -> None:
    out, truth = reconstructed
    person = kinflow.Motion.load(out / "person00.npz")
    assert person.observed.mean() > 0.95
    truth = truth[torch.from_numpy(person.frame_ids)]
    found = torch.from_numpy(person.joints3d)
    error = 1000 * pa_mpjpe(found, truth)[person.observed].mean().item()
    jitter = acceleration_error(found, truth, torch.from_numpy(person.timestamps)).mean().item()
    print(f"rendered walk: PA-MPJPE {error:.1f} mm, acceleration error {jitter:.1f} m/s^2")
    assert error <= 70
    # Facing: the walker's left is on the true side, which Procrustes alignment could hide in part.
    left, true_left = (j[:, 1] - j[:, 2] for j in (found, truth))
    assert (torch.nn.functional.cosine_similarity(left, true_left, dim=-1) > 0.7).float().mean() > 0.9
    # Whole-body heights are unknown to one camera; the distance is right within the shape's spread.
    assert ((found[:, 0, 2] / truth[:, 0, 2]) - 1).abs().median() < 0.2


def test_the_files_are_whole(reconstructed: tuple[Path, torch.Tensor]) -> None:
    out, _ = reconstructed
    assert sorted(p.name for p in out.iterdir()) == ["overlay.mp4", "person00.npz", "run.json"]
    info = json.loads((out / "run.json").read_text())
    person = kinflow.Motion.load(out / "person00.npz")
    assert info["schema"] == "kinflow.run/1" and info["people"][0]["frames"] == len(person)
    assert info["people"][0]["pck"] >= 0.9
    assert person.vertices([0]).shape == (1, 12272, 3)
    import av

    with av.open(str(out / "overlay.mp4")) as video:
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert len(frames) == 60 and frames[0].shape == (SIZE[1], SIZE[0], 3)


def test_every_field_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "output.md").read_text(encoding="utf-8")
    for name, shape, kind, doc in kinflow.Motion.describe():
        assert f"| `{name}` | {shape} | {kind} | {doc} |" in text
