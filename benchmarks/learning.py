"""What more rendered people, or more captured motion, would teach the lifter: it learns from parts of what there is.

    python benchmarks/learning.py --perceived data/perceived --mocap data/mocap.npz --clips 0.25 0.5 1 --frames 4 20
    python benchmarks/learning.py --perceived data/perceived --mocap data/mocap.npz --capture 0.25 0.5 1 --seeds 3

Every row is a lifter from scratch, with the same steps, judged by all rendered clips whose motion is held out. Rows differ by
one thing: the share of the clips, the frames that each clip may have, or the share of the captured motions (by minutes) that
clips and projected motion come from.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from reporting import Sheet
from rich.console import Console

from kinflow.config import LifterTrainingConfig, load_config
from kinflow.training.loop import fit, seed_everything
from kinflow.training.poses import Capture, read_captures
from kinflow.training.run import Captured
from kinflow.training.streams.perceived import PerceivedClip, held_out_names, load_perceived
from kinflow.training.tasks.lifter import task_on


@dataclasses.dataclass(frozen=True)
class Part:
    """What one lifter learns from: ``name`` says which part of all it is."""

    name: str
    clips: list[PerceivedClip]
    captures: list[Capture]

    @property
    def size(self) -> tuple[int, int, float]:
        """Clips, their frames, minutes of capture."""
        minutes = sum(len(c.body_pose) / c.fps for c in self.captures) / 60
        return len(self.clips), sum(map(len, self.clips)), minutes


def thinned(clip: PerceivedClip, frames: int) -> PerceivedClip:
    """At most so many frames of a clip, spread over all of it."""
    rows = np.unique(np.linspace(0, len(clip) - 1, min(frames, len(clip))).round().astype(int))
    each = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)}
    cut = {n: v[rows] for n, v in each.items() if isinstance(v, np.ndarray) and n not in ("betas", "K", "image_size")}
    return dataclasses.replace(clip, **cut)


def parts(clips: list[PerceivedClip], captures: list[Capture], args: argparse.Namespace) -> list[Part]:
    """The rows asked for; what is left out is drawn by one fixed seed, and smaller parts lie in larger ones."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(clips))
    out = [
        Part(f"{share:g} of the clips", [clips[i] for i in order[: round(share * len(clips))]], captures)
        for share in args.clips
    ]
    out += [Part(f"{n} frames a clip", [thinned(c, n) for c in clips], captures) for n in args.frames]
    names = rng.permutation(sorted({c.name for c in captures})).tolist()
    seconds = {n: sum(len(c.body_pose) / c.fps for c in captures if c.name == n) for n in names}
    until = np.cumsum([seconds[n] for n in names]) / sum(seconds.values())
    for share in args.capture:
        kept = {n for n, u in zip(names, until, strict=True) if u <= share + 1e-9}
        few, own = [c for c in captures if c.name in kept], [c for c in clips if c.source in kept]
        out.append(Part(f"{share:g} of the capture", own, few))
    return out  # fmt: skip


def learn(
    part: Part, held: list[PerceivedClip], captured: Captured, config: LifterTrainingConfig, seed: int
) -> dict[str, float]:
    """Scores of a lifter that learned from a part, at its best validation."""
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    seed_everything(seed)
    captured = dataclasses.replace(captured, training=part.captures)
    task = task_on([*part.clips, *held], config, captured, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as out:
        result = fit(task, config.train, Path(out), run_config=config, progress=False)
    return {**result.scores, "step": result.step}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, required=True, help="folder of rendered clips, those held out among them")
    p.add_argument("--mocap", type=Path, required=True, help="the prepared capture that they come from")
    p.add_argument("--clips", type=float, nargs="+", default=[], metavar="SHARE", help="shares of the clips")
    p.add_argument(
        "--frames", type=int, nargs="+", default=[], metavar="N", help="frames that a clip may have, 4 or more"
    )
    p.add_argument(
        "--capture", type=float, nargs="+", default=[], metavar="SHARE", help="shares of the capture's minutes"
    )
    p.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "configs" / "lifter.yaml")
    p.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="over the configuration"
    )
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--out", type=Path, help="the table as Markdown")
    args = p.parse_args(argv)  # fmt: skip
    if min(args.frames, default=4) < 4:
        p.error("--frames: windows have 4 frames, ask for as many at least")
    steps = [f"train.steps={args.steps}", f"train.validate_every={max(1, args.steps // 6)}"]
    config = load_config(LifterTrainingConfig, args.config, [*args.overrides, *steps])
    captured = Captured(args.mocap, read_captures(args.mocap, "train"), [])
    clips = load_perceived(args.perceived)
    hold = held_out_names(clips, args.mocap)
    held, own = [c for c in clips if c.source in hold], [c for c in clips if c.source not in hold]
    rows = parts(own, list(captured.training), args)
    if not rows or not held or not own:
        p.error("nothing to compare: give --clips, --frames or --capture, and clips of both splits")
    sheet = Sheet(
        f"Lifters from scratch, {args.steps} steps, on {len(held)} rendered clips of motion held out",
        ("learned from", "clips", "frames", "min of capture", "PA-MPJPE mm", "MPJPE mm", "raw", "best at step"),
    )
    console = Console()
    for part in rows:
        scores = [learn(part, held, captured, config, seed) for seed in range(args.seeds)]
        n, frames, minutes = part.size

        def told(name: str, scores: list[dict[str, float]] = scores) -> str:
            values = np.array([s[name] for s in scores])
            spread = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
            return f"{values.mean():.1f}{spread}"

        sheet.rows.append(
            [part.name, str(n), str(frames), f"{minutes:.1f}", told("pa_mpjpe"), told("mpjpe"), told("raw_pa_mpjpe"), told("step")]
        )  # fmt: skip
        console.print(f"{part.name}: {sheet.rows[-1][4]}", highlight=False)
    sheet.show(console)
    if args.out is not None:
        args.out.write_text(sheet.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
