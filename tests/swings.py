"""A small synthetic capture: swinging joints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinflow.mocap.clips import MotionClip, save_clips


def save_swings(path: Path) -> Path:
    """Four clips to train, one to validate, one to test, of 4 s at 60 frames/s with three invalid frames each."""
    rng = np.random.default_rng(0)
    clips = []
    for i, split in enumerate(("train", "train", "train", "train", "validation", "test")):
        t = np.arange(240)[:, None, None] / 60
        phase, size = rng.uniform(0, 6, (1, 23, 3)), rng.uniform(0, 0.5, (1, 23, 3))
        pose = (size * np.sin(4 * t + phase)).astype(np.float32)
        pose[:, 21:] = 0
        walked = np.stack((0 * t[:, 0, 0], 0 * t[:, 0, 0] + 0.9, t[:, 0, 0]), -1).astype(np.float32)
        valid = np.ones(240, bool)
        valid[100:103] = False
        root = np.zeros((240, 3), np.float32)
        clips.append(MotionClip(f"clip{i}", f"subject{i}", "swings", 60.0, root, pose, walked, valid, split))
    save_clips(path, clips)
    return path
