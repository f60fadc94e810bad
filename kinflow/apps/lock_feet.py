"""Feet that stand are held where they stand: legs of smoothed motions bent to their contacts."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from ..body import Body
from ..body.kinematics import full_pose
from ..body.soles import soles_of
from ..formats.pose_files import Array
from ..prior import MotionPrior
from ..prior.contacts import GROUND
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..world.legs import bend, limbs_of, posed, with_legs

_QUARTER = math.pi / 2
AXES = {
    "x": (0.0, 0.0, _QUARTER), "y": (0.0, 0.0, 0.0), "z": (-_QUARTER, 0.0, 0.0),
    "-x": (0.0, 0.0, -_QUARTER), "-y": (math.pi, 0.0, 0.0), "-z": (_QUARTER, 0.0, 0.0),
}  # fmt: skip
"""Names of directions in a file's own axes, and the rotation vectors that turn each to y."""


@torch.no_grad()
def lock_feet(
    body_rotmat: Array, root_rotmat: Array, transl: Array, timestamps: Array, valid: NDArray[np.bool_], up: str,
    prior: MotionPrior,
) -> tuple[Array, tuple[float, float]]:  # fmt: skip
    """One person's body pose (T, 21, 3, 3) with hips, knees and ankles bent so that feet that stand stay on their spot and on
    the ground; the root stays as it is.

    The body is the open one of mean shape, the ground level, at the height at which the lowest soles mostly are.

    Args:
        body_rotmat, root_rotmat (T, 3, 3), transl (T, 3) m, timestamps (T,) s: of the motion in the file's axes.
        valid: (T,) frames that have a pose; the others stay as they are.
        up: which of :data:`AXES` is up.

    Returns:
        The pose, and how far parts of feet that stand move from frame to frame before and after, mm; NaN where none stands.
    """
    rows = np.flatnonzero(valid)
    body, betas = Body.open("light"), torch.zeros(10)
    rest, soles = body.rest_joints(betas).double(), soles_of(body, betas).offsets.double()
    pose, root, place = (torch.from_numpy(np.asarray(x[rows], np.float64)) for x in (body_rotmat, root_rotmat, transl))
    times = torch.from_numpy(np.asarray(timestamps[rows], np.float64))
    turn = rotvec_to_rotmat(torch.tensor(AXES[up], dtype=torch.float64))
    above, pelvis = turn @ root, (place + rest[0]) @ turn.T
    given = (full_pose(pose)[None, :, 1:], rotmat_to_rotvec(above)[None], (pelvis - rest[0])[None], times)
    like = prior.flow.whitening.mean
    standing = prior.contacts(*(x.to(like.device) for x in given))[0].double().cpu()
    limbs = limbs_of(pose, above, pelvis, rest, soles)
    level = posed(limbs).soles[..., 1].amin((-1, -2)).quantile(GROUND)
    limbs = limbs._replace(pelvis=pelvis - level * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    # No camera has seen them: what is held a little looser is their height.
    vertical = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(len(rows), 3)
    bent = bend(limbs, limbs.pelvis, vertical, standing, times)
    out = body_rotmat.copy()
    out[rows] = with_legs(pose, bent).numpy()

    def slides(rotmat: torch.Tensor) -> float:
        feet = posed(limbs._replace(rotmat=rotmat)).soles.mean(-2)
        still = (standing[1:] > 0.5) & (standing[:-1] > 0.5)
        return 1000 * float(feet.diff(dim=0).norm(dim=-1)[still].mean())

    return out, (slides(limbs.rotmat), slides(bent))
