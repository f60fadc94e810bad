"""What each part of the paper is worth: networks trained with one part more each, measured on the tables of accuracy.py.

    python benchmarks/ablation.py --data data/mocap.npz --perceived data/perceived --videos FOLDER [--real CLIP --reference FILE.npz]

Every network is trained here from scratch, for as many steps on windows of 32 frames, with as many windows a step; rows differ by
what is said of them and nothing else. Those with the filter, and those with real clips, go on after ``--steps`` from the network
without, for ``--more`` steps; the others have ``--steps`` and ``--more`` in one. Lifter, flow and dynamics are the packaged ones.
Rows in brackets are asides: what comes after them is held against the row before.

``network`` is its own output, root and place smoothed over time as always, ``fitted`` what the fit that ends a reconstruction makes
of the first seed's. It lets nothing be rougher than it was and cannot mend what jumps from frame to frame, so networks of single frames
fare badly by it. The clips are rendered, of the test subjects; the real one was never trained on. Under the last network's row stand what may
follow the fit: the best of thirteen hypotheses, as chosen by evidence and likelihoods or by the truth, and the refinement. ``paired`` is
the difference to the row before, of what follows the fit to the last network's, clip by clip with its standard error; in brackets the
standard deviation over seeds.

A last table says how well the networks with real clips agree, by their own output, with clips that nobody trained on (``--unseen``):
alignment is the sum of the losses of keypoints, parts and landmarks, by weight, against that of the network without real clips;
plausibility is in nats a frame under the motion prior, against the same.

What is trained is kept in ``--out``, and not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import hypotheses
import numpy as np
import torch
from accuracy import UNLIFTED_STD, Case, longest, real, rendered, score, unfitted, unlifted
from reporting import Sheet, commit
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kinflow.body import Body
from kinflow.config import AdaptationConfig, PerceptionConfig, ReconstructorTrainingConfig, load_config
from kinflow.datasets.wardrobe import Wardrobe
from kinflow.dynamics import load_dynamics
from kinflow.evidence import Evidence
from kinflow.flow import PoseFlow, load_flow
from kinflow.motion import Motion
from kinflow.perception import perceive
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.deviations import load_deviations
from kinflow.reconstruction.encoder import SequenceEncoder, States
from kinflow.reconstruction.gaussian import Gaussian
from kinflow.reconstruction.lifting import Lifted, load_lifter
from kinflow.reconstruction.network import Prediction, ReconstructionNetwork, Traces
from kinflow.reconstruction.observation import Observations
from kinflow.training.adaptation import AdaptationTask
from kinflow.training.loop import fit, seed_everything
from kinflow.training.poses import read_captures
from kinflow.training.run import Captured
from kinflow.training.streams.footage import Footage, read_footage
from kinflow.training.streams.perceived import PerceivedClip, load_perceived
from kinflow.training.tasks.reconstructor import OwnWeights, task_on

METRICS = ("PA-MPJPE", "MPJPE", "accel", "root")


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of the table.

    Attributes:
        alone: frames know nothing of each other. lifted: the lifter puts the landmarks right before. latents: the network speaks the
            flow's latents, else its whitened chart.
        after: the network that it goes on from. shown: has a row.
        settings: over configs/reconstructor.yaml.
    """

    name: str
    settings: tuple[str, ...]
    alone: bool = False
    lifted: bool = True
    latents: bool = False
    after: str | None = None
    shown: bool = True

    @property
    def filmed(self) -> bool:
        """Whether it learns from real clips."""
        return _FILMED in self.settings


def _without(*terms: str) -> tuple[str, ...]:
    return tuple(f"losses.{term}=0" for term in terms)


_FRAMES = ("filter=false", "model.pose_kernel=0")
_PROJECTED = ("perceived_share=0", "projection.borrowed=0")
_FILMED = "sources.clips.weight=0.5"
_LEARNED = "perceived"
"""Row from which those with real clips go on, and the one that they are held against."""
ROWS = (
    Row("encoder of single frames", (*_FRAMES, *_PROJECTED), alone=True, lifted=False),
    Row("+ lifter", (*_FRAMES, *_PROJECTED), alone=True),
    Row("(in the flow's latents, not its chart)", (*_FRAMES, *_PROJECTED), alone=True, latents=True),
    Row("+ recurrence, kernel over time", ("filter=false", *_PROJECTED)),
    Row("frames", ("filter=false", *_PROJECTED), alone=True, shown=False),
    Row("(filter by the dynamics in the recurrence's place)", _PROJECTED, alone=True, after="frames"),
    Row("projected", ("filter=false", *_PROJECTED), shown=False),
    Row("+ filter by the dynamics", _PROJECTED, after="projected"),
    Row(_LEARNED, ("filter=false",), shown=False),
    Row("+ perceived clips", (), after=_LEARNED),
    Row("+ real clips: keypoints, landmarks, flow", (_FILMED, *_without("dynamics", "smoothness", "parts")), after=_LEARNED),
    Row("+ dynamics' likelihood, smoothness", (_FILMED, *_without("parts")), after=_LEARNED),
    Row("+ body parts", (_FILMED,), after=_LEARNED),
)  # fmt: skip


