"""An online filter behind MediaPipe's live landmarks: 33 world landmarks in, a body pose out, at once.

    python examples/live_filter.py CLIP              landmarks of a clip, frame by frame
    python examples/live_filter.py 0                 camera 0 (needs mediapipe and opencv)
    python examples/live_filter.py CLIP -o live.npz  keep the poses (SMPL parameters)

With mediapipe installed and a camera or clip given, its landmarks are used; otherwise kinflow's own BlazePose.
:class:`LandmarkFilter` itself takes plain arrays, so that it can stand behind anything.

The filter is an extended Kalman filter whose process model is the motion prior: between frames, the latent dynamics
says where the pose should be now and how sure that is; each frame's landmarks then pull it, by a Gauss-Newton step (several at the first frame).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinflow.body import Body
from kinflow.errors import KinflowError, NobodyFoundError, ShapeError, UsageError
from kinflow.losses import second_difference
from kinflow.prior import MotionPrior
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.skeleton import SMPL_PARENTS

LIMBS = [11, 12, 13, 14, 15, 16, 25, 26, 27, 28]  # shoulders, elbows, wrists, knees, ankles
USED = [0, 7, 8, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32]  # one point a body part
HIPS = [23, 24]
NOISE = torch.tensor([0.03, 0.03, 0.06])  # m, of a landmark across the image, down, and in depth
Z, ROOT, RATE, SIZE = slice(0, 63), slice(63, 66), slice(66, 69), slice(69, 70)  # places in the filter's state
_EPS = 0.02  # step of the differences that linearise the flow, in latents


class Filtered(NamedTuple):
    """``body_pose`` (23, 3) and ``global_orient`` (3,) rad, body to camera; ``landmarks`` (33, 3) m of that body, between
    the hips, in the observed person's size; ``seen``: whether this frame's landmarks took part."""

    body_pose: Tensor
    global_orient: Tensor
    landmarks: Tensor
    seen: bool


class LandmarkFilter:
    """Body pose from a stream of BlazePose world landmarks.

    Axes are MediaPipe's: x right, y down, z away from the camera; metres; the origin between the hips does not matter.

    >>> live = LandmarkFilter()                                             # doctest: +SKIP
    >>> pose = live(landmarks, visibility, timestamp).body_pose             # doctest: +SKIP
    """

    def __init__(
        self,
        prior: MotionPrior | None = None,
        body: Body | None = None,
        *,
        noise: float = 1.0,
        iterations: int = 1,
        forget_after: float = 1.0,
    ) -> None:
        """Args:
        noise: scales the landmarks' expected error; more smooths more and lags more.
        iterations: Gauss-Newton steps a frame; a second one gains a millimetre and costs a third more time.
        forget_after: s without landmarks after which the person is taken up anew.
        """
        if iterations < 1 or not noise > 0:
            raise UsageError(f"iterations, noise: expected at least 1 and above 0, got {iterations} and {noise}.")
        self.prior, self.body = prior or MotionPrior.load(), body or Body.open("light")
        self.std, self.iterations, self.forget_after = noise * NOISE, iterations, forget_after
        self.betas = torch.zeros(10)
        self.carries = _carries(self.body)
        self.reset()

    def reset(self) -> None:
        """Forget the person."""
        self.state = self.prior.dynamics.initial_state(())
        self.root = torch.eye(3)
        self.rate, self.size = torch.zeros(3), torch.zeros(())
        self.covariance = torch.zeros(70, 70)
        self.last_seen: float | None = None
        self.time: float | None = None

    @torch.no_grad()
    def __call__(self, landmarks: np.ndarray | Tensor | None, visibility: np.ndarray | Tensor | None, timestamp: float) -> Filtered:  # fmt: skip
        """One frame.

        Args:
            landmarks: (33, 3) m, or None where nobody was found.
            visibility: (33,) 0..1; None: all 1.
            timestamp: s, later than the last one.
        """
        points = None if landmarks is None else torch.as_tensor(landmarks, dtype=torch.float32)
        seen = torch.ones(33) if visibility is None else torch.as_tensor(visibility, dtype=torch.float32)
        if points is not None and (points.shape != (33, 3) or seen.shape != (33,)):
            raise ShapeError(
                f"landmarks, visibility: expected (33, 3) and (33,), got {tuple(points.shape)} and {tuple(seen.shape)}."
            )
        if points is not None and not bool(torch.isfinite(points).all()):
            points = None
        if self.time is not None and not timestamp > self.time:
            raise ShapeError(f"timestamp: expected more than the last frame's {self.time} s, got {timestamp}.")
        if self.last_seen is not None and timestamp - self.last_seen > self.forget_after:
            self.reset()
        if points is not None and self.last_seen is None:
            self.root = upright(points)
        mean = self._predict(0.0 if self.time is None else timestamp - self.time)
        self.time = timestamp
        if points is None:
            x, body = mean, self.prior.chart.decode(mean[Z])[0]
        else:
            x, body = self._correct(mean, points, seen)
        rotmat = self._pose(body, x)
        if points is not None:
            first = self.last_seen is None
            self.state = self.prior.dynamics.update(self.state, x[Z])
            self.rate, self.size, self.last_seen = x[RATE].clone(), x[SIZE][0], timestamp
            if first:
                self.rate = torch.zeros(3)
        self.root = rotmat[0]
        return Filtered(rotmat_to_rotvec(rotmat[1:]), rotmat_to_rotvec(rotmat[0]), self._landmarks(rotmat, x), points is not None)  # fmt: skip

    # -- the filter ---------------------------------------------------------------------------------------------------

    def _predict(self, dt: float) -> Tensor:
        """Mean (70,) of the state now; its covariance goes to ``self.covariance``. The root turns on at its rate."""
        self.state = self.prior.dynamics.advance(self.state, dt)
        predictive = self.prior.dynamics.predict(self.state)
        P = torch.zeros(70, 70)
        if self.last_seen is None:
            P[Z, Z] = torch.eye(63)
            P[ROOT, ROOT], P[RATE, RATE] = torch.eye(3) * 0.5**2, torch.eye(3) * 2.0**2
            P[SIZE, SIZE] = 0.1**2
        else:
            move = torch.eye(70)
            move[ROOT, RATE] = torch.eye(3) * dt
            P = move @ self.covariance @ move.mT
            # The dynamics knows how the last latent spreads; what was uncertain about that one adds to it.
            P[Z, Z] += predictive.covariance()
            drift = 20.0  # rad^2/s^3: how fast a body's turning changes
            P[ROOT, ROOT] += torch.eye(3) * drift * dt**3 / 3
            P[ROOT, RATE] += torch.eye(3) * drift * dt**2 / 2
            P[RATE, ROOT] += torch.eye(3) * drift * dt**2 / 2
            P[RATE, RATE] += torch.eye(3) * drift * dt
            P[SIZE, SIZE] += 0.02**2 * dt
        self.covariance = 0.5 * (P + P.mT)
        mean = torch.zeros(70)
        mean[Z], mean[ROOT], mean[RATE], mean[SIZE] = predictive.mean, self.rate * dt, self.rate, self.size
        return mean

    def _correct(self, mean: Tensor, points: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor]:
        """Most likely state (70,) given the landmarks, and its pose (21, 3, 3): Gauss-Newton on landmark errors plus
        distance to the prediction."""
        target = points - points[HIPS].mean(0)
        precision = torch.linalg.inv(self.covariance.double())
        # The flow is linearised once a frame, by differences, in one batch; every step reuses that.
        steps = mean[Z] + _EPS * torch.cat((torch.zeros(1, 63), torch.eye(63)))
        rotmat = self.prior.chart.decode(steps)[0]
        turn = rotmat_to_rotvec(rotmat[0].mT @ rotmat[1:]).flatten(1).T / _EPS  # (63 rotation axes, 63 latents)
        body, x = rotmat[0], mean.clone()
        for i in range(self.iterations if self.last_seen is not None else 6):
            if i:
                body = self.prior.chart.decode(x[Z])[0]
            pose = self._pose(body, x)
            found, jacobian = self._linearise(pose, x, turn)
            error = (target - found)[USED]
            weight = visibility[USED, None].clamp_min(1e-3) / self.std**2
            # Cauchy: landmarks far outside their noise hardly pull.
            weight = weight / (1 + (error.square() * weight).sum(-1, keepdim=True) / 9)
            J = jacobian[USED].flatten(0, 1).double()
            W = weight.flatten().double()
            information = (J.mT * W) @ J + precision
            gradient = (J.mT * W) @ error.flatten().double() + precision @ (mean - x).double()
            step = torch.linalg.solve(information, gradient).float()
            x = x + step
        self.covariance = torch.linalg.inv(information).float()
        # The last step is small: the pose turns along with it, which spares one pass through the flow.
        return x, body @ rotvec_to_rotmat((turn @ step[Z]).unflatten(0, (21, 3)))

    def _linearise(self, pose: Tensor, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (33, 3) between the hips and their derivative (33, 3, 70) by the state."""
        rotations, positions = self.body.transforms(self.betas, pose)
        points = self.body.landmarks(self.betas, pose)
        arm = (points[:, None] - positions[None, :22]) * self.carries[:, :22, None]
        # Turning joint j about its own axis k moves a point it carries by (axis k in space) x (point - joint).
        local = torch.linalg.cross(
            rotations[None, :22].mT, arm[:, :, None, :].expand(-1, -1, 3, -1)
        )  # (33, 22, 3 axes, 3)
        local = (local - local[HIPS].mean(0)).movedim(-1, 1)  # (33, 3, 22, 3)
        size = x[SIZE].exp()
        middle = size * (points - points[HIPS].mean(0))
        jacobian = torch.zeros(33, 3, 70)
        jacobian[..., Z] = size * (local[:, :, 1:].flatten(2) @ turn)
        jacobian[..., ROOT] = size * local[:, :, 0]
        jacobian[..., SIZE] = middle[..., None]
        return middle, jacobian

    def _pose(self, body: Tensor, x: Tensor) -> Tensor:
        """(24, 3, 3): the root turned by the state from where it was, the body's 21, hands at rest."""
        root = self.root @ rotvec_to_rotmat(x[ROOT])
        return torch.cat((root[None], body, torch.eye(3).expand(2, 3, 3)))

    def _landmarks(self, pose: Tensor, x: Tensor) -> Tensor:
        points = self.body.landmarks(self.betas, pose)
        return x[SIZE].exp() * (points - points[HIPS].mean(0))


