"""How well reconstructors agree with clips of which no 3D is known, by their own output, before the fit of a reconstruction.

    python benchmarks/alignment.py CLIP [CLIP ...] --weights with.safetensors without.safetensors [--cache FOLDER]

For each clip: the losses by which weak supervision trains, keypoints, body parts and lifted landmarks (lower is better), their sum by
weight and what it is of the first weights', and the plausibility of the poses under the motion prior, nats a frame (higher is better).
A claim about training on clips wants clips here that were not trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from reporting import Sheet
from rich.console import Console

from kinflow.config import AdaptationConfig, load_config
from kinflow.reconstruction import Reconstructor
from kinflow.training.adaptation import ALIGNMENT, AdaptationTask
from kinflow.training.streams.footage import read_footage


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", nargs="+", type=Path)
    p.add_argument(
        "--weights", nargs="+", type=Path, required=True, help="reconstructors of one lifter, flow and dynamics"
    )
    p.add_argument(
        "--cache", type=Path, help="folder for what was seen in the clips (default: a hidden one beside each)"
    )
    p.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of the adaptation's"
    )
    args = p.parse_args(argv)  # fmt: skip
    config = load_config(AdaptationConfig, None, ["motions=1", *args.overrides])
    networks = {path: Reconstructor.load(path) for path in args.weights}
    first = networks[args.weights[0]]
    sheet = Sheet(
        "The network's own output against clips", ("clip", "weights", *ALIGNMENT, "alignment", "of the first", "plausibility")
    )  # fmt: skip
    for clip in read_footage(args.clips, args.cache):
        task = AdaptationTask(first, [clip], [clip], config, torch.device("cpu"))
        for path, reconstructor in networks.items():
            scores = dict(task.validate(reconstructor.network.eval()))
            share = scores["alignment"] / task.before["alignment"]
            parts = [f"{scores.get(name, float('nan')):.4f}" for name in (*ALIGNMENT, "alignment")]
            sheet.rows.append([clip.path.name, path.name, *parts, f"{share:.3f}", f"{scores['plausibility']:.1f}"])
    sheet.show(Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
