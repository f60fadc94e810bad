"""Pictures of what the motion prior knows: poses and motions drawn from it, its latents, densities and guesses.

Writes into --out
  samples.jpg      poses drawn from the flow, at temperature 1 and 0.7
  motions.jpg/mp4  motions drawn from the prior
  traversals.jpg   what the latents do that move the joints most, from -2 to 2 standard deviations
  likelihood.png   log-density of a captured motion, frame by frame, and of the same motion broken in known places
  forecast.png     1.5 s of a captured motion, then the next second: expected motion, draws, and what came
  infill.png       half a second cut out of a captured motion: what was there, slerp, and the prior's filling
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.errors import KinflowError, MissingAssetError, UsageError
from kinflow.mocap.clips import MotionClip, load_clips
from kinflow.prior import MotionPrior
from kinflow.render import person_colour
from kinflow.render.figures import (
    Stick,
    StickRow,
    contact_sheet,
    curves_under_sticks,
    new_figure,
    save_figure,
    stick_rows,
    sticks,
)
from kinflow.render.views import draw_bodies
from kinflow.rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.skeleton import NUM_BODY, SMPL_JOINTS
from kinflow.training.poses import mirror_body, perturb
from kinflow.video import VideoWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPILOG = """\
examples:
  python tools/draw_prior.py --out /tmp/prior                                  the packaged prior
  python tools/draw_prior.py --flow F.safetensors --dynamics D.safetensors --denoiser S.safetensors --out /tmp/prior
  python tools/draw_prior.py --out docs/images --prefix prior_                 the pictures of the documentation
  python tools/draw_prior.py --out /tmp/prior --only forecast infill --clip 131_02

likelihood, forecast and infill show motion capture that no training saw (the validation split); without the file that
tools/prepare_mocap.py writes they are left out. Needs matplotlib and pillow (the [test] extra has both).

exit codes: 0 fine, 1 could not be written, 2 usage, 3 no such weight file, 130 interrupted
"""

RATE = 30.0  # frames a second at which captured motion is shown to the prior
TRUTH, GUESS, OTHER = "#9a9a9a", "#0072b2", "#d55e00"


# -- captured motion -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A stretch of captured motion: rotmat (T, 21, 3, 3), root (T, 3, 3) without heading, times (T,) s, and its source."""

    rotmat: Tensor
    root: Tensor
    times: Tensor
    source: str


def pick_window(clips: Sequence[MotionClip], seconds: float, rank: float) -> Window:
    """A stretch of ``seconds`` in which every frame is valid, at about :data:`RATE`.

    Of all stretches that start a second apart, the one whose mean joint speed has ``rank`` (0 the slowest, 1 the fastest):
    a rule that knows nothing of how well the prior does.

    Raises:
        UsageError: no clip is long enough.
    """
    found: list[tuple[float, MotionClip, Tensor]] = []
    for clip in clips:
        step = max(1, round(clip.fps / RATE))
        frames = round(seconds * clip.fps / step) + 1
        pose = rotvec_to_rotmat(torch.as_tensor(clip.body_pose[:, :NUM_BODY], dtype=torch.float32))
        near = max(1, round(0.1 * clip.fps))
        speed = geodesic_distance(pose[:-near], pose[near:]).mean(-1) * clip.fps / near
        for start, stop in clip.valid_runs():
            for first in range(start, stop - (frames - 1) * step, max(1, round(clip.fps))):
                index = first + step * torch.arange(frames)
                found.append((float(speed[first : first + (frames - 1) * step].mean()), clip, index))
    if not found:
        raise UsageError(f"no valid stretch of {seconds:g} s in {len(clips)} clips. Choose another with --clip.")
    found.sort(key=lambda item: item[0])
    _, clip, index = found[round(rank * (len(found) - 1))]
    pose = rotvec_to_rotmat(torch.as_tensor(clip.body_pose, dtype=torch.float32)[index, :NUM_BODY])
    root = facing_forward(rotvec_to_rotmat(torch.as_tensor(clip.global_orient, dtype=torch.float32)[index]))
    times = (index - index[0]).double() / clip.fps
    what = clip.description.strip().replace("Unknown", "")
    return Window(
        pose, root, times, f"{clip.name}{f' ({what})' if what else ''}, from {float(index[0]) / clip.fps:.1f} s"
    )


