"""kinflow: ordinary video into moving 3D people.

>>> import kinflow
>>> people = kinflow.reconstruct("clip.mp4")  # doctest: +SKIP

The public names are imported on first use (PEP 562), so that ``import kinflow.prior`` pulls in no video, rendering,
training or data module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and the API page see of the names that __getattr__ hands on
    from .apps.options import RunOptions as RunOptions
    from .apps.video import reconstruct as reconstruct
    from .apps.video import run as run
    from .body import Body as Body
    from .clip import Clip as Clip
    from .errors import KinflowError as KinflowError
    from .evidence import Evidence as Evidence
    from .formats.exports import export as export
    from .motion import Motion as Motion
    from .perception import perceive as perceive
    from .prior import MotionPrior as MotionPrior
    from .world import place as place

__version__ = "0.1.0"

_PUBLIC = {
    "reconstruct": "kinflow.apps.video",
    "run": "kinflow.apps.video",
    "RunOptions": "kinflow.apps.options",
    "export": "kinflow.formats.exports",
    "Clip": "kinflow.clip",
    "perceive": "kinflow.perception",
    "Evidence": "kinflow.evidence",
    "Motion": "kinflow.motion",
    "Body": "kinflow.body",
    "MotionPrior": "kinflow.prior",
    "place": "kinflow.world",
    "KinflowError": "kinflow.errors",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kinflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
