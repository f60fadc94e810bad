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
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from drawn_figures import bodies, contact_sheet, draw_stick, facing_forward, sticks, strip, with_root
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from kinflow.body import Body
from kinflow.errors import KinflowError, MissingAssetError, UsageError
from kinflow.mocap.clips import MotionClip, load_clips
from kinflow.prior import MotionPrior
from kinflow.records import atomic_write
from kinflow.render import person_colour
from kinflow.rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.skeleton import NUM_BODY, SMPL_JOINTS
from kinflow.training.poses import mirror_body, perturb
from kinflow.video import VideoWriter

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

    def save(self, figure: plt.Figure, name: str) -> list[Path]:
        """Write a figure, JPEG or PNG by its name, under a temporary name first."""
        path = self.out / f"{self.prefix}{name}"
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=100, facecolor=figure.get_facecolor())
        plt.close(figure)
        with Image.open(drawn) as image, atomic_write(path) as stream:
            if path.suffix == ".jpg":
                image.convert("RGB").save(stream, "JPEG", quality=85, optimize=True)
            else:  # few colours: a palette makes the file a third as large
                image.convert("RGB").quantize(128).save(stream, "PNG", optimize=True)
        return [path]

    def samples(self) -> list[Path]:
        rng, columns = self.rng(), 8
        poses = [self.prior.flow.sample((n,), rng, temperature=t) for n, t in ((2 * columns, 1.0), (columns, 0.7))]
        tint = torch.tensor([person_colour(0)] * 2 * columns + [person_colour(1)] * columns)
        images = bodies(self.body, with_root(torch.cat(poses)), tint, self.height)
        title = "Poses drawn from the flow, pelvis upright"
        return self.save(
            contact_sheet(images, columns, title, (), ("temperature 1", "temperature 1", "temperature 0.7")),
            "samples.jpg",
        )

    def motions(self) -> list[Path]:
        times = torch.arange(max(2, round(self.seconds * self.rate)), dtype=torch.float64) / self.rate
        motion = self.prior.sample(times, 4, temperature=self.temperature, generator=self.rng())
        tint = torch.tensor([person_colour(i) for i in range(4)])
        film = [bodies(self.body, with_root(m), tint[i].expand(len(m), 3), self.height) for i, m in enumerate(motion)]
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
        joints = self.body.joints(torch.zeros(10), with_root(self.prior.flow.decode(ends)[0]))
        path = (joints[:size] - joints[size:]).norm(dim=-1)
        chosen = path.mean(-1).topk(6).indices
        values = torch.tensor((-2.0, -1.0, 0.0, 1.0, 2.0))
        z = torch.zeros(len(chosen), len(values), size)
        for row, k in enumerate(chosen):
            z[row, :, k] = values
        poses = with_root(self.prior.flow.decode(z.flatten(0, 1))[0])
        tint = torch.tensor(person_colour(2)).expand(len(poses), 3)
        images = bodies(self.body, poses, tint, self.height)
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
        times, last = window.times.numpy(), float(window.times[-1])
        figure, (above, axis) = plt.subplots(2, 1, figsize=(12, 5.6), height_ratios=(1, 2.2), sharex=True)
        figure.subplots_adjust(0.06, 0.09, 0.985, 0.91, hspace=0.04)
        figure.suptitle(
            f"Log-density of each frame given those before it (left limbs orange, right blue)\n{window.source}",
            fontsize=10,
        )
        axis.plot(times, scores[1], color=OTHER, linewidth=1.3, label="broken in four places")
        axis.plot(times, scores[0], color=GUESS, linewidth=1.3, label="as captured")
        usual = float(np.quantile(scores[0], 0.99) - np.quantile(scores[0], 0.01))
        if scores[1].min() < scores[0].min() - 4 * usual:
            axis.set_yscale("symlog", linthresh=max(10.0, float(np.abs(np.quantile(scores[0], (0.01, 0.99))).max())))
        for start, stop, label in spans:
            for part in (above, axis):
                part.axvspan(start, stop, color="0.9", zorder=0, linewidth=0)
            above.text((start + stop) / 2, 2.65, label, ha="center", va="top", fontsize=9)
        axis.set_ylabel("nats a frame")
        axis.set_xlabel("s")
        axis.set_xlim(0, last)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower left", fontsize=9)
        above.set_axis_off()
        above.set_ylim(-0.05, 2.7)
        room = above.get_window_extent()
        stretch = (last / room.width) / (2.75 / room.height)
        shown = np.arange(0.2, last, 0.4)
        index = np.searchsorted(times, shown).clip(max=len(times) - 1)
        for x, points in zip(shown, sticks(self.body, with_root(broken[index], window.root[index])), strict=True):
            draw_stick(above, points, x, stretch=stretch, wide=1.3)
        return self.save(figure, "likelihood.png")

    def forecast(self) -> list[Path]:
        window = pick_window(self.clips, 2.5, 0.85)
        seen = window.times <= 1.5 + 1e-6
        now, future = window.times[seen][-1], window.times[~seen]
        past = (window.rotmat[None, seen], window.times[seen], future)
        mean = with_root(self.prior.forecast(*past)[0])[:, 1:22]
        draws = self.prior.forecast(*past, samples=8, temperature=self.temperature, generator=self.rng())[0]
        ask = np.concatenate(((-1.5, -1.0, -0.5, 0.0), (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)))
        index = np.abs((window.times - now).numpy()[None] - ask[:, None]).argmin(1)
        ahead = index[4:] - int(seen.sum())
        root = window.root[index]
        truth = sticks(self.body, with_root(window.rotmat[index], root))
        expected = sticks(self.body, with_root(mean[ahead], root[4:]))
        drawn = sticks(self.body, with_root(draws[:, ahead], root[4:].expand(8, -1, -1, -1)))
        figure, axes = self._rows(3, len(ask), ("what came", "expected\nmotion", f"8 draws,\ntemperature {self.temperature:g}"), window.source,
                                  "1.5 s seen, the next second foretold (top: left limbs orange, right blue; below, in grey: what came; root as captured)")  # fmt: skip
        for c, t in enumerate(ask):
            self._caption(axes[0], c, "now" if t == 0 else f"{t:+.1f} s", c < 4)
            draw_stick(axes[0], truth[c], c)
            if c < 4:
                continue
            for axis in axes[1:]:
                draw_stick(axis, truth[c], c, TRUTH, 3.0, 0.7)
            draw_stick(axes[1], expected[c - 4], c, GUESS)
            for figure_points in drawn[:, c - 4]:
                draw_stick(axes[2], figure_points, c, OTHER, 0.9, 0.6)
            error = mean_angle(mean[ahead[c - 4]], window.rotmat[index[c]])
            best = min(mean_angle(rotvec_to_rotmat(d[ahead[c - 4], :21]), window.rotmat[index[c]]) for d in draws)
            axes[1].text(c, -0.1, f"off by {error:.1f}°", ha="center", va="top", fontsize=8)
            axes[2].text(c, -0.1, f"nearest {best:.1f}°", ha="center", va="top", fontsize=8)
        axes[1].text(
            1.5, 1.0, "off by: mean angle\nof the 21 joints", ha="center", va="center", fontsize=8, color="0.4"
        )
        return self.save(figure, "forecast.png")

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
        truth = sticks(self.body, with_root(window.rotmat[index], root))
        figure, axes = self._rows(3, len(index), ("what was there", "slerp", "prior"), window.source,
                                  "Half a second cut out (top: left limbs orange, right blue; below, in grey: what was there; root as captured)")  # fmt: skip
        for axis, motion, colour in ((axes[1], slerp, OTHER), (axes[2], filled, GUESS)):
            shown = sticks(self.body, with_root(motion[index], root))
            for c, t in enumerate(index):
                if gap[t]:
                    draw_stick(axis, truth[c], c, TRUTH, 3.0, 0.7)
                    draw_stick(axis, shown[c], c, colour)
                    off = mean_angle(motion[t], window.rotmat[t])
                    axis.text(c, -0.1, f"off by {off:.1f}°", ha="center", va="top", fontsize=8)
            axis.text(0.5, 1.0, f"mean over the gap:\noff by {mean_angle(motion[gap], window.rotmat[gap]):.2f}°",
                      ha="center", va="center", fontsize=9)  # fmt: skip
        for c, t in enumerate(index):
            self._caption(axes[0], c, f"{float(window.times[t]):.2f} s", not gap[t])
            draw_stick(axes[0], truth[c], c)
        return self.save(figure, "infill.png")

    @staticmethod
    def _rows(count: int, columns: int, labels: Sequence[str], source: str, title: str) -> tuple[plt.Figure, list]:
        height = 1.0 + 2.3 * count * 10 / columns
        figure, axes = plt.subplots(count, 1, figsize=(12, height))
        figure.subplots_adjust(0.105, 0.25 / height, 0.995, 1 - 0.75 / height, hspace=0.12)
        figure.suptitle(f"{title}\n{source}", fontsize=10)
        for axis, label in zip(axes, labels, strict=True):
            strip(axis, columns, label)
        return figure, list(axes)

    @staticmethod
    def _caption(axis: plt.Axes, column: int, text: str, seen: bool) -> None:
        axis.text(column, 2.0, text, ha="center", va="bottom", fontsize=9)
        if seen:
            axis.axvspan(column - 0.5, column + 0.5, color="#f1f1ea", zorder=-1, linewidth=0)
            axis.text(column, -0.1, "seen", ha="center", va="top", fontsize=8, color="0.5")


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