def facing_forward(root_rotmat: Tensor) -> Tensor:
    """Root rotations (..., 3, 3) without their heading: turned about the vertical until the pelvis faces +z."""
    heading = torch.atan2(root_rotmat[..., 0, 2], root_rotmat[..., 2, 2])
    upright = torch.stack((torch.zeros_like(heading), -heading, torch.zeros_like(heading)), -1)
    return rotvec_to_rotmat(upright) @ root_rotmat


def posed(rotvec: Tensor, root: Tensor | None = None) -> Tensor:
    """The prior's (..., 23, 3) rad as (..., 24, 3, 3)."""
    return full_pose(rotvec_to_rotmat(rotvec[..., :NUM_BODY, :].float()), root)


def mean_angle(a: Tensor, b: Tensor) -> float:
    """Degrees between rotations (..., 3, 3), mean over all."""
    return float(torch.rad2deg(geodesic_distance(a, b)).mean())


@dataclass(frozen=True)
class Break:
    """A stretch of a motion made impossible, in s, and how."""

    start: float
    stop: float
    label: str
    apply: Callable[[Tensor, torch.Generator], Tensor]


def _shuffled(x: Tensor, rng: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=rng)]


BREAKS = (
    Break(1.0, 1.6, "5° of jitter", lambda x, rng: perturb(x, float(np.deg2rad(5)), rng)),
    Break(2.7, 3.3, "left and right\nexchanged", lambda x, rng: mirror_body(x)),
    Break(4.4, 5.2, "frozen, then\na jump", lambda x, rng: x[:1].expand_as(x)),
    Break(6.3, 6.9, "frames\nshuffled", _shuffled),
)


def break_motion(rotmat: Tensor, times: Tensor, rng: torch.Generator) -> tuple[Tensor, list[tuple[float, float, str]]]:
    """A motion (T, 21, 3, 3) with :data:`BREAKS` in it, and their (start, stop, label), stretched over the frame after."""
    out, spans = rotmat.clone(), []
    for item in BREAKS:
        inside = ((times >= item.start) & (times < item.stop)).nonzero()[:, 0]
        out[inside] = item.apply(rotmat[inside], rng)
        spans.append((item.start, float(times[min(int(inside[-1]) + 2, len(times) - 1)]), item.label))
    return out, spans


# -- the pictures --------------------------------------------------------------------------------------------------------


