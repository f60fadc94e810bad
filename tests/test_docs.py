"""What the documentation and --help show is run: python blocks on a rendered clip, command lines through the parsers.

A block that cannot run here is marked in its page: ``<!-- not run: why -->`` on the line before it.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_motion import a_motion
from swings import save_swings
from test_end_to_end import render_walk
from walker import rotvecs, walk

from kinflow.cli import bench, export, smooth, train, video, view
from kinflow.config import (
    DenoiserTrainingConfig,
    DynamicsTrainingConfig,
    FlowTrainingConfig,
    LifterTrainingConfig,
    PipelineConfig,
    ReconstructorTrainingConfig,
    load_config,
)
from kinflow.datasets.miniature import write_3dpw
from kinflow.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples/README.md",
    ROOT / "CONTRIBUTING.md",
]
PARSERS = {f"kinflow-{m.__name__.rpartition('.')[2]}": m.parser for m in (video, view, export, smooth, bench, train)}
FPS, FRAMES = 10, 27


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Line number and text of a page's fenced blocks that are not marked as not run."""
    fence = re.compile(
        rf"(?P<mark>^<!-- not run: .+ -->\n)?^```{language}\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
    )
    return [(page[: m.start("text")].count("\n") + 1, m["text"]) for m in fence.finditer(page) if not m["mark"]]


PYTHON = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"), "python")]
SHELL = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}:{number}: {line[:40]}")
    for page in PAGES
    for number, text in blocks(page.read_text(encoding="utf-8"), "sh")
    for line in text.splitlines()
    if re.search(r"kinflow-\w+ |python [\w/]+\.py ", line)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: a clip of 2.7 seconds, files of kinflow's and of another tracker's."""
    folder = tmp_path_factory.mktemp("reader")
    render_walk(folder / "clip.mp4", walk(FRAMES, FPS), FPS)
    (folder / "out").mkdir()
    a_motion(9).save(folder / "out/person00.npz")
    pose = rotvecs(walk(20)).numpy()
    np.savez(folder / "tracked.npz", body_pose=pose[:, 1:], global_orient=pose[:, 0], transl=np.zeros((20, 3)))
    save_swings(folder / "data/mocap.npz")
    write_3dpw(folder / "3DPW", sequences=1, frames=8, split="train", images=False)
    return folder


def at_hand() -> dict[str, Any]:
    """What the pages' readers have: a tracker's poses and landmarks, a loss, a filter's state."""
    import kinflow
    from kinflow.body import Body
    from kinflow.prior import LiveFilter, MotionPrior

    steps, prior = walk(6), MotionPrior.load()
    body_pose = rotvecs(steps)[None, :, 1:].requires_grad_()
    landmarks = Body.open("light").landmarks(torch.zeros(10), steps.pose_rotmat, steps.transl)
    state = prior.dynamics.initial_state(())
    x = prior.chart.encode(steps.pose_rotmat[0, 1:22])[0]
    return {
        "kinflow": kinflow, "MotionPrior": MotionPrior, "LiveFilter": LiveFilter, "prior": prior,
        "body_pose": body_pose, "timestamps": steps.timestamps, "data_term": body_pose.square().sum(), "weight": 1.0,
        "points": landmarks[0], "visibility": torch.ones(33), "state": prior.dynamics.update(state, x), "dt": 1 / 30, "x": x,
    }  # fmt: skip


class OneFrame(dict[str, Any]):
    """A stream's names: time goes on each time that it is asked for, and pose and root are those of one frame."""

    def __getitem__(self, name: str) -> Any:
        if name == "timestamp":
            self["now_s"] = self.get("now_s", 0.0) + 1 / 30
            return self["now_s"]
        if name == "global_orient":
            return torch.tensor([3.1, 0.0, 0.0])
        return super().__getitem__(name)


