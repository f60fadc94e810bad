"""A tracker's live landmarks or rotations in, the filtered pose out at once: an extended Kalman filter on the prior."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..body import Body
from ..dynamics import State
from ..errors import ShapeError, UsageError, check_shape, check_type
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import NUM_BODY, SMPL_PARENTS
from ..tracks import ROOT
from .inputs import body_rotmat, tensor_of
from .motion_prior import MotionPrior

LANDMARK_STD = (0.01, 0.01, 0.02)
"""m, expected error of a landmark along each of its axes: across the image, down, and in depth.

A third of what landmark networks are off by, since much of that is the same from frame to frame and no filter's to remove,
and what is larger is bounded by :data:`OUTLIER`. Found on training motion: with three times as much the limbs follow 35 ms
late instead of 15, and are no nearer to the truth."""
ROTATION_STD = 0.03
"""rad, expected error of a rotation about each axis; found in the same way for rotations that are 0.05 rad off."""
OUTLIER = 3.0
"""Standard deviations from which on a measurement pulls less and less (Cauchy)."""

_USED = [0, 7, 8, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32]  # one landmark a body part
_HIPS, _SHOULDERS = [23, 24], [11, 12]
_Z, _ROOT, _RATE, _SIZE = slice(0, 63), slice(63, 66), slice(66, 69), slice(69, 70)  # places in the filter's state
_TURNING = slice(63, 69)  # both
_DIM = 70
_FIRST_STD = ((_ROOT, 0.5), (_RATE, 2.0), (_SIZE, 0.1))  # rad, rad/s, log of size: before anything is known
_SIZE_DRIFT = 0.02  # of the log of size, in a second
_FIRST_ITERATIONS = 6  # of Gauss-Newton where there is no good start yet
_EPS = 0.02  # step of the differences that linearise the chart


class Filtered(NamedTuple):
    """The person now.

    Attributes:
        body_pose: (23, 3) rad, SMPL's body joints relative to their parents; the hands are at rest.
        global_orient: (3,) rad, from the body (y up, facing +z) to the axes of what was measured.
        landmarks: (33, 3) m, BlazePose's landmarks of that body around the middle of its hips, in the person's size.
        size: the person's size over the body model's; 1 as long as no landmarks were given.
        observed: whether this frame's measurement took part.
    """

    body_pose: Tensor
    global_orient: Tensor
    landmarks: Tensor
    size: float
    observed: bool


class _Measured(NamedTuple):
    """M numbers against what the state predicts: their difference (M / 3, 3), its derivative (M / 3, 3, 70) by the state, and
    the precision of each number (M / 3, 3)."""

    error: Tensor
    jacobian: Tensor
    precision: Tensor


_Model = Callable[[Tensor, Tensor, Tensor], _Measured]


class LiveFilter:
    """One person's pose from a stream of measurements: BlazePose's 33 landmarks in 3D, or joint rotations.

    Between frames the motion prior's dynamics say where the pose should be now and how sure that is; each frame's
    measurement then pulls it there by a Gauss-Newton step. Time is what the time stamps say: any rate, jitter, lost frames.
    All state is in the object, one for each person; calls take frames in the order of time.

    Landmarks are in MediaPipe's axes (x right, y down, z away from the camera) or any others that do not turn with the
    person; where their origin lies does not matter, and the person's size is estimated. Rotations are SMPL's.

    >>> live = LiveFilter()
    >>> walking = torch.zeros(23, 3)                       # what a tracker says of one frame, rad
    >>> for frame in range(3):
    ...     now = live.rotations(frame / 30, walking, torch.tensor([3.14, 0.0, 0.0]))
    >>> now.body_pose.shape, now.observed
    (torch.Size([23, 3]), True)
    >>> live.rotations(3 / 30, None).observed              # nobody found: the motion goes on
    False
    >>> points = now.landmarks                             # (33, 3) m, here those of the pose itself
    >>> live.landmarks(4 / 30, points).landmarks.shape
    torch.Size([33, 3])

    A frame costs about 8 ms on one CPU core.
    """

    _time: float | None
    _last_seen: float | None
    _state: State

    def __init__(
        self,
        prior: MotionPrior | None = None,
        body: Body | None = None,
        *,
        betas: Tensor | None = None,
        iterations: int = 1,
        forget_after: float = 1.0,
    ) -> None:
        """Start without a person.

        Args:
            prior: the packaged one by default. Its type and device are the filter's.
            body: whose landmarks are compared with those measured; the light open body by default.
            betas: (10,) the person's shape where known; size apart, the mean shape by default.
            iterations: Gauss-Newton steps a frame; a second one gains a millimetre and costs a third more time.
            forget_after: s without a measurement after which the person is taken up anew.

        Raises:
            UsageError: ``iterations`` or ``forget_after`` out of range, what is no prior or no body.
            ShapeError: ``betas`` that are not (10,) numbers.
        """
        check_type("iterations", iterations, Integral)
        check_type("forget_after", forget_after, Real)
        if iterations < 1 or not forget_after > 0:
            raise UsageError(
                f"iterations, forget_after: expected at least 1 and above 0 s, got {iterations} and {forget_after}."
            )
        self.prior = MotionPrior.load() if prior is None else prior
        check_type("prior", self.prior, MotionPrior, "MotionPrior.load() gives the packaged prior.")
        self._like = self.prior.flow.whitening.mean
        self.body = Body.open("light") if body is None else copy.deepcopy(body)  # the caller's keeps its type
        check_type("body", self.body, Body)
        self.body.to(self._like)
        self.betas = self._like.new_zeros(10) if betas is None else self._numbers("betas", betas)
        check_shape("betas", self.betas, "10")
        self.iterations, self.forget_after = iterations, forget_after
        self._carries = _carries(self.body)
        self.reset()

    def reset(self) -> None:
        """Forget the person, and the time."""
        self._time = None
        self._forget()

    def landmarks(
        self,
        timestamp: float,
        points: np.ndarray | Tensor | None,
        visibility: np.ndarray | Tensor | None = None,
        *,
        std: tuple[float, float, float] = LANDMARK_STD,
    ) -> Filtered:
        """Take in one frame of landmarks.

        Args:
            timestamp: s, later than the last one.
            points: (33, 3) m, BlazePose's landmarks; None, or with NaN in them, where nobody was found.
            visibility: (33,) 0..1, by which landmarks count; None: all 1.
            std: m, their expected error along each axis: more smooths more and lags more.

        Raises:
            ShapeError: shapes that do not fit, a time stamp that is not later. UsageError: ``std`` not positive.
        """
        seen = self._tensor("points", points, (33, 3))
        weight = self._tensor("visibility", visibility, (33,))
        if not isinstance(std, Sequence | np.ndarray) or len(std) != 3 or not all(_positive(s) for s in std):
            raise UsageError(f"std: expected three lengths above 0 m, got {std!r}.")
        precision = 1 / self._like.new_tensor(std).square()
        used = precision.expand(len(_USED), 3)
        if weight is not None:
            used = used * weight[_USED, None].clamp(1e-3, 1)

        def model(pose: Tensor, x: Tensor, turn: Tensor) -> _Measured:
            assert seen is not None
            found, jacobian = self._linearise(pose, x, turn)
            target = seen - seen[_HIPS].mean(0)
            return _Measured((target - found)[_USED], jacobian[_USED], used)

        return self._frame(timestamp, None if seen is None else model, lambda: upright(seen))  # type: ignore[arg-type]

    def rotations(
        self,
        timestamp: float,
        body_pose: np.ndarray | Tensor | None,
        global_orient: np.ndarray | Tensor | None = None,
        *,
        std: float = ROTATION_STD,
    ) -> Filtered:
        """Take in one frame of rotations.

        Args:
            timestamp: s, later than the last one.
            body_pose: (23 or 21, 3) rad, SMPL's body joints relative to their parents, or matrices (23 or 21, 3, 3); None,
                or with NaN in it, where nobody was found.
            global_orient: (3,) rad, the root's rotation in any axes that do not turn with the person; None: not measured.
            std: rad, the rotations' expected error about each axis: more smooths more and lags more.

        Raises:
            ShapeError: shapes or values that do not fit, a time stamp that is not later. UsageError: ``std`` not positive.
        """
        if not _positive(std):
            raise UsageError(f"std: expected an angle above 0 rad, got {std!r}. 3 degrees are 0.05.")
        pose = None if body_pose is None else self._numbers("body_pose", body_pose)
        orient = self._tensor("global_orient", global_orient, (3,))
        if pose is not None and not bool(torch.isfinite(pose).all()):
            pose = None
        seen = None if pose is None else body_rotmat(pose)
        if seen is not None and seen.dim() != 3:
            raise ShapeError(f"body_pose: expected one frame, got shape {tuple(pose.shape)}. Give frames one by one.")  # type: ignore[union-attr]
        root = None if orient is None else rotvec_to_rotmat(orient)

        def model(pose: Tensor, x: Tensor, turn: Tensor) -> _Measured:
            assert seen is not None
            # A root that was not measured is about where it was: that keeps its covariance from growing for ever.
            measured = torch.cat(((pose[0] if root is None else root)[None], seen))
            error = rotmat_to_rotvec(pose[: 1 + NUM_BODY].mT @ measured)
            jacobian = pose.new_zeros(1 + NUM_BODY, 3, _DIM)
            jacobian[0, :, _ROOT] = torch.eye(3).to(pose)
            jacobian[1:, :, _Z] = turn.unflatten(0, (NUM_BODY, 3))
            precision = torch.full_like(error, 1 / std**2)
            if root is None:
                precision[0] = 1 / math.pi**2
            return _Measured(error, jacobian, precision)

        return self._frame(
            timestamp, None if seen is None else model, lambda: torch.eye(3).to(self._like) if root is None else root
        )

    # -- the filter ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _frame(self, timestamp: float, model: _Model | None, start: Callable[[], Tensor]) -> Filtered:
        """Let time pass, correct by what was measured, if anything; ``start`` gives the root of a person taken up anew."""
        timestamp = timestamp.item() if isinstance(timestamp, Tensor) else timestamp
        check_type("timestamp", timestamp, Real)
        if not math.isfinite(timestamp) or (self._time is not None and timestamp <= self._time):
            raise ShapeError(f"timestamp: expected seconds after the last frame's {self._time}, got {timestamp}.")
        if self._last_seen is not None and timestamp - self._last_seen > self.forget_after:
            self._forget()
        fresh = self._last_seen is None
        if model is not None and fresh:
            self._root = start()
        mean = self._predict(0.0 if self._time is None else timestamp - self._time)
        self._time = timestamp
        if model is None:
            x, body = mean, self.prior.chart.decode(mean[_Z])[0]
        else:
            x, body = self._correct(mean, model, _FIRST_ITERATIONS if fresh else self.iterations)
        pose = self._pose(body, x)
        if model is not None:
            self._state = self.prior.dynamics.update(self._state, x[_Z])
            self._rate = torch.zeros_like(x[_RATE]) if fresh else x[_RATE]
            self._size, self._last_seen = x[_SIZE], timestamp
        self._root = pose[0]
        rotvec = rotmat_to_rotvec(pose)
        points = self._around_hips(self.body.landmarks(self.betas, pose), x)
        return Filtered(rotvec[1:], rotvec[0], points, float(x[_SIZE].exp()), model is not None)

    def _forget(self) -> None:
        self._state = self.prior.dynamics.initial_state(())
        self._root = torch.eye(3).to(self._like)
        self._rate, self._size = self._like.new_zeros(3), self._like.new_zeros(1)
        self._covariance = self._like.new_zeros(_DIM, _DIM)
        self._last_seen = None

    def _predict(self, dt: float) -> Tensor:
        """Mean (70,) of the state now; its covariance goes to the object. The root turns on at its rate."""
        self._state = self.prior.dynamics.advance(self._state, dt)
        predictive = self.prior.dynamics.predict(self._state)
        P = self._like.new_zeros(_DIM, _DIM)
        eye = torch.eye(3).to(P)
        turning = torch.from_numpy(ROOT.transition(dt)).to(P)
        if self._last_seen is None:
            P[_Z, _Z] = torch.eye(63).to(P)
            for part, std in _FIRST_STD:
                P[part, part] = std**2 * torch.eye(part.stop - part.start).to(P)
        else:
            move = torch.eye(_DIM).to(P)
            move[_TURNING, _TURNING] = torch.kron(turning, eye)
            P = move @ self._covariance @ move.mT
            # The dynamics know how the last latent spreads; what was uncertain about that one adds to it.
            P[_Z, _Z] += predictive.covariance()
            P[_TURNING, _TURNING] += torch.kron(torch.from_numpy(ROOT.noise(dt)).to(P), eye)
            P[_SIZE, _SIZE] += _SIZE_DRIFT**2 * dt
        self._covariance = 0.5 * (P + P.mT)
        return torch.cat((predictive.mean, turning[0, 1] * self._rate, turning[1, 1] * self._rate, self._size))

    def _correct(self, mean: Tensor, model: _Model, iterations: int) -> tuple[Tensor, Tensor]:
        """Most likely state (70,) given the measurement, and its pose (21, 3, 3): Gauss-Newton on the measurement's errors
        plus the distance to the prediction."""
        inverse = torch.linalg.inv(self._covariance.double())
        # The chart is linearised once a frame, by differences, in one batch; every step reuses that.
        steps = mean[_Z] + _EPS * torch.cat((mean.new_zeros(1, 63), torch.eye(63).to(mean)))
        rotmat = self.prior.chart.decode(steps)[0]
        turn = rotmat_to_rotvec(rotmat[0].mT @ rotmat[1:]).flatten(1).T / _EPS  # (63 rotation axes, 63 latents)
        body, x = rotmat[0], mean
        for i in range(iterations):
            if i:
                body = self.prior.chart.decode(x[_Z])[0]
            error, jacobian, precision = model(self._pose(body, x), x, turn)
            precision = precision / (1 + (error.square() * precision).sum(-1, keepdim=True) / OUTLIER**2)
            J, W = jacobian.flatten(0, 1).double(), precision.flatten().double()
            information = (J.mT * W) @ J + inverse
            gradient = (J.mT * W) @ error.flatten().double() + inverse @ (mean - x).double()
            step = torch.linalg.solve(information, gradient).to(mean)
            x = x + step
        self._covariance = torch.linalg.inv(information).to(mean)
        # The last step is small: the pose turns along with it, which spares one pass through the chart.
        return x, body @ rotvec_to_rotmat((turn @ step[_Z]).unflatten(0, (NUM_BODY, 3)))

    def _linearise(self, pose: Tensor, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (33, 3) around the hips and their derivative (33, 3, 70) by the state."""
        joints = 1 + NUM_BODY
        rotations, positions = self.body.transforms(self.betas, pose)
        points = self.body.landmarks(self.betas, pose)
        arm = (points[:, None] - positions[None, :joints]) * self._carries[:, :joints, None]
        # Turning joint j about its own axis k moves a point it carries by (axis k in space) x (point - joint).
        local = torch.linalg.cross(rotations[None, :joints].mT, arm[:, :, None, :].expand(-1, -1, 3, -1))
        local = (local - local[_HIPS].mean(0)).movedim(-1, 1)  # (33 points, 3, joints, 3 axes)
        size, middle = x[_SIZE].exp(), self._around_hips(points, x)
        jacobian = x.new_zeros(len(points), 3, _DIM)
        jacobian[..., _Z] = size * (local[:, :, 1:].flatten(2) @ turn)
        jacobian[..., _ROOT] = size * local[:, :, 0]
        jacobian[..., _SIZE] = middle[..., None]
        return middle, jacobian

    def _pose(self, body: Tensor, x: Tensor) -> Tensor:
        """(24, 3, 3): the root turned by the state from where it was, the body's 21, hands at rest."""
        root = self._root @ rotvec_to_rotmat(x[_ROOT])
        return torch.cat((root[None], body, torch.eye(3).to(body).expand(2, 3, 3)))

    @staticmethod
    def _around_hips(points: Tensor, x: Tensor) -> Tensor:
        return x[_SIZE].exp() * (points - points[_HIPS].mean(0))

    def _numbers(self, name: str, value: np.ndarray | Tensor) -> Tensor:
        """What was given, wherever it lies, in the prior's type and on its device."""
        return (value if isinstance(value, Tensor) else tensor_of(name, value, self._like)).to(self._like)

    def _tensor(self, name: str, value: np.ndarray | Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
        """Checked; None where it is None or not finite."""
        if value is None:
            return None
        tensor = self._numbers(name, value)
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"{name}: expected {shape}, got {tuple(tensor.shape)}. Give frames one by one.")
        return tensor if bool(torch.isfinite(tensor).all()) else None


def _positive(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value) and float(value) > 0


def upright(points: Tensor) -> Tensor:
    """Root orientation (3, 3) told from hips and shoulders of landmarks (33, 3): x to the subject's left, y to the neck."""
    y = torch.nn.functional.normalize(points[_SHOULDERS].mean(0) - points[_HIPS].mean(0), dim=0)
    x = points[_HIPS[0]] - points[_HIPS[1]]
    x = torch.nn.functional.normalize(x - (x @ y) * y, dim=0)
    return torch.stack((x, y, torch.linalg.cross(x, y)), 1)


def _carries(body: Body) -> Tensor:
    """(33, 24) 1 where a joint's rotation moves a landmark."""
    table = torch.zeros(33, 24)
    for row, joint in enumerate(body.landmark_joints.tolist()):
        while joint >= 0:
            table[row, joint] = 1
            joint = SMPL_PARENTS[joint]
    return table.to(body.landmark_offsets)