@dataclass
class Studio:
    """What the pictures share: the prior, the body that shows it, sizes, and where they go."""

    prior: MotionPrior
    body: Body
    out: Path
    prefix: str
    height: int
    seconds: float
    rate: float
    temperature: float
    seed: int
    clips: Sequence[MotionClip]

    def rng(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def save(self, figure: Figure, name: str) -> list[Path]:
        return [save_figure(figure, self.out / f"{self.prefix}{name}")]

    def samples(self) -> list[Path]:
        rng, columns = self.rng(), 8
        poses = [self.prior.flow.sample((n,), rng, temperature=t) for n, t in ((2 * columns, 1.0), (columns, 0.7))]
        tint = torch.tensor([person_colour(0)] * 2 * columns + [person_colour(1)] * columns)
        images = draw_bodies(self.body, full_pose(torch.cat(poses).float()), tint, self.height)
        title = "Poses drawn from the flow, pelvis upright"
        return self.save(
            contact_sheet(images, columns, title, (), ("temperature 1", "temperature 1", "temperature 0.7")),
            "samples.jpg",
        )

    def motions(self) -> list[Path]:
        times = torch.arange(max(2, round(self.seconds * self.rate)), dtype=torch.float64) / self.rate
        motion = self.prior.sample(times, 4, temperature=self.temperature, generator=self.rng())
        tint = torch.tensor([person_colour(i) for i in range(4)])
        film = [draw_bodies(self.body, posed(m), tint[i].expand(len(m), 3), self.height) for i, m in enumerate(motion)]
        shown = np.linspace(0, len(times) - 1, min(9, len(times))).round().astype(int)
        title = f"Motions drawn from the prior at temperature {self.temperature:g}, {self.rate:g} frames/s"
        beside = [f"motion {i + 1}" for i in range(4)]
        above = [f"{float(times[t]):.2f} s" for t in shown]
        sheet = contact_sheet(np.concatenate([f[shown] for f in film]), len(shown), title, above, beside)
        paths = self.save(sheet, "motions.jpg")
        path = self.out / f"{self.prefix}motions.mp4"
        frames = np.concatenate(film, 2)
        with VideoWriter(path, (frames.shape[2], frames.shape[1]), self.rate) as video:
            for image in frames:
                video.write(image)
        return [*paths, path]

    def traversals(self) -> list[Path]:
        size = self.prior.flow.latent_dim
        ends = torch.cat((-2 * torch.eye(size), 2 * torch.eye(size)))
        joints = self.body.joints(torch.zeros(10), full_pose(self.prior.flow.decode(ends)[0]))
        path = (joints[:size] - joints[size:]).norm(dim=-1)
        chosen = path.mean(-1).topk(6).indices
        values = torch.tensor((-2.0, -1.0, 0.0, 1.0, 2.0))
        z = torch.zeros(len(chosen), len(values), size)
        for row, k in enumerate(chosen):
            z[row, :, k] = values
        poses = full_pose(self.prior.flow.decode(z.flatten(0, 1))[0])
        tint = torch.tensor(person_colour(2)).expand(len(poses), 3)
        images = draw_bodies(self.body, poses, tint, self.height)
        beside = []
        for k in chosen:
            most = int(path[k].argmax())
            beside.append(
                f"z[{int(k)}]\nmoves most:\n{SMPL_JOINTS[most].replace('_', ' ')}\nby {100 * path[k, most]:.0f} cm"
            )
        title = "One latent at a time, all others at 0: the six that move the joints furthest"
        above = [f"z = {v:+.0f}" if v else "z = 0" for v in values.tolist()]
        return self.save(contact_sheet(images, len(values), title, above, beside), "traversals.jpg")

    def likelihood(self) -> list[Path]:
        window = pick_window(self.clips, 8.0, 0.75)
        broken, spans = break_motion(window.rotmat, window.times, self.rng())
        scores = self.prior.log_prob(torch.stack((window.rotmat, broken)), window.times).numpy()
        times = window.times.numpy()
        shown = np.arange(0.2, times[-1], 0.4)
        index = np.searchsorted(times, shown).clip(max=len(times) - 1)
        figures = sticks(self.body, full_pose(broken[index], window.root[index]))
        figure = curves_under_sticks(
            times,
            {"broken in four places": (scores[1], OTHER), "as captured": (scores[0], GUESS)},
            dict(zip(shown.tolist(), figures, strict=True)),
            spans,
            f"Log-density of each frame given those before it (left limbs orange, right blue)\n{window.source}",
            "nats a frame",
        )
        return self.save(figure, "likelihood.png")

    def forecast(self) -> list[Path]:
        window = pick_window(self.clips, 2.5, 0.85)
        seen = window.times <= 1.5 + 1e-6
        now, future = window.times[seen][-1], window.times[~seen]
        past = (window.rotmat[None, seen], window.times[seen], future)
        mean = posed(self.prior.forecast(*past)[0])[:, 1 : NUM_BODY + 1]
        draws = self.prior.forecast(*past, samples=8, temperature=self.temperature, generator=self.rng())[0]
        ask = np.concatenate(((-1.5, -1.0, -0.5, 0.0), (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)))
        index = np.abs((window.times - now).numpy()[None] - ask[:, None]).argmin(1)
        ahead = index[4:] - int(seen.sum())
        root = window.root[index]
        truth = sticks(self.body, full_pose(window.rotmat[index], root))
        expected = sticks(self.body, full_pose(mean[ahead], root[4:]))
        drawn = sticks(self.body, posed(draws[:, ahead], root[4:].expand(8, -1, -1, -1)))
        came, later = window.rotmat[index[4:]], range(4, len(ask))
        under = {c: Stick(truth[c], TRUTH, 3.0, 0.7) for c in later}
        off = [mean_angle(mean[a], t) for a, t in zip(ahead, came, strict=True)]
        nearest = [
            min(mean_angle(rotvec_to_rotmat(d[a, :NUM_BODY]), t) for d in draws)
            for a, t in zip(ahead, came, strict=True)
        ]
        rows = [
            StickRow("what came", {c: [Stick(t)] for c, t in enumerate(truth)}),
            StickRow(
                "expected\nmotion",
                {c: [under[c], Stick(expected[c - 4], GUESS)] for c in later},
                {c: f"off by {off[c - 4]:.1f}°" for c in later},
                (1.5, "off by: mean angle\nof the 21 joints"),
            ),
            StickRow(
                f"8 draws,\ntemperature {self.temperature:g}",
                {c: [under[c], *(Stick(d, OTHER, 0.9, 0.6) for d in drawn[:, c - 4])] for c in later},
                {c: f"nearest {nearest[c - 4]:.1f}°" for c in later},
            ),
        ]
        captions = ["now" if t == 0 else f"{t:+.1f} s" for t in ask]
        title = "1.5 s seen, the next second foretold (top: left limbs orange, right blue; below, in grey: what came; root as captured)"
        return self.save(stick_rows(rows, captions, range(4), f"{title}\n{window.source}"), "forecast.png")

    def infill(self) -> list[Path]:
        window = pick_window(self.clips, 2.5, 0.85)
        gap = (window.times > 1.0) & (window.times < 1.5 + 1e-6)
        first, last = int(gap.nonzero()[0]) - 1, int(gap.nonzero()[-1]) + 1
        filled = self.prior.infill(window.rotmat[None], window.times, valid=~gap[None])[0, :, :21]
        filled = rotvec_to_rotmat(filled.float())
        share = (window.times - window.times[first]) / (window.times[last] - window.times[first])
        share = share.clamp(0, 1).float()[:, None, None]
        turn = rotmat_to_rotvec(window.rotmat[first].mT @ window.rotmat[last])
        slerp = torch.where(
            gap[:, None, None, None], window.rotmat[first] @ rotvec_to_rotmat(share * turn), window.rotmat
        )
        step = max(1, round((last - first) / 6))
        index = np.arange(first - 2 * step, last + 2 * step + 1, step)
        root = window.root[index]
        truth = sticks(self.body, full_pose(window.rotmat[index], root))
        rows = [StickRow("what was there", {c: [Stick(t)] for c, t in enumerate(truth)})]
        for label, motion, colour in (("slerp", slerp, OTHER), ("prior", filled, GUESS)):
            shown = sticks(self.body, full_pose(motion[index], root))
            cut = [c for c, t in enumerate(index) if gap[t]]
            off = {c: f"off by {mean_angle(motion[index[c]], window.rotmat[index[c]]):.1f}°" for c in cut}
            note = f"mean over the gap:\noff by {mean_angle(motion[gap], window.rotmat[gap]):.2f}°"
            pairs = {c: [Stick(truth[c], TRUTH, 3.0, 0.7), Stick(shown[c], colour)] for c in cut}
            rows.append(StickRow(label, pairs, off, (0.5, note)))
        captions = [f"{float(window.times[t]):.2f} s" for t in index]
        known = [c for c, t in enumerate(index) if not gap[t]]
        title = "Half a second cut out (top: left limbs orange, right blue; below, in grey: what was there; root as captured)"
        return self.save(stick_rows(rows, captions, known, f"{title}\n{window.source}"), "infill.png")


DRAWN, CAPTURED = ("samples", "motions", "traversals"), ("likelihood", "forecast", "infill")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the pictures; made if missing")
    p.add_argument("--prefix", default="", help="put before every file name, such as prior_ (default: nothing)")
    p.add_argument("--only", nargs="+", choices=DRAWN + CAPTURED, metavar="PICTURE", default=DRAWN + CAPTURED,
                   help="some of: " + ", ".join(DRAWN + CAPTURED))  # fmt: skip
    weights = p.add_argument_group("weights that kinflow-train wrote (default: the packaged ones)")
    for part in ("flow", "dynamics", "denoiser"):
        weights.add_argument(f"--{part}", type=Path, metavar="FILE")
    data = p.add_argument_group("captured motion")
    data.add_argument("--data", type=Path, default=Path("data/mocap.npz"), help="prepared motion capture (default: data/mocap.npz)")  # fmt: skip
    data.add_argument("--clip", metavar="TEXT", help="only clips whose name or description holds this (default: all of the validation split; the speed decides)")  # fmt: skip
    look = p.add_argument_group("draws and sizes")
    look.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    look.add_argument("--temperature", type=float, default=inspect.signature(MotionPrior.sample).parameters["temperature"].default, help="of the motions' and forecasts' draws (default: %(default)s)")  # fmt: skip
    look.add_argument("--seconds", type=float, default=3.0, help="length of the drawn motions (default: 3)")
    look.add_argument("--rate", type=float, default=24.0, help="their frames a second (default: 24)")
    look.add_argument("--height", type=int, default=200, metavar="PX", help="of one body (default: 200)")
    look.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    return p


def captured(path: Path, text: str | None) -> list[MotionClip]:
    """The validation clips whose name or description holds ``text``. Raises UsageError where none does."""
    clips = load_clips(path, "validation")
    if text:
        clips = [c for c in clips if text.lower() in f"{c.name} {c.description}".lower()]
    if not clips:
        raise UsageError(
            f"--clip {text}: no validation clip of this name or description. Leave it out to use them all."
        )
    return clips


def run(args: argparse.Namespace, console: Console) -> None:
    for name in ("seconds", "rate", "temperature"):
        if not getattr(args, name) > 0:
            raise UsageError(f"--{name}: expected a positive number, got {getattr(args, name):g}.")
    if not 16 <= args.height <= 2000:
        raise UsageError(f"--height: expected 16 to 2000 px, got {args.height}.")
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    names, clips = list(dict.fromkeys(args.only)), []
    if set(names) & set(CAPTURED):
        try:
            clips = captured(args.data, args.clip)
        except MissingAssetError:
            left = [n for n in names if n in CAPTURED]
            names = [n for n in names if n in DRAWN]
            console.print(
                f"no {args.data}: {', '.join(left)} left out. tools/prepare_mocap.py writes it.", style="yellow"
            )
    try:
        prior = MotionPrior.load(args.flow, args.dynamics, args.denoiser).float()
    except RuntimeError as error:  # torch lists every parameter that differs: its first line says in which network
        what = str(error).splitlines()[0].rstrip(": ")
        raise UsageError(
            f"weights: expected files of this version's networks, got others ({what}). Train them again with kinflow-train."
        ) from error
    studio = Studio(
        prior, Body.open("light"), args.out, args.prefix, args.height, args.seconds, args.rate, args.temperature,
        args.seed, clips,
    )  # fmt: skip
    new_figure(1, 1)  # says now, not after the draws, that matplotlib is missing
    args.out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("drawing", total=len(names))
        for name in names:
            bar.update(task, description=name)
            written += getattr(studio, name)()
            bar.advance(task)
    for path in written:
        console.print(f"{path}  {path.stat().st_size / 1000:.0f} kB", highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        with torch.no_grad():
            run(args, Console(stderr=True))
    except KinflowError as error:
        print(f"draw_prior: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"draw_prior: {error.filename or args.out}: cannot write here ({error.strerror}).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("draw_prior: interrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
