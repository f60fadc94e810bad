"""Long clips: the same numbers in pieces as at once, and memory that grows by the records alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_reconstructor import evidence_of, observations, untrained

from kinflow.body import Body
from kinflow.config import FitLossConfig, RefineConfig
from kinflow.reconstruction import refine
from kinflow.reconstruction.kernel import Kernel, kernel_of

# Its pictures are large enough for PyAV: decord, which reads smaller ones, keeps 60 MB of its own once it has seen a thousand.
MEASURE = """
import dataclasses, json, resource, sys, tempfile
from pathlib import Path
import numpy as np
import stub_front_end
from kinflow.apps.video import run
from kinflow.config import PipelineConfig
from kinflow.reconstruction import Reconstructor
from kinflow.video import VideoWriter

frames, people, refine = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "refine"
stub_front_end.install(people)
load = Reconstructor.load

def loaded(*args, **keywords):  # one step of a fit takes as much memory as all
    reconstructor = load(*args, **keywords)
    align = dataclasses.replace(reconstructor.config.align, iterations=1)
    reconstructor.config = dataclasses.replace(reconstructor.config, align=align)
    return reconstructor

Reconstructor.load = loaded
with tempfile.TemporaryDirectory() as folder:
    with VideoWriter(Path(folder) / "clip.mp4", (336, 240), 30) as video:
        for _ in range(frames):
            video.write(np.full((240, 336, 3), 100, np.uint8))
    config = PipelineConfig()
    config = dataclasses.replace(config, refine=dataclasses.replace(config.refine, iterations=1))
    result = run(Path(folder) / "clip.mp4", device="cpu", refine=refine, config=config)
    result.write(Path(folder) / "out", draw=False)
assert [len(m) for m in result.motions] == people * [frames]
records = [*result.motions, *result.evidences]
arrays = [v for r in records for v in vars(r).values() if isinstance(v, np.ndarray)]
size = sum({v.__array_interface__["data"][0]: v.nbytes for v in arrays}.values())  # some are in both, once
print(json.dumps({"records": size / 2**20, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}))
"""


def measured(frames: int, people: int, fit: str = "no fit") -> dict[str, float]:
    """MiB of the records, and at the peak, of a run in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", MEASURE, str(frames), str(people), fit]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{frames} frames of {people}, {fit}: records {found['records']:.0f} MiB, peak {found['peak']:.0f} MiB")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("people", "fit"), [(1, "no fit"), (5, "no fit"), (1, "refine"), (5, "refine")])
def test_ten_times_the_length_costs_the_records_and_a_tenth(people: int, fit: str) -> None:
    short, long = measured(600, people, fit), measured(6000, people, fit)
    assert long["peak"] - long["records"] <= 1.1 * (short["peak"] - short["records"])


def doubled(x: Any) -> Any:
    """Modules, tensors and records of them in float64."""
    if isinstance(x, torch.Tensor):
        return x.double() if x.is_floating_point() else x
    if isinstance(x, torch.nn.Module):
        return copy.deepcopy(x).double()
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(doubled, x))
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return dataclasses.replace(
            x, **{field.name: doubled(getattr(x, field.name)) for field in dataclasses.fields(x)}
        )
    return x


def test_a_fit_in_pieces_is_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body.open("light")
    obs = observations(body, batch=1, steps=50)
    evidence = evidence_of(obs, gap=slice(20, 24))
    reconstructor = untrained(body)
    (motion,) = reconstructor.reconstruct([evidence], obs.K[0])
    fitter = reconstructor.refiner(RefineConfig(iterations=3), FitLossConfig(contact_velocity=1.0))
    assert fitter.weights.parts > 0
    start, target = fitter.start(motion), refine.gather_target(motion, evidence, 128, torch.device("cpu"))
    exact, start, target = doubled(fitter), doubled(start), doubled(target)

    def gradients() -> list[torch.Tensor]:
        at = [start.chart, torch.zeros_like(start.transl), start.transl, start.betas]
        at = [x.clone().requires_grad_() for x in at]
        exact.objective(refine.Variables(*at), start, target)[0].backward()
        return [x.grad for x in at if x.grad is not None]

    whole, pulls = fitter.fit(motion, evidence), gradients()
    monkeypatch.setattr(refine, "_PIECE", 16)
    pieces = fitter.fit(motion, evidence)
    assert len(pulls) == 4
    for mine, pull in zip(gradients(), pulls, strict=True):
        torch.testing.assert_close(mine, pull, rtol=0, atol=1e-11)
    # Adam steps along its gradient's sign, so float32's rounding of one that is near 0 comes out as a hundredth of a step.
    for name, off in (("z", 1e-3), ("transl", 2e-4), ("betas", 1e-3), ("joints3d", 2e-4)):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), atol=off, err_msg=name)
        assert not np.array_equal(getattr(whole, name), getattr(motion, name))


def test_a_kernel_in_pieces_is_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, x = kernel_of(torch.arange(40.0)[None] / 30, 0.1), torch.randn(1, 40, 3)
    whole = kernel(x)
    monkeypatch.setattr("kinflow.reconstruction.kernel._PIECE", 7)
    assert isinstance(kernel, Kernel) and torch.equal(kernel(x), whole)