class FrameEncoder(SequenceEncoder):
    """Without recurrence, and not told how the person turned and moved since the frame before."""

    OVER_TIME = (-9, -8, -7, -6, -5, -4, -1)
    """Of the features: turn, move, time step (:func:`~kinflow.reconstruction.observation.canonicalise`)."""

    def forward(self, features: Tensor, obs: Observations, dt: Tensor) -> States:
        told = torch.ones_like(features[0, 0])
        told[list(self.OVER_TIME)] = 0
        code = self.codes(features * told, obs.observed & obs.valid)
        nothing = code.new_zeros(*code.shape[:-1], self.gru_forward.hidden_size)
        return States(code, nothing, nothing)


class Unfiltered(ReconstructionNetwork):
    """Whose frames' own Gaussians stand in for the filter's, as they did in its training."""

    def forward(self, obs: Observations, streaming: bool = False, dynamics: bool = False) -> tuple[Prediction, Traces]:
        return super().forward(obs, streaming, dynamics)


class Unlifted(nn.Module):
    """In the lifter's place: the landmark network's own world landmarks."""

    def forward(self, obs: Observations) -> Lifted:
        return Lifted(obs.world, torch.full_like(obs.world[..., :2], math.log(UNLIFTED_STD)))


def settings_of(row: Row, args: argparse.Namespace, seed: int) -> ReconstructorTrainingConfig:
    """The row's configuration: alike for all but for what the row says."""
    steps = args.more if row.after else args.steps if not row.shown else args.steps + args.more
    common = [
        f"train.steps={steps}", f"train.seed={seed}", f"train.batch={args.batch}", f"train.validate_every={max(1, steps // 4)}",
        "projection.world=1", *(["train.lr=5e-4"] if row.after else []),
    ]  # fmt: skip
    if row.filmed:
        common += [f"sources.clips.path={args.videos}", f"sources.clips.cache={args.cache or 'null'}"]
    config: ReconstructorTrainingConfig = load_config(
        ReconstructorTrainingConfig, args.config, [*common, *args.overrides, *row.settings]
    )
    return config


class Latents(PoseFlow):
    """The flow in its chart's place."""

    def linear(self) -> PoseFlow:
        return self


class InLatents(Unfiltered):
    """Which says latents; what follows it speaks the chart. The variances, which the fit does not ask for, stay those of latents."""

    flow: PoseFlow

    def forward(self, obs: Observations, streaming: bool = False, dynamics: bool = False) -> tuple[Prediction, Traces]:
        prediction, traces = super().forward(obs, streaming, dynamics)
        pose = self.flow.decode(prediction.chart.mean)[0]
        chart = Gaussian(self.flow.linear().encode(pose)[0], prediction.chart.log_var)
        return prediction._replace(chart=chart), traces


def flow_of(row: Row) -> PoseFlow:
    """What the row's network is trained to speak."""
    flow = load_flow()
    if not row.latents:
        return flow
    latents = Latents(flow.config)
    latents.load_state_dict(flow.state_dict())
    return latents.eval()


def file_of(row: Row, args: argparse.Namespace, seed: int) -> Path:
    """Where the row's weights are kept."""
    number = [r.name for r in ROWS].index(row.name)
    return Path(args.out / f"row{number:02d}_seed{seed}.safetensors")


def learn(
    row: Row, args: argparse.Namespace, seed: int, clips: Sequence[PerceivedClip], captured: Captured, console: Console
) -> None:
    """Train the row's network and keep its weights."""
    path, config = file_of(row, args, seed), settings_of(row, args, seed)
    seed_everything(seed)
    lifter = load_lifter() if row.lifted else Unlifted()
    task = task_on(clips, config, captured, torch.device("cpu"), flow_of(row), lifter)
    if row.alone:
        task.module.encoder = FrameEncoder(config.model)
    if row.after:
        before = next(r for r in ROWS if r.name == row.after)
        task.module.load_own_state(load_file(file_of(before, args, seed)))
    with tempfile.TemporaryDirectory() as folder:
        result = fit(task, config.train, folder, run_config=config, progress=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in OwnWeights(task.module).state_dict().items()}, path)
    told = ", ".join(f"{k} {v:.1f}" for k, v in result.scores.items() if k.endswith(("d_pa_mpjpe", "d_mpjpe")))
    console.print(
        f"{row.name}, seed {seed}: {result.minutes:.1f} min, best at {result.step}; validation {told}", style="dim"
    )


