"""What an adaptation changed, to look at: people of a clip as the network had them before and has them after.

    kinflow-train adapt CLIP -o mine.safetensors
    python tools/draw_adaptation.py CLIP mine.safetensors -o mine.png       # needs matplotlib (the [test] extra has it)

The same people at equal times from the front, from the side and from above, in the camera's axes: mine.png, and of further people
mine_01.png and so on. It is the network's own output; the fit that ends a reconstruction takes most of the difference away, and --fit
shows what is left. Columns of frames that the adaptation held out are marked, if its settings were the default ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from draw_motion import VIEWS, equally_spaced, pictures

from kinflow.cameras import intrinsics
from kinflow.config import AdaptationConfig
from kinflow.errors import KinflowError, UsageError
from kinflow.reconstruction import Reconstructor
from kinflow.render.figures import contact_sheet, save_figure
from kinflow.training.adaptation import split_footage
from kinflow.training.streams.footage import Footage, read_footage


def first_held_out(footage: Footage) -> list[float]:
    """Of each person the time (s) from which frames were held out; infinite where none was."""
    out = []
    for person in footage.people:
        try:
            _, held = split_footage([dataclasses.replace(footage, people=(person,))], AdaptationConfig().held_out)
            out.append(float(held[0].people[0].timestamps[0]))
        except UsageError:  # seen too shortly: learnt from alone
            out.append(float("inf"))
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; returns the exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip", type=Path)
    p.add_argument("weights", type=Path, help="that kinflow-train adapt wrote")
    p.add_argument("-o", "--out", type=Path, default=Path("adapted.png"), help="picture (default: adapted.png)")
    p.add_argument("--before", type=Path, help="weights that it began with (default: the packaged ones)")
    p.add_argument("--cache", type=Path, help="folder for what was seen of the clip, as the adaptation's")
    p.add_argument("--columns", type=int, default=8, help="times, equally spaced over the frames seen (default: 8)")
    p.add_argument("--fit", action="store_true", help="after the fit that ends a reconstruction")
    args = p.parse_args(argv)
    try:
        networks = [Reconstructor.load(args.before), Reconstructor.load(args.weights)]
        (footage,) = read_footage([args.clip], args.cache)
        until = first_held_out(footage)
        motions = []
        for network in networks:
            if not args.fit:
                network.config = dataclasses.replace(
                    network.config, align=dataclasses.replace(network.config.align, iterations=0)
                )
            width, height = footage.people[0].image_size.tolist()
            motions.append(network.reconstruct(list(footage.people), intrinsics((width, height))))
        for number, (person, before, after) in enumerate(zip(footage.people, *motions, strict=True)):
            rows = equally_spaced(person.observed, args.columns)
            drawn = [pictures(networks[0].body, m, rows, view) for view in VIEWS.values() for m in (before, after)]
            beside = [f"{view}, {when}" for view in VIEWS for when in ("before", "after")]
            stamps = person.timestamps[rows].tolist()
            above = [f"{t:.2f} s" + (", held out" if t >= until[number] else "") for t in stamps]
            title = f"{args.clip.stem}, " + ("after the fit" if args.fit else "the network's output before the fit")
            path = args.out if number == 0 else args.out.with_stem(f"{args.out.stem}_{number:02d}")
            sheet = contact_sheet(np.concatenate(drawn), len(rows), title, above, beside)
            print(save_figure(sheet, path))
    except KinflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
