"""The commands settle OpenMP's threads before torch is loaded, and never against the user's own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kinflow.cli import threads

ASK = """
import json, os, sys
before = dict(os.environ)
from kinflow.cli.command import new_parser, run_command
def action(args):
    assert "torch" not in sys.modules
    print(json.dumps({k: v for k, v in os.environ.items() if before.get(k) != v}))
run_command(new_parser("tool", "A tool."), action, [])
"""


def settled(**environment: str) -> dict[str, str]:
    """What a command changes of its environment."""
    names = (*threads.COUNT, *threads.WAITING)
    clean = {k: v for k, v in os.environ.items() if k not in names}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    changed: dict[str, str] = json.loads(done.stdout)
    return changed


def test_commands_let_threads_sleep_while_they_wait() -> None:
    assert settled().items() >= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}.items()


@pytest.mark.parametrize("name", threads.WAITING)
def test_the_users_own_waiting_stays(name: str) -> None:
    assert not settled(**{name: "7"}).keys() & set(threads.WAITING)


@pytest.mark.parametrize(
    ("content", "cores"),
    [("150000 100000\n", 1.5), ("max 100000\n", float("inf")), ("nonsense\n", float("inf"))],
)
def test_a_containers_quota(content: str, cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(threads, "CGROUPS", (tmp_path / "cpu.max",))
    assert threads.cores_granted() == cores
    (tmp_path / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    monkeypatch.setattr(threads, "CGROUPS", (tmp_path / "none", tmp_path / "cpu.cfs_quota_us"))
    assert threads.cores_granted() == 0.5


def test_no_more_threads_than_the_quota_and_the_users_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores_granted", lambda: 1.5)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(threads.sys, "modules", {})
    for given, wanted in (({}, "1"), ({"OMP_NUM_THREADS": "5"}, "5"), ({"MKL_NUM_THREADS": "5"}, None)):
        environment = dict(given)
        monkeypatch.setattr(threads.os, "environ", environment)
        threads.settle_threads()
        assert environment.get("OMP_NUM_THREADS") == wanted


def test_nothing_is_settled_once_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(threads.os, "environ", environment)
    assert "torch" in sys.modules
    threads.settle_threads()
    assert environment == {}
