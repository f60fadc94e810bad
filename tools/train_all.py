"""Train all of kinflow's networks, one after the other, in a given time: for whoever has a GPU for half an hour.

    python tools/train_all.py --mocap data/mocap.npz --mocap120 data/mocap120.npz --out runs/all --minutes 30 --device cuda

The capture comes from tools/prepare_mocap.py at 60 and at 120 frames/s. Each stage gets its share of the minutes: flow,
clips rendered and perceived, sides, lifter, dynamics, encoder, encoder with filter, denoiser. A run that was
broken off goes on where it stopped, with the same command; what is finished is not done again. OUT/weights then holds the
weights with their cards; ``--install`` puts them into kinflow/assets.

``--from-packaged`` starts from the packaged weights instead of from scratch, and
``--first N`` numbers the rendered clips from N on: so one session after another adds clips that no earlier one has seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "kinflow" / "assets"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training: share of the minutes, its network, its configuration file, the settings that name what it reads, and the
    packaged weights that it may start from."""

    name: str
    share: float
    network: str
    config: str
    reads: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    fast: bool = False
    """Reads the capture at 120 frames/s."""
    packaged: str | None = None


STAGES = (
    Stage("flow", 0.07, "flow", "flow", packaged="flow"),
    Stage("sides", 0.03, "sides", "sides", ("perceived",)),
    Stage("lifter", 0.14, "lifter", "lifter", ("flow", "perceived"), packaged="lifter"),
    Stage("dynamics", 0.18, "dynamics", "dynamics", ("flow",), fast=True, packaged="dynamics"),
    Stage("encoder", 0.18, "reconstructor", "reconstructor", ("flow", "lifter", "perceived"), ("filter=false",),
          packaged="reconstructor"),
    Stage("reconstructor", 0.12, "reconstructor", "reconstructor",
          ("flow", "lifter", "dynamics", "perceived", "init=encoder"), ("train.lr=5e-4",)),
    Stage("denoiser", 0.13, "denoiser", "denoiser", fast=True, packaged="denoiser"),
)  # fmt: skip
FIRST_TO_SEE = next(s.name for s in STAGES if "perceived" in s.reads)
"""Before it clips are rendered and perceived."""
PERCEIVED_SHARE = 1 - sum(s.share for s in STAGES)
KEPT = ("flow", "sides", "lifter", "dynamics", "reconstructor", "denoiser")