def _carries(body: Body) -> Tensor:
    """(33, 24) 1 where a joint's rotation moves a landmark."""
    table = torch.zeros(33, 24)
    for row, joint in enumerate(body.landmark_joints.tolist()):
        while joint >= 0:
            table[row, joint] = 1
            joint = SMPL_PARENTS[joint]
    return table


def upright(points: Tensor) -> Tensor:
    """Root orientation (3, 3) told from hips and shoulders of landmarks (33, 3): x to the subject's left, y to the neck."""
    y = torch.nn.functional.normalize(points[[11, 12]].mean(0) - points[HIPS].mean(0), dim=0)
    x = points[23] - points[24]
    x = torch.nn.functional.normalize(x - (x @ y) * y, dim=0)
    return torch.stack((x, y, torch.linalg.cross(x, y)), 1)


# -- where landmarks come from --------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """``landmarks`` (33, 3) m or None, ``visibility`` (33,), ``timestamp`` s."""

    landmarks: np.ndarray | None
    visibility: np.ndarray
    timestamp: float


def mediapipe_frames(source: str, start: float | None = None, end: float | None = None) -> Iterator[Frame]:
    """Landmarks of a camera (a number) or a clip by MediaPipe Pose, as they come."""
    import cv2
    import mediapipe

    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    began = time.perf_counter()
    with mediapipe.solutions.pose.Pose() as pose:
        while True:
            good, image = capture.read()
            if not good:
                return
            live = source.isdigit()
            now = time.perf_counter() - began if live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if end is not None and now > end:
                return
            if start is not None and now < start:
                continue
            found = pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).pose_world_landmarks
            if found is None:
                yield Frame(None, np.zeros(33), now)
            else:
                rows = found.landmark
                yield Frame(np.array([[p.x, p.y, p.z] for p in rows]), np.array([p.visibility for p in rows]), now)


