"""Training in one process or in many: Lightning Fabric starts the others, averages their gradients and holds the precision.

Imported for its names alone without torch or Fabric, so that a command's help costs nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from ..errors import MissingAssetError, UsageError

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

    from ..config import TrainConfig

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""How processes share the work, by Fabric's names; all copy the network, which fits one device. ``"auto"``, with several
processes, is the last one: most networks leave some parameters out of some steps. Plain ``"ddp"`` does not look for them."""
PRECISIONS = ("auto", "fp32", "bf16")
_FABRICS = {"fp32": "32-true", "bf16": "bf16-mixed"}
log = logging.getLogger(__name__)


def launch(
    config: TrainConfig,
    device: torch.device | str = "cpu",
    *,
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
) -> Fabric:
    """A Fabric whose processes all run: with several devices, this very command is started again for each of the others.

    Where a launcher (torchrun, SLURM) has started the processes already, they find each other. On several nodes without
    one, start the command on each with ``MASTER_ADDR``, ``MASTER_PORT`` and ``NODE_RANK`` set.

    Args:
        config: gives the precision.
        device: the kind of device; with an index ("cuda:1"), that one alone.
        devices: processes on each node, one a device. num_nodes: machines. strategy: one of :data:`STRATEGIES`.

    Raises:
        MissingAssetError: Fabric is not installed.
        UsageError: more devices than there are, or processes that were started in another number.
    """
    import torch

    where = torch.device(device)
    _check(where, devices, num_nodes, strategy)
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise MissingAssetError("training: lightning-fabric is not installed. pip install 'kinflow[train]'.") from None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    many = devices * num_nodes > 1
    fabric = Fabric(
        accelerator=where.type,
        devices=devices if where.index is None else [where.index],
        num_nodes=num_nodes,
        strategy="ddp_find_unused_parameters_true" if many and strategy == "auto" else strategy,
        precision=_FABRICS[_precision(config, where)],  # type: ignore[arg-type]
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if "LOCAL_RANK" in os.environ and started != devices * num_nodes:
        raise UsageError(
            f"devices: expected {started} processes, as many as the launcher started, got {devices} on {num_nodes} "
            f"{'node' if num_nodes == 1 else 'nodes'}. Give --devices and --num-nodes as the launcher has them."
        )
    if many and "LOCAL_RANK" not in os.environ and devices > 1 and not os.path.isfile(sys.argv[0]):
        raise UsageError(
            f"devices: cannot start {sys.argv[0] or 'this'!r} again for the other processes. Run kinflow-train as a "
            "command, or start all processes with torchrun."
        )
    fabric.launch()
    return fabric


def _precision(config: TrainConfig, device: torch.device) -> str:
    """The one asked for, or the faster one here."""
    from ..devices import gains_by_bf16

    if config.precision != "auto":
        return config.precision
    chosen = "bf16" if gains_by_bf16(device) else "fp32"
    log.info("train.precision: %s, the faster one on this machine.", chosen)
    return chosen


def _check(device: torch.device, devices: int, num_nodes: int, strategy: str) -> None:
    import torch

    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if value < 1:
            raise UsageError(f"{name}: expected at least 1, got {value}.")
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device: expected cpu, cuda or mps for a training, got {device.type!r}.")
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type)
    if device.index is not None and devices > 1:
        raise UsageError(
            f"devices: expected 1 with the single device {device}, got {devices}. Use --device {device.type}."
        )
    if there is not None and devices > there:
        raise UsageError(f"devices: expected at most {there}, as many as are here, got {devices}.")