def main(argv: Sequence[str] | None = None) -> int:
    """Run every stage that is not finished; the exit code of the first that fails."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mocap", type=Path, required=True, help="capture at 60 frames/s")
    p.add_argument("--mocap120", type=Path, required=True, help="capture at 120 frames/s")
    p.add_argument("--out", type=Path, default=Path("runs/all"))
    p.add_argument("--minutes", type=float, default=30.0, help="for everything (default: 30)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that render and perceive")
    p.add_argument("--first", type=int, default=0, help="number of the first file of rendered clips")
    p.add_argument("--clips", type=int, default=24, help="clips a file of rendered clips")
    p.add_argument("--frames", type=int, default=20, help="frames a clip")
    p.add_argument(
        "--wardrobe", type=Path, help="clothes and photographs for rendered people (tools/build_wardrobe.py)"
    )
    p.add_argument("--from-packaged", action="store_true", help="start from the packaged weights")
    p.add_argument("--only", nargs="+", choices=["perceived", *(s.name for s in STAGES)], help="these stages alone")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="STAGE:KEY=VALUE")
    p.add_argument("--install", action="store_true", help="put the weights into kinflow/assets at the end")
    args = p.parse_args(argv)
    wrong = [o for o in args.overrides if o.split(":")[0] not in {s.name for s in STAGES}]
    if wrong:
        p.error(f"--set {wrong[0]}: begins with the name of no stage ({', '.join(s.name for s in STAGES)})")
    for path in (args.mocap, args.mocap120):
        if not path.is_file():
            p.error(f"{path}: no such file. Make it with tools/prepare_mocap.py.")
    if args.wardrobe is not None and not args.wardrobe.is_file():
        p.error(f"{args.wardrobe}: no such file. Make it with tools/build_wardrobe.py.")
    weights = args.out / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    chosen = set(args.only or ["perceived", *(s.name for s in STAGES)])
    for stage in STAGES:
        if "perceived" in chosen and stage.name == FIRST_TO_SEE and (code := render(args)):
            return code
        if stage.name not in chosen or (args.out / stage.name / "done").is_file():
            continue
        if code := train(stage, args):
            return code
    if args.install:
        for name in KEPT:
            for file in weights.glob(f"{name}.*"):
                shutil.copy(file, ASSETS / file.name)
    return 0


def render(args: argparse.Namespace) -> int:
    """Render and perceive for a share of the minutes, several processes side by side, four fifths of them for training."""
    folder = args.out / "perceived"
    done = folder / "done"
    if done.is_file():
        return 0
    minutes = args.minutes * PERCEIVED_SHARE
    running = []
    for i in range(args.processes):
        validation = args.processes > 1 and i == args.processes - 1
        command = [sys.executable, "tools/render_and_perceive.py", "--mocap", args.mocap.resolve(), "--out", folder.resolve(),
                   "--clips", args.clips, "--frames", args.frames, "--device", args.device, "--minutes", minutes / (4 if validation else 1),
                   "--split", "validation" if validation else "train", "--shards", 10**5,
                   "--first", args.first + i, "--stride", args.processes,
                   *(("--wardrobe", args.wardrobe.resolve()) if args.wardrobe else ())]  # fmt: skip
        running.append(start(command))
        if args.processes == 1:  # one after the other
            if code := running.pop().wait():
                return code
            command[command.index("train")] = "validation"
            command[command.index("--minutes") + 1] = minutes / 4
            running.append(start(command))
    codes = [process.wait() for process in running]
    if any(codes):
        return max(codes)
    done.touch()
    return 0


def train(stage: Stage, args: argparse.Namespace) -> int:
    """One stage, from its last checkpoint on."""
    out, weights = args.out / stage.name, args.out / "weights"
    settings = [*stage.settings, f"train.minutes={args.minutes * stage.share:.4f}", f"train.steps={10**6}"]
    for name in stage.reads:
        key, _, of = name.partition("=")
        if of and of not in KEPT:
            settings.append(f"{key}={(args.out / of / (stage.network + '.safetensors')).resolve()}")
        elif name == "perceived":
            settings.append(f"perceived={(args.out / 'perceived').resolve()}")
        elif (file := weights / f"{of or name}.safetensors").is_file():
            settings.append(f"{key}={file.resolve()}")  # else the packaged one
    if args.from_packaged and stage.packaged:
        settings.append(f"init={(ASSETS / f'{stage.packaged}.safetensors').resolve()}")
    settings += [o.split(":", 1)[1] for o in args.overrides if o.split(":")[0] == stage.name]
    data = args.mocap120 if stage.fast else args.mocap
    command = [sys.executable, "-m", "kinflow.cli.train", stage.network, "--config", f"configs/{stage.config}.yaml",
               "--data", data.resolve(), "--out", out.resolve(), "--device", args.device, "--resume", "--quiet",
               *(part for s in settings for part in ("--set", s))]  # fmt: skip
    began = time.monotonic()
    if code := start(command).wait():
        return code
    print(f"{stage.name}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    if stage.name in KEPT:
        shutil.copy(out / f"{stage.network}.safetensors", weights / f"{stage.name}.safetensors")
        card = (out / f"{stage.network}.md").read_text()
        (weights / f"{stage.name}.md").write_text(card.replace(f"# {stage.network}.", f"# {stage.name}.", 1))
    (out / "done").touch()
    return 0


def start(command: Sequence[object]) -> subprocess.Popen[bytes]:
    """A command from the root of the checkout, which need not be installed."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen([str(part) for part in command], cwd=ROOT, env={**os.environ, "PYTHONPATH": path})


if __name__ == "__main__":
    raise SystemExit(main())
