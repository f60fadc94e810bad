"""Fit the body's landmark offsets to what the front end sees, and write them into the open body's files.

    python tools/calibrate_landmarks.py --perceived data/perceived

Run it after tools/build_open_body.py and tools/render_and_perceive.py. A second run on the calibrated body changes the
offsets by what is left, nearly nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from kinflow.assets import asset_path
from kinflow.body import Body
from kinflow.records import atomic_write
from kinflow.skeleton import BLAZEPOSE
from kinflow.training.calibration import calibrate
from kinflow.training.streams.perceived import load_perceived

FILES = ("open_body.npz", "open_body_light.npz")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, default=Path("data/perceived"))
    p.add_argument("--dry-run", action="store_true", help="print the fit, change no file")
    args = p.parse_args()
    clips = load_perceived(args.perceived)
    fit = calibrate(clips, Body.open("light"))
    print(f"{len(clips)} clips; median distance across the ray, mm")
    for name, shift, before, after, count in zip(
        BLAZEPOSE, fit.shift, fit.before, fit.after, fit.sightings, strict=True
    ):
        moved = " ".join(f"{1000 * v:6.1f}" for v in shift)
        print(f"{name:18s} {1000 * before:6.1f} -> {1000 * after:6.1f}   moved by {moved}   ({count} sightings)")
    if args.dry_run:
        return
    for file in FILES:
        path = asset_path(file)
        with np.load(path, allow_pickle=False) as npz:
            arrays = dict(npz)
        arrays["landmark_offsets"] = arrays["landmark_offsets"] + fit.shift
        with atomic_write(path) as stream:
            np.savez_compressed(stream, **arrays)


if __name__ == "__main__":
    main()