@pytest.mark.parametrize("page", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names = OneFrame(at_hand())
    for number, text in blocks(page.read_text(encoding="utf-8"), "python"):
        if "LiveFilter()" in text:
            names["body_pose"] = at_hand()["body_pose"][0, 0].detach()
        exec(compile("\n" * (number - 1) + text, str(page), "exec"), names)  # a traceback names the page's line
        names["body_pose"] = at_hand()["body_pose"]
    if page == ROOT / "README.md":
        check_shapes(names)


def check_shapes(names: dict[str, Any]) -> None:
    """The shapes that the README's comments tell."""
    walker, rows = names["walker"], len(names["walker"])
    assert walker.joints3d.shape == (rows, 24, 3) and walker.joints3d_std.shape == (rows, 24)
    assert walker.observed.shape == (rows,) and walker.vertices().shape == (rows, 12272, 3)
    assert names["nats"].shape == names["body_pose"].shape[:2] and names["nats"].requires_grad
    assert Path("out/overlay.mp4").is_file()


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Of a parser and of its subjects."""
    found = {o for action in parser._actions for o in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {o for subject in action.choices.values() for o in options(subject)}
    return found


def check_command(line: str) -> None:
    """Parse a documented command: what stands in [brackets] must be options that exist, the rest must parse."""
    words = shlex.split(re.sub(r"\[[^\]]*\]", "", line), comments=True)
    start = next(i for i, w in enumerate(words) if w in PARSERS)
    end = next((i for i, w in enumerate(words) if i > start and w in ("&&", "|", ";")), len(words))
    parser = PARSERS[words[start]]()
    unknown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.partition(words[start])[2].split("#")[0])) - options(
        parser
    )
    assert not unknown, f"{line}: no such option"
    parser.parse_args(words[start + 1 : end])


@pytest.mark.parametrize("line", SHELL)
def test_command_lines_parse(line: str) -> None:
    if "kinflow-" in re.sub(r"#.*", "", line):
        check_command(line)
        return
    script = re.search(r"python ([\w/]+\.py)", line)
    assert script is not None
    source = (ROOT / script[1]).read_text(encoding="utf-8")
    for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.partition(script[1])[2].split("#")[0]):
        assert f'"{flag}"' in source, f"{script[1]} has no {flag}"


@pytest.mark.parametrize("command", PARSERS)
def test_examples_of_help_parse(command: str) -> None:
    text = PARSERS[command]().format_help()
    for line in re.findall(rf"^ +({command} \S+ .+)$", text.partition("examples:")[2], re.MULTILINE):
        check_command(re.split(r"\s{2,}", line)[0])


TRAININGS = (
    FlowTrainingConfig, DynamicsTrainingConfig, DenoiserTrainingConfig, LifterTrainingConfig, ReconstructorTrainingConfig,
)  # fmt: skip
SETTING = r"(?:[a-z][a-z_0-9]*\.)+[a-z][a-z_0-9]*"


def exists(setting: str, configs: Sequence[type]) -> bool:
    """Whether KEY=VALUE is a setting of one of the configs."""
    for config in configs:
        with contextlib.suppress(ConfigError):
            load_config(config, overrides=[setting])
            return True
    return False


@pytest.mark.parametrize("command", PARSERS)
def test_every_setting_of_help_exists(command: str) -> None:
    named = re.findall(rf"\b{SETTING}=[^\s;,]+", PARSERS[command]().format_help())
    configs = {"kinflow-video": (PipelineConfig,), "kinflow-train": TRAININGS}.get(command, ())
    assert bool(named) == bool(configs)  # kinflow-smooth has no --set, kinflow-bench's subjects have their own help
    assert [s for s in named if not exists(s, configs)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_setting_of_the_pages_exists(page: Path) -> None:
    named = re.findall(r"--set ([a-z_.0-9]+=[^\s`),;]+)", page.read_text(encoding="utf-8"))
    assert [s for s in named if s != "key=value" and not exists(s, (PipelineConfig, *TRAININGS))] == []


def test_a_wrong_setting_is_found() -> None:
    assert not exists("perception.min_seconds=1", (PipelineConfig, *TRAININGS))


def test_a_wrong_option_is_found() -> None:
    for line in (
        "kinflow-video CLIP -o OUT --refined",
        "kinflow-smooth IN -o OUT [--strength 3]",
        "kinflow-train flows",
    ):
        with pytest.raises((AssertionError, SystemExit)):
            check_command(line)


def test_marked_blocks_are_not_run() -> None:
    page = "a\n<!-- not run: needs a model -->\n```python\none\n```\n\n```python\ntwo\n```\n```sh\nthree\n```\n"
    assert blocks(page, "python") == [(8, "two\n")]


def test_the_oldest_torch_is_told_and_older_than_the_pinned_one() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (oldest,) = re.findall(r"^torch>=(.+)$", setup["options"]["install_requires"], re.MULTILINE)
    (pinned,) = re.findall(r"^torch==(.+)$", (ROOT / "tools" / "constraints.txt").read_text(), re.MULTILINE)
    assert f"torch {oldest} or newer" in (ROOT / "CHANGELOG.md").read_text()
    assert (2, 8) <= _version(oldest) <= _version(pinned)  # 2.6 lacks what is called, 2.7 crashes beside OpenVINO
    assert _version(oldest) <= _version(torch.__version__)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:2])