def reconstructor_of(row: Row, args: argparse.Namespace, seed: int, body: Body) -> Reconstructor:
    """What the trained network makes of evidence."""
    config = settings_of(row, args, seed)
    dynamics = load_dynamics()
    made = Reconstructor(config.model, body, load_lifter(), load_flow(), dynamics, load_deviations())
    if not config.filter:
        made.network = Unfiltered(config.model, dynamics)
    if row.latents:
        made.network = InLatents(config.model, dynamics)
    if row.alone:
        made.network.encoder = FrameEncoder(config.model)
    made.network.load_own_state(load_file(file_of(row, args, seed)))
    if isinstance(made.network, InLatents):
        made.network.flow = made.flow
    made.network.eval()
    return made


Scores = dict[str, list[list[dict[str, float]]]]
"""By row: seeds, clips, metrics."""


Networks = list[list[tuple[Row, Reconstructor]]]
"""By seed: the rows."""


def measure(case: Case, evidence: Evidence, networks: Networks, body: Body, into: Scores) -> None:
    """All rows and seeds on one clip."""
    K = case.clip.K

    def keep(name: str, seed: int, motion: Motion) -> None:
        per_seed = into.setdefault(name, [[] for _ in (networks if name.endswith("network") else networks[:1])])
        per_seed[seed].append(score(motion, case, body))

    for i, rows in enumerate(networks):
        for row, made in rows:
            given = evidence if row.lifted else unlifted(evidence)
            keep(f"{row.name}|network", i, unfitted(made, given, K))
            if i == 0:
                keep(f"{row.name}|fitted", 0, made.reconstruct([given], K)[0])
    _, last = networks[0][-1]
    motions, terms = hypotheses.fit_all(last, evidence, K)
    likely = hypotheses.choose(terms, hypotheses.WEIGHTS["+ flow and dynamics"])
    best = int(np.argmin([score(m, case, body)["PA-MPJPE"] for m in motions]))
    keep("+ hypotheses, chosen by evidence, flow, dynamics|fitted", 0, motions[likely])
    keep("(hypotheses, chosen by the truth)|fitted", 0, motions[best])
    keep("+ refinement (parts, flow, dynamics)|fitted", 0, last.refine([motions[0]], [evidence])[0])


def table(title: str, scores: Scores) -> Sheet:
    """A row for each network, and what follows the fit under the last."""
    names = list(dict.fromkeys(name.split("|")[0] for name in scores))
    stages = ("network", "fitted")
    columns = [
        "",
        *(f"{m}, {stage}" for stage in stages for m in METRICS),
        *(f"paired PA, {stage}" for stage in stages),
    ]
    sheet = Sheet(title, columns)
    before: dict[str, list[list[dict[str, float]]]] = {}
    for name in names:
        cells, pairs = [name], []
        for stage in stages:
            found = scores.get(f"{name}|{stage}")
            cells += [_cell(found, metric) for metric in METRICS]
            pairs.append(_paired(found, before.get(stage)))
            if found is not None and f"{name}|network" in scores and not name.startswith("("):
                before[stage] = found
        sheet.rows.append([*cells, *pairs])
    return sheet


def _values(found: list[list[dict[str, float]]], metric: str) -> np.ndarray:
    return np.array([[clip.get(metric, math.nan) for clip in seed] for seed in found])


def _cell(found: list[list[dict[str, float]]] | None, metric: str) -> str:
    if found is None or np.isnan(values := _values(found, metric)).all():
        return ""
    clips = np.nanmean(values, 0)
    text = f"{np.nanmean(clips):.1f}"
    if len(clips) > 1:
        text += f" ± {np.nanstd(clips, ddof=1) / math.sqrt(len(clips)):.1f}"
    if len(values) > 1:
        text += f" ({np.nanmean(values, 1).std(ddof=1):.1f})"
    return text


def _paired(found: list[list[dict[str, float]]] | None, before: list[list[dict[str, float]]] | None) -> str:
    if found is None or before is None:
        return ""
    seeds = min(len(found), len(before))
    gain = (_values(found[:seeds], "PA-MPJPE") - _values(before[:seeds], "PA-MPJPE")).mean(0)
    spread = f" ± {gain.std(ddof=1) / math.sqrt(len(gain)):.1f}" if len(gain) > 1 else ""
    return f"{gain.mean():+.1f}{spread}"


