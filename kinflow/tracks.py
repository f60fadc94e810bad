"""Smoothing of root rotation and translation in true time: constant-velocity Kalman filter and Rauch-Tung-Striebel pass.

The state of each person is a position (a vector, or a rotation) and its rate; the rate drifts as white acceleration.
Rotations are kept on the manifold: the state's error lives in the tangent space at the estimate (body axes), so there is
no wrap-around and no singular angle. Measurement covariances come from whoever measured; frames without a measurement
are integrated through. Numpy, float64: a few small matrices per frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import check_shape
from .rotations import exp_so3, log_so3

Array = NDArray[Any]


def smooth(
    measured: Array,
    covariance: Array,
    timestamps: Array,
    observed: NDArray[np.bool_],
    drift: float,
    rate_std: float = 1.0,
) -> tuple[Array, Array]:
    """Smooth one person's vectors or rotations.

    Args:
        measured: (T, 3) vectors, or (T, 3, 3) rotations. Rows not observed are ignored.
        covariance: (T, 3, 3) of each measurement; for rotations in rad^2, in the rotation's own (body) axes.
        timestamps: (T,) s, increasing.
        observed: (T,) bool.
        drift: spectral density of the acceleration, unit^2/s^3: after dt the rate's variance has grown by drift * dt.
        rate_std: prior standard deviation of the rate, unit/s; over gaps the rate forgets with a time constant of 1 s.

    Returns:
        The smoothed values, shaped as ``measured``, and covariances (T, 3, 3). With nothing observed, the input and
        its covariance.
    """
    rotation = measured.ndim == 3
    check_shape("measured", measured, "T 3 3" if rotation else "T 3")
    count = len(measured)
    if not observed.any():
        return measured.copy(), covariance.copy()
    eye = np.eye(3)

    def plus(x: Array, d: Array) -> Array:
        return x @ exp_so3(d) if rotation else x + d

    def minus(a: Array, b: Array) -> Array:
        return log_so3(b.T @ a) if rotation else a - b

    first = int(np.argmax(observed))
    x, rate = measured[first].copy(), np.zeros(3)
    P = np.zeros((6, 6))
    # Rows before the first sighting are extrapolated by the backward pass from a wide prior around it.
    P[:3, :3] = eye * 1e2
    P[3:, 3:] = eye * rate_std**2
    kept: list[tuple[Array, Array, Array]] = []
    predicted: list[tuple[Array, Array, Array]] = []
    steps: list[Array] = []
    for t in range(count):
        dt = float(timestamps[t] - timestamps[t - 1]) if t else 0.0
        forget = np.exp(-dt)
        F = np.eye(6)
        # Position moves by the integral of the (slowly forgotten) rate.
        F[:3, 3:] = eye * (1 - forget)
        F[3:, 3:] = eye * forget
        Q = drift * np.block([[eye * dt**3 / 3, eye * dt**2 / 2], [eye * dt**2 / 2, eye * dt]])
        x, rate = plus(x, rate * (1 - forget)), rate * forget
        P = F @ P @ F.T + Q
        predicted.append((x, rate, P))
        steps.append(F)
        if observed[t]:
            S = P[:3, :3] + covariance[t]
            gain = np.linalg.solve(S, P[:3]).T
            innovation = minus(measured[t], x)
            # A measurement far outside its own covariance is bounded in its pull (Cauchy).
            distance2 = float(innovation @ np.linalg.solve(S, innovation))
            if distance2 > 16.0:
                S = P[:3, :3] + covariance[t] * (distance2 / 16.0)
                gain = np.linalg.solve(S, P[:3]).T
            step = gain @ innovation
            x, rate = plus(x, step[:3]), rate + step[3:]
            left = np.eye(6) - np.hstack((gain, np.zeros((6, 3))))
            noise = covariance[t] * max(1.0, distance2 / 16.0)
            P = left @ P @ left.T + gain @ noise @ gain.T
        kept.append((x, rate, P))

    value, cov = measured.copy(), covariance.copy()
    xs, rs, Ps = kept[-1]
    value[-1], cov[-1] = xs, Ps[:3, :3]
    for t in range(count - 2, -1, -1):
        xf, rf, Pf = kept[t]
        xp, rp, Pp = predicted[t + 1]
        gain = np.linalg.solve(Pp, steps[t + 1] @ Pf).T
        delta = gain @ np.concatenate((minus(xs, xp), rs - rp))
        Ps = Pf + gain @ (Ps - Pp) @ gain.T
        xs, rs = plus(xf, delta[:3]), rf + delta[3:]
        value[t], cov[t] = xs, 0.5 * (Ps[:3, :3] + Ps[:3, :3].T)
    return value, cov
