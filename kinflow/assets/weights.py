"""Network weights: safetensors with the network's configuration in the header and a card beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..config import config_hash, from_dict, to_dict
from ..errors import ConfigError, FormatError, MissingAssetError, check_path
from ..records import atomic_write

C = TypeVar("C")
M = TypeVar("M", bound=torch.nn.Module)


def save_weights(path: str | Path, module: torch.nn.Module, config: Any, card: dict[str, Any]) -> Path:
    """Write ``module``'s state to ``path`` and a readable card to the same name with ``.md``.

    Args:
        path: ends in ``.safetensors``.
        config: the dataclass the module was built from; travels in the file.
        card: what a user should know: data, training time, scores, licence. Values are printed as they are.
    """
    path = Path(path)
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    described = {"config": to_dict(config), "config_hash": config_hash(config), "card": card}
    with atomic_write(path) as stream:
        stream.write(safetensors.torch.save(state, {"kinflow": json.dumps(described, default=str)}))
    lines = [f"# {path.name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in {**card, "config hash": config_hash(config)}.items()]
    with atomic_write(path.with_suffix(".md")) as stream:
        stream.write(("\n".join(lines) + "\n").encode())
    return path


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Read what :func:`save_weights` wrote: (state dict, configuration, {"config_hash", "card"}).

    Raises:
        MissingAssetError: no such file.
        FormatError: damaged, or not a kinflow weight file.
    """
    path = check_path("weights", path)
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such weight file.")
    try:
        with safetensors.safe_open(str(path), framework="pt") as stream:
            header = json.loads((stream.metadata() or {}).get("kinflow", "null"))
            state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # SafetensorError, and what its binding, json and torch raise on damaged headers
        raise FormatError(f"{path}: not a readable safetensors file ({error}).") from error
    known = {"config": dict, "config_hash": str, "card": dict}
    if not isinstance(header, dict) or any(not isinstance(header.get(k), kind) for k, kind in known.items()):
        raise FormatError(f"{path}: has no kinflow header. Use weights written by kinflow-train.")
    return state, header.pop("config"), header


def load_module(path: str | Path, what: str, config_type: type[C], build: Callable[[C], M]) -> M:
    """The network that :func:`save_weights` wrote, built from its configuration, with its weights, in evaluation mode.

    Args:
        what: it is, for the message.

    Raises:
        MissingAssetError: no such file.
        FormatError: not a kinflow weight file, another network's, or NaN or inf in it.
    """
    state, values, _ = load_weights(path)
    try:
        module = build(from_dict(config_type, values))
        module.load_state_dict(state)
    except (ConfigError, RuntimeError) as error:
        raise FormatError(f"{path}: expected weights of {what}, got others ({error}).") from error
    if bad := [key for key, value in state.items() if not bool(torch.isfinite(value).all())]:
        raise FormatError(f"{path}: expected finite weights, got NaN or inf in {bad[0]}. Copy the file again.")
    return module.eval()