def kinflow_frames(clip: str, start: float | None = None, end: float | None = None) -> list[Frame]:
    """Landmarks of the person seen longest, by kinflow's own BlazePose.

    Raises:
        NobodyFoundError: nobody was in view.
    """
    from kinflow.perception import Perceiver
    from kinflow.video import open_clip

    perceiver = Perceiver()
    for batch in open_clip(clip, start=start, end=end).batches(8):
        perceiver.update(batch.images, batch.timestamps, batch.frame_ids)
    people = perceiver.finish()
    if not people:
        raise NobodyFoundError(f"{clip}: nobody was found. Use a clip with a person in view.")
    person = people[0]
    rows = zip(person.world_landmarks, person.confidence, person.timestamps, person.has_world, strict=True)
    return [Frame(points if known else None, seen, float(t)) for points, seen, t, known in rows]


def frames_of(source: str, start: float | None, end: float | None) -> tuple[str, Iterator[Frame] | list[Frame]]:
    """MediaPipe's landmarks where it is installed, kinflow's otherwise."""
    try:
        import cv2  # noqa: F401
        import mediapipe  # noqa: F401
    except ImportError:
        if source.isdigit():
            raise UsageError(
                f"source: camera {source} needs mediapipe and opencv; install them, or give a clip."
            ) from None
        return "kinflow's BlazePose", kinflow_frames(source, start, end)
    return "MediaPipe", mediapipe_frames(source, start, end)


