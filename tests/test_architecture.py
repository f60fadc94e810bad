"""The tree holds to the table of rooms and floors: imports go downwards, in no circle, and names say what is inside.

Each check takes a tree, so that the tests at the end can plant a fault in a copy of ours and see it found.
"""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    {"errors", "skeleton", "rotations", "timing", "cameras", "devices", "config", "records"},
    {"clip", "evidence", "motion", "body", "video", "assets"},
    {"flow"},
    {"dynamics", "denoiser", "tracks", "perception"},
    {"prior", "losses", "metrics"},
    {"reconstruction"},
    {"world", "mocap", "datasets", "render", "formats"},
    {"training", "evaluation", "apps"},
    {"cli", "__main__"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
NAMES_OF_NOTHING = {"utils", "util", "common", "helpers", "helper", "lib", "misc"}
LONGEST = 500
"""Lines of a file."""

Graph = dict[str, set[str]]


# -- reading a tree ----------------------------------------------------------------------------------------------------


def files(root: Path, *folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (root / folder).rglob("*.py"))


def dotted(root: Path, path: Path) -> str:
    """kinflow/render/shading.py -> kinflow.render.shading; a package is its __init__."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The first name below kinflow; kinflow itself, which hands names on lazily, is "kinflow"."""
    return module.split(".")[1] if "." in module else module


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that can run, inside functions too: all but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield from imports(other)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        else:
            yield from imports(node)


@functools.cache
def imports_of(source: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    return tuple(imports(ast.parse(source)))


def import_graph(root: Path) -> Graph:
    """Module -> the kinflow modules that it imports anywhere in it.

    That importing ``a.b`` also runs ``a/__init__.py`` is left out: a room's face may name all that is in the room.
    """
    paths = {dotted(root, p): p for p in files(root, "kinflow")}
    graph: Graph = {}
    for module, path in paths.items():
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        targets: list[str] = []
        for node in imports_of(path.read_text(encoding="utf-8")):
            if isinstance(node, ast.Import):
                targets += [alias.name for alias in node.names]
                continue
            base = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            targets += [f"{source}.{alias.name}" for alias in node.names]
        # A name that is no module is defined in the module before the last dot.
        known = {t if t in paths else t.rpartition(".")[0] for t in targets if t.split(".")[0] == "kinflow"}
        graph[module] = known - {module}
    return graph


def circle(graph: Graph) -> list[str]:
    """One shortest way from a node back to itself, [] where there is none."""
    shortest: list[str] = []
    for start in sorted(graph):
        ways, seen = [[start]], set[str]()
        for way in ways:
            if shortest and len(way) + 1 >= len(shortest):
                break
            for target in sorted(graph.get(way[-1], ())):
                if target == start:
                    shortest = [*way, start]
                elif target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
    return shortest


# -- the checks: each returns what is wrong, a line a fault ------------------------------------------------------------


def unknown_rooms(root: Path) -> list[str]:
    rooms = {room(module) for module in import_graph(root)} - {"kinflow"}
    return [f"kinflow/{name}: has no floor" for name in sorted(rooms - set(FLOOR))]


def upward_imports(root: Path) -> list[str]:
    return [
        f"{module} (floor {FLOOR[room(module)]}) imports {target} (floor {FLOOR[room(target)]})"
        for module, targets in import_graph(root).items()
        for target in sorted(targets)
        if FLOOR.get(room(module), 99) < FLOOR.get(room(target), 0)
    ]


def circles(root: Path) -> list[str]:
    """A circle of modules, wherever it runs, and one of rooms on one floor."""
    graph = import_graph(root)
    rooms: Graph = {}
    for module, targets in graph.items():
        rooms.setdefault(room(module), set()).update({room(t) for t in targets} - {room(module), "kinflow"})
    return [" -> ".join(found) for found in (circle(graph), circle(rooms)) if found]


def empty_names(root: Path) -> list[str]:
    names = {part for p in files(root, "kinflow", "tools", "benchmarks") for part in p.relative_to(root).parts}
    return [f"{name}: says nothing" for name in sorted(names) if name.removesuffix(".py") in NAMES_OF_NOTHING]


def long_files(root: Path) -> list[str]:
    sizes = {
        p: p.read_text(encoding="utf-8").count("\n") for p in files(root, "kinflow", "tools", "benchmarks", "examples")
    }
    return [f"{p.relative_to(root)}: {size} lines" for p, size in sizes.items() if size > LONGEST]


def foreign_solvers(root: Path) -> list[str]:
    """Only the dynamics integrate ordinary differential equations."""
    faults = []
    for path in files(root, "kinflow"):
        for node in imports_of(path.read_text(encoding="utf-8")):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(n.split(".")[0] == "torchdiffeq" for n in names) and room(dotted(root, path)) != "dynamics":
                faults.append(f"{path.relative_to(root)}: imports torchdiffeq")
    return faults


CHECKS: tuple[Callable[[Path], list[str]], ...] = (
    unknown_rooms,
    upward_imports,
    circles,
    empty_names,
    long_files,
    foreign_solvers,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_tree(check: Callable[[Path], list[str]]) -> None:
    assert check(ROOT) == []


FOREIGN_TO_THE_PRIOR = (
    *("kinflow.video", "kinflow.render", "kinflow.formats", "kinflow.training", "kinflow.mocap", "kinflow.datasets"),
    *("decord", "av", "cv2", "smplx", "rich", "matplotlib"),
    # Seconds of a tracker's start, for nothing that the prior does before it is asked.
    *("torch._dynamo", "torch._inductor", "sympy", "roma", "scipy", "torchdiffeq", "einops"),
)


def test_prior_pulls_in_no_video_rendering_training_data_or_slow_starters() -> None:
    code = f"""
import sys, torch
torchs = set(sys.modules)
import kinflow.prior
print([m for m in sys.modules if m not in torchs and f"{{m}}.".startswith({tuple(f"{m}." for m in FOREIGN_TO_THE_PRIOR)})])
print([m for m in torchs if m.startswith("kinflow")])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split("\n")[:2] == ["[]", "[]"]


# -- the checks are checked --------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of our sources, to plant faults in."""
    for path in files(ROOT, "kinflow", "tools", "benchmarks", "examples"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def plant(tree: Path, path: str, line: str) -> None:
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text((target.read_text() if target.exists() else "") + line + "\n")


INSIDE_A_FUNCTION = "def late() -> None:\n    "


@pytest.mark.parametrize(
    ("check", "path", "line", "told"),
    [
        (upward_imports, "kinflow/rotations.py", "from .body import Body", "kinflow.rotations (floor 0) imports kinflow.body (floor 1)"),
        (upward_imports, "kinflow/flow/chart.py", "import kinflow.training.loop", "imports kinflow.training.loop (floor 7)"),
        (upward_imports, "kinflow/prior/core.py", INSIDE_A_FUNCTION + "from .. import apps", "kinflow.prior.core (floor 4) imports kinflow.apps"),
        (circles, "kinflow/render/fragments.py", "from .rasteriser import rasterise", "kinflow.render.fragments -> kinflow.render.rasteriser -> kinflow.render.fragments"),
        (circles, "kinflow/render/fragments.py", INSIDE_A_FUNCTION + "from . import shading", "kinflow.render.fragments -> kinflow.render.shading -> kinflow.render.fragments"),
        (circles, "kinflow/render/fragments.py", INSIDE_A_FUNCTION + "from ..render import overlay", "kinflow.render -> kinflow.render.fragments -> kinflow.render"),
        (circles, "kinflow/render/fragments.py", "import kinflow.datasets.synthetic", "datasets -> render -> datasets"),
        (empty_names, "kinflow/render/utils.py", "", "utils.py: says nothing"),
        (empty_names, "tools/common.py", "", "common.py: says nothing"),
        (unknown_rooms, "kinflow/cellar/wine.py", "", "kinflow/cellar: has no floor"),
        (unknown_rooms, "kinflow/attic.py", "", "kinflow/attic: has no floor"),
        (long_files, "tools/build_open_body.py", "\n" * LONGEST, "tools/build_open_body.py: "),
        (foreign_solvers, "kinflow/denoiser/gp.py", INSIDE_A_FUNCTION + "from torchdiffeq import odeint", "kinflow/denoiser/gp.py: imports torchdiffeq"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(
    tree: Path, check: Callable[[Path], list[str]], path: str, line: str, told: str
) -> None:
    before = check(tree)
    plant(tree, path, line)
    assert any(told in fault for fault in set(check(tree)) - set(before))


@pytest.mark.parametrize("line", ["from .render import overlay", "import kinflow.render"])
def test_what_only_type_checkers_read_is_allowed(tree: Path, line: str) -> None:
    plant(tree, "kinflow/rotations.py", f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line}")
    assert upward_imports(tree) == [] and circles(tree) == []
