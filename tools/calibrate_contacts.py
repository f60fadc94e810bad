"""How feet that stand are told by their speeds: the weights of kinflow/reconstruction/contacts.py, and how well they do.

    python tools/calibrate_contacts.py --perceived data/plain --mocap data/mocap.npz

The clips come from tools/render_and_perceive.py --split validation --plain. Four fifths of their motions choose weights by which the
others are scored, in turn; the weights printed are those of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from kinflow.body import Body
from kinflow.metrics import f1_score
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.contacts import foot_speeds
from kinflow.skeleton import FEET
from kinflow.training.streams.perceived import held_out_names, load_perceived
from kinflow.training.streams.projected import foot_contacts_of

FOLDS = 5


def logistic(x: Tensor, y: Tensor) -> Tensor:
    """Weights and constant (C + 1,) of the logistic regression of y (N,) on x (N, C)."""
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    w = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(30):  # Newton's steps
        p = torch.sigmoid(x @ w)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * torch.eye(len(w), dtype=x.dtype)
        w = w + torch.linalg.solve(hessian, x.T @ (y - p))
    return w


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, required=True, help="file or folder of rendered validation clips")
    p.add_argument("--mocap", type=Path, required=True, help="the prepared capture that says who is whose")
    args = p.parse_args()
    torch.set_num_threads(1)
    console, body = Console(), Body.open("light")
    reconstructor = Reconstructor.load(body=body)
    clips = load_perceived(args.perceived)
    hold = held_out_names(clips, args.mocap)
    clips = [c for c in clips if c.source in hold and c.observed.sum() >= len(c) / 2]
    sources = sorted({c.source for c in clips})
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for clip in track(clips, "clips", console=console):
        shape = torch.from_numpy(clip.betas)[None]
        truth = body.landmarks(shape, clip.pose_rotmat, torch.from_numpy(clip.transl))
        contacts, known = foot_contacts_of(truth[None], torch.from_numpy(clip.timestamps)[None])
        if not bool(known):
            continue
        (motion,) = reconstructor.reconstruct([clip.evidence()], clip.K)
        feet = torch.from_numpy(motion.keypoints3d("blazepose33", body=body)[:, list(FEET)])
        seen = torch.tensor(motion.observed)
        speeds = foot_speeds(feet, torch.tensor(motion.timestamps))[seen].flatten(0, 1)
        true = contacts[0][motion.frame_ids.tolist()][seen].flatten() > 0
        rows.append((speeds, true, torch.full_like(true, sources.index(clip.source) % FOLDS, dtype=torch.int64)))
    speeds, true, fold = (torch.cat(x) for x in zip(*rows, strict=True))
    speeds = speeds.double()
    found = torch.zeros_like(true)
    for k in range(FOLDS):
        w = logistic(speeds[fold != k], true[fold != k].double())
        found[fold == k] = speeds[fold == k] @ w[:-1] + w[-1] > 0
    *weights, constant = logistic(speeds, true.double()).tolist()
    console.print(
        f"{len(true)} parts of feet, {float(true.double().mean()):.2f} of them still; F1 of motions that had no say: {float(f1_score(found, true)):.3f}"
    )
    console.print(f"weights {', '.join(f'{w:.3g}' for w in weights)}; constant {constant:.3g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
