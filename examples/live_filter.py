"""An online filter behind MediaPipe's live landmarks: 33 world landmarks in, a body pose out, at once.

    python examples/live_filter.py CLIP              landmarks of a clip, frame by frame
    python examples/live_filter.py 0                 camera 0 (needs mediapipe and opencv)
    python examples/live_filter.py CLIP -o live.npz  keep the poses (SMPL parameters)

With mediapipe installed and a camera or clip given, its landmarks are used; otherwise kinflow's own BlazePose. The filter is
:class:`kinflow.prior.LiveFilter`, which takes plain arrays and can stand behind anything.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from kinflow import timing
from kinflow.errors import KinflowError, NobodyFoundError, UsageError
from kinflow.prior import LiveFilter

LIMBS = [11, 12, 13, 14, 15, 16, 25, 26, 27, 28]  # shoulders, elbows, wrists, knees, ankles
HIPS = [23, 24]


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
    import kinflow

    people = kinflow.perceive(kinflow.Clip.open(clip, start=start, end=end))
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


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", help="a clip, or a camera's number")
    p.add_argument("--start", type=float)
    p.add_argument("--end", type=float)
    p.add_argument("--limit", type=int, help="stop after so many frames (a camera does not end by itself)")
    p.add_argument("-o", "--out", help="npz for the poses")
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    try:
        who, frames = frames_of(args.source, args.start, args.end)
        live = LiveFilter()
        raw, results, times, spent = [], [], [], []
        for i, frame in enumerate(frames):
            began = time.perf_counter()
            results.append(
                live.landmarks(frame.timestamp, frame.landmarks, frame.visibility)
            )  # this is all there is to it
            spent.append(1000 * (time.perf_counter() - began))
            times.append(frame.timestamp)
            raw.append(np.full((33, 3), np.nan) if frame.landmarks is None else frame.landmarks)
            if args.limit and i + 1 >= args.limit:
                break
    except KinflowError as error:
        print(f"live_filter: {error}", file=sys.stderr)
        return error.exit_code
    before, after = np.array(raw), np.stack([r.landmarks.numpy() for r in results])
    before = before - before[:, HIPS].mean(1, keepdims=True)
    jitter = [float(timing.acceleration(torch.from_numpy(x[:, LIMBS]).double(), torch.tensor(times)).norm(dim=-1).nanmean())
              for x in (before, after)]  # fmt: skip
    moved = np.linalg.norm((after - before)[:, LIMBS], axis=-1)
    print(
        f"{len(times)} frames of {who}; latency {np.median(spent):.1f} ms median, {np.percentile(spent, 95):.1f} ms at 95 %\n"
        f"limb acceleration {jitter[0]:.1f} m/s^2 raw, {jitter[1]:.1f} filtered; limbs moved by {1000 * np.nanmean(moved):.0f} mm"
    )
    if args.out:
        np.savez(
            args.out,
            global_orient=np.stack([r.global_orient.numpy() for r in results]),
            body_pose=np.stack([r.body_pose.flatten().numpy() for r in results]),
            timestamps=np.array(times),
            observed=np.array([r.observed for r in results]),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
