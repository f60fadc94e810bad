"""Calibrate how far joints may be off, on rendered, perceived people of motions that no network was trained on.

    python tools/calibrate_deviations.py --perceived data/perceived --mocap data/mocap.npz --out kinflow/assets

The clips come from tools/render_and_perceive.py --split validation --plain. Half of their motions choose the scales; the others, which
have no say, show what the regions hold: the table printed, and the card. Needed again whenever lifter or fit change.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from kinflow.assets.weights import save_weights
from kinflow.body import Body
from kinflow.motion import Motion
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.deviations import DeviationsConfig, JointDeviations, errors_in_view, inside
from kinflow.skeleton import SMPL_JOINTS
from kinflow.training.streams.perceived import PerceivedClip, held_out_names, load_perceived


def errors_of(motion: Motion, clip: PerceivedClip, body: Body) -> Tensor:
    """Errors (N, 24, 3) m of the frames seen."""
    at = motion.frame_ids[motion.observed]
    truth = body.joints(torch.from_numpy(clip.betas)[None], clip.pose_rotmat[at], torch.from_numpy(clip.transl[at]))
    return errors_in_view(torch.from_numpy(motion.joints3d[motion.observed]), truth)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, required=True, help="file or folder of rendered validation clips")
    p.add_argument("--mocap", type=Path, required=True, help="the prepared capture that says who is whose")
    p.add_argument("--out", type=Path, default=Path("kinflow/assets"))
    args = p.parse_args()
    torch.set_num_threads(1)
    console, body = Console(), Body.open("light")
    reconstructor = Reconstructor.load(body=body)
    reconstructor.deviations = JointDeviations()  # what is said before the scaling
    clips = load_perceived(args.perceived)
    hold = held_out_names(clips, args.mocap)
    clips = [c for c in clips if c.source in hold and c.observed.sum() >= len(c) / 2]
    sources = sorted({c.source for c in clips})
    found: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
    for clip in track(clips, "clips", console=console):
        (motion,) = reconstructor.reconstruct([clip.evidence()], clip.K)
        said = torch.from_numpy(motion.deviations()[motion.observed]).log()
        found[sources.index(clip.source) % 2 == 0].append((said, errors_of(motion, clip, body)))
    (base, error), (base_b, error_b) = (
        tuple(torch.cat(x) for x in zip(*found[side], strict=True)) for side in (True, False)
    )
    deviations = JointDeviations()
    deviations.fit(base, error)
    shares = np.stack(
        [[s.numpy() for s in region] for region in inside(error_b, deviations.scaled(base_b), deviations.reach90)]
    )  # (2, 2, 24)
    table = Table(title=f"{len(error_b)} frames of motions that had no say: share inside, %")
    for name in ("joint", "50 %", "90 %", "depth 50 %", "depth 90 %"):
        table.add_column(name, justify="right")
    for i, joint in enumerate(SMPL_JOINTS):
        table.add_row(joint, *(f"{100 * v:.0f}" for v in shares[:, :, i].flatten()))
    table.add_row("mean", *(f"{100 * v:.1f}" for v in shares.mean(-1).flatten()))
    console.print(table)
    save_weights(
        args.out / "deviations.safetensors", deviations, DeviationsConfig(),
        {
            "what": "standard deviations of reconstructed joints, across the line of sight and along it",
            "data": f"{len(clips)} rendered, perceived clips of {len(sources)} validation motions (see NOTICE)",
            "inside 50, 90 % (space; depth)": "; ".join(", ".join(f"{100 * v:.1f}" for v in r) for r in shares.mean(-1)),
            "regions of 90 % reach (space; depth), a Gaussian's 2.50; 1.64": "; ".join(
                f"{v:.2f}" for v in deviations.reach90.mean(0).tolist()
            ),
            "licence": "Apache-2.0",
        },
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
