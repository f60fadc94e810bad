"""A small, untrained reconstructor, and what it reads: bodies before a camera as observations, evidence and captures."""

from __future__ import annotations

import numpy as np
import torch

from kinflow.body import Body
from kinflow.config import (
    DynamicsConfig,
    FlowConfig,
    LifterConfig,
    ProjectionConfig,
    ReconstructorConfig,
    ReconstructorTrainingConfig,
    SourcesConfig,
    TrainConfig,
    TrainingLossConfig,
)
from kinflow.dynamics import LatentDynamics
from kinflow.evidence import Evidence
from kinflow.flow import PoseFlow
from kinflow.reconstruction import Observations, Reconstructor
from kinflow.reconstruction.lifting import Lifter
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.poses import Capture
from kinflow.training.streams.projected import ProjectedMotions, true_view
from kinflow.training.streams.sources import open_data_sets
from kinflow.training.tasks.reconstructor import ReconstructorTask

SMALL = ReconstructorConfig(width=24, blocks=1, recurrent=12, head_width=16, chunk=20, context=4)
DYNAMICS = DynamicsConfig(hidden=12, ode_hidden=12, head_hidden=16, components=2, rank=2, dropout=0.0)
FLOW = FlowConfig(layers=2, hidden=8, dropout=0.0)
LIFTER = LifterConfig(part_width=16, whole_width=16, blocks=1)


def observations(body: Body, batch: int = 2, steps: int = 9, seed: int = 0) -> Observations:
    """Bodies in random poses before a camera, seen exactly (float64)."""
    g = torch.Generator().manual_seed(seed)
    pose = rotvec_to_rotmat(0.3 * torch.randn(batch, steps, 24, 3, generator=g))
    pose[:, :, 0] = torch.diag(torch.tensor([1.0, -1, -1])) @ pose[:, :, 0]
    transl = torch.tensor([0.4, -0.2, 5.0]) + 0.3 * torch.randn(batch, 1, 3, generator=g).expand(batch, steps, 3)
    landmarks = body.landmarks(torch.zeros(10), pose, transl).double()
    K = torch.tensor([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]], dtype=torch.float64).expand(batch, 3, 3)
    ray, pixels = true_view(landmarks, K)
    world = (landmarks - landmarks[..., [23, 24], :].mean(-2, keepdim=True)) @ ray
    seen = torch.ones(batch, steps, dtype=torch.bool)
    times = torch.arange(steps, dtype=torch.float64).expand(batch, steps) / 25
    confidence = 0.5 + 0.5 * torch.rand(batch, steps, 33, generator=g, dtype=torch.float64)
    return Observations(pixels, confidence, world, seen, seen.clone(), seen.clone(), times, K)


def evidence_of(obs: Observations, row: int = 0, gap: slice | None = None) -> Evidence:
    steps = obs.observed.shape[1]
    observed = np.ones(steps, bool)
    if gap is not None:
        observed[gap] = False

    def where_seen(x: torch.Tensor) -> np.ndarray:
        values = x[row].numpy().copy()
        values[~observed] = 0
        return values

    return Evidence(
        person_id=row,
        frame_ids=np.arange(steps),
        timestamps=obs.timestamps[row].numpy(),
        observed=observed,
        keypoints2d=where_seen(obs.keypoints2d),
        confidence=where_seen(obs.confidence),
        world_landmarks=where_seen(obs.world),
        has_world=observed,
        world_std=where_seen(torch.full((*obs.observed.shape, 33, 2), 0.05)),
        boxes_xyxy=np.zeros((steps, 4)),
        rois=np.tile([320.0, 240, 300, 0], (steps, 1)),
        image_size=np.array([640, 480]),
        masks=np.full((steps, 64, 64), 255, np.uint8),
    )


def untrained(body: Body, config: ReconstructorConfig = SMALL) -> Reconstructor:
    """The same weights for one configuration every time."""
    torch.manual_seed(3)
    return Reconstructor(config, body, Lifter(LIFTER), PoseFlow(FLOW), LatentDynamics(DYNAMICS))


def captures(count: int = 3, frames: int = 200) -> list[Capture]:
    out = []
    for i in range(count):
        g = torch.Generator().manual_seed(i)
        steps = torch.arange(frames)[:, None, None] / 60
        pose = 0.4 * torch.randn(1, 21, 3, generator=g) * torch.sin(2 * steps + i)
        path = torch.cat((steps[:, 0], torch.ones(frames, 1), torch.zeros(frames, 1)), -1)
        out.append(Capture(f"clip{i}", pose, torch.eye(3).expand(frames, 3, 3), path, 60.0))
    return out


def training_task(
    body: Body, losses: TrainingLossConfig | None = None, sources: SourcesConfig | None = None
) -> ReconstructorTask:
    projection = ProjectionConfig(frames=8, gaps=1.0)
    config = ReconstructorTrainingConfig(
        model=SMALL,
        losses=losses or TrainingLossConfig(),
        train=TrainConfig(batch=4 if sources is None else 8),
        projection=projection,
        sources=sources or SourcesConfig(),
        decoded=4,
        validation=4,
    )
    flow = PoseFlow(FLOW).eval()
    stream = ProjectedMotions(captures(), body, projection, flow)
    validation = {"projected": stream.draw(np.random.default_rng(1), 4)}
    dynamics = LatentDynamics(DYNAMICS)
    lifter = Lifter(LIFTER)
    return ReconstructorTask(config, flow, dynamics, body, lifter, stream, None, validation, torch.device("cpu"),
        open_data_sets(config.sources, body, projection.frames),
    )  # fmt: skip