def agreement(networks: Networks, clips: Sequence[Footage]) -> Sheet:
    """How rows with real clips agree with unseen ones, against the row without, over seeds."""
    sheet = Sheet(
        "Unseen real clips, the networks' own output", ("clip", "", "alignment", "of the row without", "plausibility")
    )  # fmt: skip
    config = AdaptationConfig(motions=1)
    for clip in clips:
        found: dict[str, list[Mapping[str, float]]] = {}
        for rows in networks:
            chosen = {row.name: made for row, made in rows if row.after == _LEARNED}
            task = AdaptationTask(next(iter(chosen.values())), [clip], [clip], config, torch.device("cpu"))
            for name, made in chosen.items():
                found.setdefault(name, []).append(dict(task.validate(made.network)))
        first = next(iter(found.values()))
        for name, seeds in found.items():
            ratios = [s["alignment"] / f["alignment"] - 1 for s, f in zip(seeds, first, strict=True)]
            nats = [s["plausibility"] - f["plausibility"] for s, f in zip(seeds, first, strict=True)]
            mean = f"{np.mean([s['alignment'] for s in seeds]):.3f}"
            sheet.rows.append([clip.path.stem, name, mean, _spread(ratios, 100, " %"), _spread(nats)])
    return sheet


def _spread(values: Sequence[float], scale: float = 1.0, unit: str = "") -> str:
    """Mean of signed numbers, and their standard deviation over seeds."""
    scaled = scale * np.array(values)
    return f"{scaled.mean():+.1f}{unit}" + (f" ({scaled.std(ddof=1):.1f})" if len(values) > 1 else "")


def looked_at(case: Case) -> Evidence | None:
    """Who is seen longest, by the default networks, with body parts for the refinement."""
    return longest(perceive(case.clip, config=PerceptionConfig(parts_interval_s=0.0)))


def _cases(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int, Iterator[Case]]]:
    """Titles of the tables, how many clips each has, and these."""
    wardrobe = None if args.wardrobe is None else Wardrobe.open(args.wardrobe)
    title = f"{args.rendered}{' dressed,' if wardrobe else ''} rendered clips of test subjects"
    yield title, args.rendered, rendered(args.data, args.rendered, folder, wardrobe)
    if args.real is not None:
        yield f"{args.real.name}, real, one view of four", 1, iter([real(args.real, args.reference)])


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="the prepared capture")
    p.add_argument("--perceived", type=Path, required=True, help="rendered clips, of 20 frames each or more")
    p.add_argument("--videos", type=Path, help="real clips to learn from; without them those rows are left out")
    p.add_argument("--cache", type=Path, help="folder for what was seen in the real clips")
    p.add_argument("--unseen", type=Path, help="real clips that are not learned from")
    p.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "configs" / "reconstructor.yaml")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="in all rows")
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--more", type=int, default=150)
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--train-only", action="store_true", help="several processes may train different seeds side by side")
    p.add_argument("--rendered", type=int, default=40, help="clips of the test subjects")
    p.add_argument("--wardrobe", type=Path, help="dress their people")
    p.add_argument("--real", type=Path, help="the real clip, and ...")
    p.add_argument("--reference", type=Path, help="... its triangulated landmarks")
    p.add_argument("--out", type=Path, default=Path("runs/ablation"), help="weights, and the tables")
    args = p.parse_args(argv)
    if (args.real is None) != (args.reference is None):
        p.error("--real and --reference go together")
    console = Console(width=200)
    rows = [r for r in ROWS if args.videos is not None or not r.filmed]
    missing = [(row, seed) for seed in args.seeds for row in rows if not file_of(row, args, seed).is_file()]
    if missing:
        captured = Captured(args.data, read_captures(args.data, "train"), read_captures(args.data, "validation"))
        clips = load_perceived(args.perceived)
        for row, seed in missing:
            learn(row, args, seed, clips, captured, console)
    if args.train_only:
        return 0
    body = Body.open("light")
    sheets, record = [], dict[str, Mapping[str, object]]()
    networks = [[(row, reconstructor_of(row, args, seed, body)) for row in rows if row.shown] for seed in args.seeds]
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        for title, count, cases in _cases(args, Path(scratch)):
            scores: Scores = {}
            for case in track(cases, title, count, console=console):
                evidence = looked_at(case)
                if evidence is not None:
                    measure(case, evidence, networks, body, scores)
            if scores:
                sheets.append(table(f"{title}, {len(args.seeds)} seeds, {commit()}", scores))
                sheets[-1].show(console)
                record[title] = scores
        if args.unseen is not None:
            sheets.append(agreement(networks, read_footage([args.unseen], args.cache)))
            sheets[-1].show(console)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "ablation.md").write_text("\n".join(s.markdown() for s in sheets), encoding="utf-8")
    (args.out / "ablation.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