# -- how good it is ---------------------------------------------------------------------------------------------------------


def acceleration(points: np.ndarray, times: np.ndarray) -> float:
    """Mean acceleration of the limbs' landmarks (T, 33, 3), m/s^2: the jitter."""
    limbs = torch.as_tensor(points[:, LIMBS]).double()
    return float(second_difference(limbs, torch.as_tensor(times)).norm(dim=-1).mean())


def lag(raw: np.ndarray, filtered: np.ndarray, times: np.ndarray) -> float:
    """Seconds by which the filtered limbs (T, 33, 3) follow the raw ones: the shift at which they agree best."""
    shifts = np.arange(-0.1, 0.3, 0.005)
    inside = (times > times[0] + 0.3) & (times < times[-1] - 0.1)
    if inside.sum() < 3:
        return float("nan")  # too short to tell
    a, b = (x[:, LIMBS].reshape(len(x), -1) for x in (raw, filtered))
    a, b = a - a.mean(0), b - b.mean(0)
    costs = []
    for shift in shifts:
        moved = np.stack([np.interp(times[inside] - shift, times, column) for column in a.T], 1)
        costs.append(np.abs(moved - b[inside]).mean())
    return float(shifts[int(np.argmin(costs))])


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", help="a clip, or a camera's number")
    p.add_argument("--start", type=float)
    p.add_argument("--end", type=float)
    p.add_argument("--noise", type=float, default=1.0, help="scales the landmarks' expected error (default: 1)")
    p.add_argument("--limit", type=int, help="stop after so many frames (a camera does not end by itself)")
    p.add_argument("-o", "--out", help="npz for the poses")
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    try:
        who, frames = frames_of(args.source, args.start, args.end)
        live = LandmarkFilter(noise=args.noise)
        raw, results, times, spent, busy = [], [], [], [], []
        for i, frame in enumerate(frames):
            began, worked = time.perf_counter(), time.process_time()
            result = live(frame.landmarks, frame.visibility, frame.timestamp)
            spent.append(1000 * (time.perf_counter() - began))
            busy.append(1000 * (time.process_time() - worked))
            results.append(result)
            times.append(frame.timestamp)
            raw.append(np.full((33, 3), np.nan) if frame.landmarks is None else frame.landmarks)
            if args.limit and i + 1 >= args.limit:
                break
    except KinflowError as error:
        print(f"live_filter: {error}", file=sys.stderr)
        return error.exit_code
    clock, before = np.array(times), np.array(raw)
    after = np.stack([r.landmarks.numpy() for r in results])
    whole = np.isfinite(before).all((1, 2))
    before = before - before[:, HIPS].mean(1, keepdims=True)
    print(
        f"{len(clock)} frames of {who}; latency {np.median(spent):.1f} ms median, {np.percentile(spent, 95):.1f} ms at 95 % "
        f"(of which {np.median(busy):.1f} ms on the processor)"
    )
    print(
        f"limb acceleration {acceleration(before[whole], clock[whole]):.1f} m/s^2 raw, "
        f"{acceleration(after[whole], clock[whole]):.1f} filtered; lag {1000 * lag(before[whole], after[whole], clock[whole]):.0f} ms; "
        f"limbs moved by {1000 * np.linalg.norm((after - before)[whole][:, LIMBS], axis=-1).mean():.0f} mm"
    )
    if args.out:
        np.savez(
            args.out,
            global_orient=np.stack([r.global_orient.numpy() for r in results]),
            body_pose=np.stack([r.body_pose.flatten().numpy() for r in results]),
            timestamps=clock,
            observed=np.array([r.seen for r in results]),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
