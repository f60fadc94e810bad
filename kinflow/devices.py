"""Where the networks run, and the memory that they leave."""

from __future__ import annotations

import ctypes
import sys
import time

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


def gains_by_bf16(device: torch.device) -> bool:
    """Whether products of matrices in bfloat16 are faster than in float32: measured, some milliseconds.

    Processors without its arithmetic take up to a hundred times as long, and no name of theirs says so.
    """

    def seconds(dtype: torch.dtype) -> float:
        x, taken = torch.ones(256, 256, dtype=dtype, device=device), []
        for _ in range(5):
            began = time.perf_counter()
            float((x @ x)[0, 0])  # waits for the device
            taken.append(time.perf_counter() - began)
        return min(taken)

    return seconds(torch.bfloat16) < seconds(torch.float32)


def give_back_memory() -> None:
    """Hand memory that is freed, but kept by the allocator for later, back to the system; does nothing where that is not glibc.

    Blocks of up to 32 MB are kept, and records that outlive a stage lie between them: what a long clip took in one stage would
    add to what it takes in the next.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
