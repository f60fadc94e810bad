"""Configurations: frozen dataclasses that hold every default, and a strict reader of YAML overrides.

Defaults live here, so an installed wheel runs from any folder; the files in ``configs/`` and ``--set key=value`` only
override. An unknown key, or a value of the wrong type, is an error that names the nearest known key.
"""

from __future__ import annotations

from .loading import config_hash, from_dict, load_config, to_dict
from .networks import (
    DenoiserConfig,
    DynamicsConfig,
    FitLossConfig,
    FlowConfig,
    LifterConfig,
    ReconstructorConfig,
    RefineConfig,
    TrainingLossConfig,
)
from .pipeline import PerceptionConfig, PipelineConfig, RenderBackend, RenderConfig, VideoConfig
from .training import (
    DenoiserTrainingConfig,
    DynamicsTrainingConfig,
    FlowTrainingConfig,
    LifterTrainingConfig,
    NoiseConfig,
    ProjectionConfig,
    ReconstructorTrainingConfig,
    TrainConfig,
)

__all__ = [
    "DenoiserConfig",
    "DenoiserTrainingConfig",
    "DynamicsConfig",
    "DynamicsTrainingConfig",
    "FitLossConfig",
    "FlowConfig",
    "FlowTrainingConfig",
    "LifterConfig",
    "LifterTrainingConfig",
    "NoiseConfig",
    "PerceptionConfig",
    "PipelineConfig",
    "ProjectionConfig",
    "ReconstructorConfig",
    "ReconstructorTrainingConfig",
    "RefineConfig",
    "RenderBackend",
    "RenderConfig",
    "TrainConfig",
    "TrainingLossConfig",
    "VideoConfig",
    "config_hash",
    "from_dict",
    "load_config",
    "to_dict",
]
