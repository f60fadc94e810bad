"""Where the networks run, and the memory that they leave."""

from __future__ import annotations

import ctypes
import sys

import torch

from .errors import UsageError


def find_device(name: str | torch.device) -> torch.device:
    """The torch device a user means: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...

    Raises:
        UsageError: a device this machine, or this build of torch, does not have.
    """
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # a device that computes, unlike "meta"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: {name!r} is not to be had here ({reason}). Use auto or cpu.") from error
    return device


def give_back_memory() -> None:
    """Hand memory that is freed, but kept by the allocator for later, back to the system; does nothing where that is not glibc.

    Blocks of up to 32 MB are kept, and records that outlive a stage lie between them: what a long clip took in one stage would
    add to what it takes in the next.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
