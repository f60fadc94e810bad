"""A module imports only from its own or a lower floor, and names say what is inside."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kinflow"
FLOORS = (
    {"errors", "skeleton", "rotations", "timing", "cameras", "devices", "config", "records"},
    {"clip", "evidence", "motion", "body", "video", "assets"},
    {"flow"},
    {"dynamics", "denoiser", "tracks", "perception"},
    {"prior", "losses", "metrics"},
    {"reconstruction"},
    {"world", "mocap", "datasets", "render", "formats"},
    {"training", "evaluation", "apps"},
    {"cli"},
)
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Top-level kinflow modules that a file imports anywhere in it."""
    package = ["kinflow", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{prefix}.{alias.name}" for alias in node.names]
        found |= {t.split(".")[1] for t in targets if t.startswith("kinflow.") and t.split(".")[1] in FLOOR}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_downwards(path: Path) -> None:
    name = top(path)
    if name == "__init__":
        return  # hands names on lazily
    assert name in FLOOR, f"{name} has no floor"
    above = {other for other in imported(path) if FLOOR[other] > FLOOR[name]}
    assert not above, f"{name} (floor {FLOOR[name]}) imports {above}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_purpose_each(path: Path) -> None:
    assert path.stem not in {"utils", "common", "helpers", "lib"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 550


def test_dynamics_alone_imports_torchdiffeq() -> None:
    imports = re.compile(r"^\s*(import|from) torchdiffeq\b", re.MULTILINE)
    assert {top(p) for p in FILES if imports.search(p.read_text(encoding="utf-8"))} == {"dynamics"}


def test_prior_pulls_in_no_video_rendering_training_or_data() -> None:
    code = (
        "import sys, kinflow.prior\n"
        "bad = ('kinflow.video', 'kinflow.render', 'kinflow.formats', 'kinflow.training', 'kinflow.mocap', 'kinflow.datasets', 'decord', 'av', 'cv2', 'torchdiffeq', 'scipy')\n"
        "print([m for m in sys.modules if m.startswith(bad)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
