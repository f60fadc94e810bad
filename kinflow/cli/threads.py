"""How many threads the networks get, and that they wait without burning a core; decided before torch is loaded."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

__all__ = ["cores_granted", "settle_threads"]

COUNT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
CGROUPS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))  #: of version 2, and of 1


def settle_threads() -> None:
    """Choose number and waiting of OpenMP's threads, for this process and its children.

    By default a thread that has done its part spins until the others have done theirs. Beside another busy process that
    costs nine tenths of the speed: the spinner keeps the core from the very thread that it waits for. Here threads sleep.
    Their number is torch's own choice, one a core, unless a container grants less time than it shows cores.
    Variables that the user has set stay as they are; where torch is loaded already, nothing would come of them.
    """
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in WAITING):
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")  # GNU's, and LLVM's and Intel's
    granted = cores_granted()
    if granted < (os.cpu_count() or 1) and not any(name in os.environ for name in COUNT):
        os.environ["OMP_NUM_THREADS"] = str(max(1, math.floor(granted)))


def cores_granted() -> float:
    """Cores' worth of time that the control group grants this process; infinite without a limit."""
    for path in CGROUPS:
        try:
            words = path.read_text().split()
            period = words[1] if len(words) > 1 else path.with_name("cpu.cfs_period_us").read_text()
            return math.inf if words[0] in ("max", "-1") else float(words[0]) / float(period)
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return math.inf
