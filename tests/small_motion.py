"""A Motion of random numbers, as a reconstruction would leave it."""

from __future__ import annotations

import dataclasses

import numpy as np

from kinflow.motion import Motion


def a_motion(frames: int, seed: int = 0, *, optional: bool = False) -> Motion:
    """Of one person in camera axes alone, the third and fourth frame not observed; ``optional``: with every field there is."""
    rng = np.random.default_rng(seed)

    def values(field: dataclasses.Field[object]) -> object:
        if field.metadata["dtype"] in ("int", "str"):
            return {"int": 0, "str": "open"}[field.metadata["dtype"]]
        shape = [frames if d == "T" else int(d) for d in field.metadata["shape"].split()]
        return rng.normal(0, 0.3, shape).astype(field.metadata["dtype"])

    fields = {f.name: values(f) for f in dataclasses.fields(Motion) if optional or not f.metadata["optional"]}
    frame_ids = np.arange(10, 10 + frames)
    fields |= {"frame_ids": frame_ids, "timestamps": frame_ids / 24, "observed": ~np.isin(np.arange(frames), (2, 3))}
    return Motion(**fields)  # type: ignore[arg-type]
