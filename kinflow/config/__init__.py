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
    SidesConfig,
    TiltConfig,
    TrainingLossConfig,
    WeakLossConfig,
)
from .pipeline import PerceptionConfig, PipelineConfig, RenderBackend, RenderConfig, VideoConfig
from .training import (
    AdaptationConfig,
    ClipsConfig,
    DataSetConfig,
    DenoiserTrainingConfig,
    DynamicsTrainingConfig,
    FlowTrainingConfig,
    FramesDataSetConfig,
    LifterTrainingConfig,
    NoiseConfig,
    ProjectionConfig,
    ReconstructorTrainingConfig,
    SidesTrainingConfig,
    SourcesConfig,
    TrainConfig,
)

__all__ = [
    "AdaptationConfig",
    "ClipsConfig",
    "DataSetConfig",
    "DenoiserConfig",
    "DenoiserTrainingConfig",
    "DynamicsConfig",
    "DynamicsTrainingConfig",
    "FitLossConfig",
    "FlowConfig",
    "FlowTrainingConfig",
    "FramesDataSetConfig",
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
    "SidesConfig",
    "SidesTrainingConfig",
    "SourcesConfig",
    "TiltConfig",
    "TrainConfig",
    "TrainingLossConfig",
    "VideoConfig",
    "WeakLossConfig",
    "config_hash",
    "from_dict",
    "load_config",
    "to_dict",
]
