"""Gravity and ground of one clip, from all its people over time.

Three kinds of evidence, put together in one posterior: which way is up for bodies in such poses
(:mod:`kinflow.flow.tilt`), that they do not fall over: the centre of mass is above the feet that carry it, and that whoever is carried by the ground touches it with the lowest point of the soles, so
that those points lie on one plane that is square to up. Depth is what one camera tells worst, so points may miss the
plane along their rays; and each person may be some per cent nearer or farther than reconstructed, all the clip long.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..flow.tilt import Tilt
from ..rotations import rotvec_to_rotmat
from .verticals import Segments

CORRELATED_S = 0.5
"""Errors of frames closer than this are alike: their evidence is counted once."""
LEAN_DEG = 3.5
"""By how much somebody's posture leans other than poses like it do, all the clip long, in each of two directions."""
DEPTH_LEAN_DEG = 2.7
"""By how much a body is reconstructed as leaning towards or away from the camera all the clip long, which shows in no picture; AWAY_DEG:
away from it on average; WOBBLE_DEG: by how much more or less frame by frame. So far are bodies turned against the true ones, of
44 people in rendered clips of training's and validation's motions, whichever way they face. Sideways the picture shows
it: 0.6 degrees."""
AWAY_DEG = 0.8
WOBBLE_DEG = 3.5
SYSTEMATIC_DEG = 3.0
"""What neither more frames nor more people mend; with it the errors of validation clips are as large as told (rms 3.2 degrees in
each of two directions)."""
DISTINCT = 12.0
"""Nats by which the best direction for the lines of a background is to stand out among those about it, for them to be heard: of
floors, grass and walls without edges the best is 1 to 6 nats above the others, of rooms and streets 20 to 50."""
LINES_DEG = 1.5
"""What lines tell is off by, all clip long: lenses bend them, and what is built is not quite upright."""
HEIGHT_M = 0.02
"""Noise of a sole's height over its plane, beside that of its depth."""
DEPTH = 0.018
"""Noise of a sole's depth in a frame, a share of it; SCALE: of a person's, the clip long (of validation clips: 0.015, 0.045)."""
SCALE = 0.045
BALANCE_M = 0.06
"""How far the centre of mass is from above the feet that carry it, sideways or forwards; beyond that Cauchy's tails."""
CARRIED_M, CARRIED = 1.5, 0.3
"""Height over the ground that cameras are used at, and how widely that is spread, a share of it, with Cauchy's tails: few are on
the ground or on a mast. The middle is about where eyes are when people stand, for who films looks through it or holds it before
them; of validation clips heights come out alike for widths of 0.2 to 0.5."""
ON_GROUND = 0.7
"""Prior share of the frames in which the lowest sole carries."""
SPREAD_M = 1.0
"""Lowest soles of frames that are not on the ground lie anywhere within this above it."""
HELD_DEG, AIMED_DEG = 10.0, 35.0
"""How far cameras are rolled, and tilted up or down; ANYHOW: the share of those that are held anyhow. That chooses between
directions that poses leave open, and moves none."""
ANYHOW = 0.05
SURE, ABOUT_DEG = 0.75, 25.0
"""Up is told where so much of what is probable lies within so many degrees of it."""
AMISS, AMISS_FADES = 0.3, 1.5
"""Probability that somebody hardly seen is reconstructed all wrong, or is nobody, and how it falls with every half second that
they are seen whole."""
GRID = 1500
_AT_ONCE = 2**15  # frames times directions: 20 MB
AROUND_DEG = torch.tensor([4.0, 8.0, 13.0], dtype=torch.float64)
"""Directions so far about what poses alone say are tried, each with the ground that suits it; lines, within REACH_DEG of the best
of them, which is off by UNSURE_DEG."""
REACH_DEG, UNSURE_DEG = 14.0, 5.0
UNKNOWN_DEG = 25.0
"""A direction that is less certain than this is not told."""
SCARCE = 0.35
"""Least share of on-ground frames for a ground to be told."""


@dataclasses.dataclass(frozen=True)
class Sighted:
    """What one person says of gravity and ground; N frames, in axes that do not turn with the camera.

    Attributes:
        root_rotmat: (N, 3, 3), pelvis to those axes.
        tilt: density of up in the pelvis' frame, (N, ...).
        soles: (N, P, 3) m, points of the soles.
        rays: (N, 3) unit vectors from the camera to the person. depth: (N,) m.
        centres: (N, 3) m, the camera's places.
        weight: (N,) 0..1, how far a frame counts: its share of :data:`CORRELATED_S`, times how surely it was seen.
        feet: (N,) 0..1, how surely its feet were seen.
        balance: (N, 3) m, from the middle of the feet that carry the body to its centre of mass. upright: (N,) 0..1, how surely
            they do: somebody who sits is carried by the chair.
    """

    root_rotmat: Tensor
    tilt: Tilt
    soles: Tensor
    rays: Tensor
    depth: Tensor
    centres: Tensor
    weight: Tensor
    feet: Tensor
    balance: Tensor
    upright: Tensor


@dataclasses.dataclass(frozen=True)
class Ground:
    """Gravity and ground in the axes of what was sighted.

    Attributes:
        up: (3,) unit vector.
        offset: m; the ground is where ``up . x + offset = 0``, so that it is the height of the origin. None: not known.
        up_std_deg: standard deviation of up, degrees (in each of the two directions).
        offset_std: m, of the offset; None where that is.
        scales: one a person, by which its distance is off as seen from the ground.
        share: of the frames with feet in sight, those that stand on it.
    """

    up: Tensor
    offset: float | None
    up_std_deg: float
    offset_std: float | None
    scales: tuple[float, ...]
    share: float


def directions(count: int) -> Tensor:
    """About even directions (count, 3) on the sphere: Fibonacci's spiral."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    y, angle = 1 - 2 * i / count, i * math.pi * (3 - math.sqrt(5))
    r = (1 - y * y).sqrt()
    return torch.stack((r * angle.cos(), y, r * angle.sin()), -1)


def tilt_score(people: Sequence[Sighted], up: Tensor, leans: Tensor | None = None) -> Tensor:
    """Log evidence of the poses for directions (G, 3) -> (G,), nats; ``leans (P, 3)`` rad are by how much each person's posture
    leans, sideways and forwards, and by how much more than on average they are reconstructed as leaning away from the camera."""
    total = up.new_zeros(len(up))
    for number, person in enumerate(people):
        whose = leant(person, up, math.radians(AWAY_DEG) + (0 if leans is None else leans[number, 2]))
        for rows in range(0, len(person.weight), max(1, _AT_ONCE // len(up))):
            piece = slice(rows, rows + max(1, _AT_ONCE // len(up)))
            local = whose @ person.root_rotmat[piece].to(up)  # (N, G, 3): up in each pelvis' frame
            if leans is not None:
                local = local + torch.stack((leans[number, 0], 0 * leans[number, 0], leans[number, 1]))
                local = torch.nn.functional.normalize(local, dim=-1)
            tilt = Tilt(*(value[piece].to(up)[:, None] for value in person.tilt))
            total = total + (person.weight[piece].to(up)[:, None] * tilt.log_prob(local)).sum(0)
    return total


def leant(person: Sighted, up: Tensor, lean: Tensor | float) -> Tensor:
    """Directions (G, 3) leant by ``lean`` rad away from the camera, as the person's body is."""
    away = person.rays.mean(0)
    away = away - (up @ away)[..., None] * up
    return torch.nn.functional.normalize(up + lean * torch.nn.functional.normalize(away, dim=-1), dim=-1)


def plane_errors(person: Sighted, up: Tensor, offset: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Height (N,) m of the lowest sole of each frame over a plane, and its standard deviation (N,)."""
    about = person.soles - person.centres[:, None]
    drops = log_scale.exp() * (about @ up)
    heights = drops + (person.centres @ up + offset)[:, None]
    which = heights.detach().argmin(1, keepdim=True)
    # Along its own ray: a sole at the wrong depth is as much too high as it is below the camera.
    along = DEPTH * drops.gather(1, which)[:, 0]
    return heights.gather(1, which)[:, 0], (HEIGHT_M**2 + along.square()).sqrt()


def on_ground(person: Sighted, up: Tensor, offset: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Log likelihood (N,) of the lowest soles, and the probability (N,) that each stands on the plane."""
    error, std = plane_errors(person, up, offset, log_scale)
    # What is e^-30 beside the other has no say; second derivatives of log_ndtr and logaddexp are no numbers far out.
    stands = math.log(ON_GROUND) - 0.5 * (error / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
    stands = stands.clamp_min(-40)
    # Off the ground is above it, with the same soft edge; below it nobody is.
    above = torch.special.log_ndtr((error / std).clamp(-8, 8))
    floats = math.log(1 - ON_GROUND) - math.log(SPREAD_M) + above
    both = torch.logaddexp(stands, torch.logaddexp(floats, torch.full_like(floats, -9.0)))
    return both, torch.exp(stands - both)


def unbalanced(person: Sighted, up: Tensor) -> Tensor:
    """What speaks against ``up`` in each frame (N,), nats: whoever is carried by the ground is above what carries them.

    Somebody who walks is before and behind it in turns, which evens out.
    """
    aside = person.balance - (person.balance @ up)[:, None] * up
    return torch.log1p(0.5 * aside.square().sum(-1) / BALANCE_M**2)


def find_ground(
    people: Sequence[Sighted],
    known_up: Tensor | None = None,
    lines: Segments | None = None,
    camera: Tensor | None = None,
) -> Ground | None:
    """The most probable gravity and ground of what was sighted; None where nothing tells up from down.

    Args:
        people: N >= 1 frames each.
        known_up: (3,), where gravity is known already: then only the ground is looked for.
        lines: of the background.
        camera: (3, 3), from the axes of the people to the first frame's camera, where it is likely held upright.
    """
    with_feet = [bool((p.feet * p.weight).sum() > 0) for p in people]
    if known_up is not None:
        base = torch.nn.functional.normalize(known_up.double(), dim=-1)
        first, lines = _first_offset(people, base), None
    elif not any(bool((p.weight > 0).any()) for p in people):
        return None
    else:
        likely = _likely_up(people, camera)
        if likely is None:
            return None
        base, first, lines = _first_guess(people, likely, lines)
    # Two angles about the first guess, the height, and everybody's scale and leans.
    count, has_ground = len(people), any(with_feet)
    middle = torch.cat([p.centres for p in people]).mean(0)  # the camera's, over the frames
    starts = torch.zeros(3 + 4 * count, dtype=torch.float64)
    frame = basis(base)
    spread = torch.tensor([LEAN_DEG, LEAN_DEG, DEPTH_LEAN_DEG], dtype=torch.float64).deg2rad()

    def unpack(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turned = rotvec_to_rotmat(x[0] * frame[0] + x[1] * frame[1]) @ base
        return (base if known_up is not None else turned), x[2], x[3 : 3 + count]

    def loss(x: Tensor) -> Tensor:
        up, offset, scales = unpack(x)
        leans = x[3 + count :].unflatten(0, (count, 3))
        total = 0.5 * (scales / SCALE).square().sum() + 1e-6 * x.square().sum()
        if known_up is None:
            total = total - tilt_score(people, up[None], leans)[0]
            total = total + 0.5 * (leans / spread).square().sum()
        if lines is not None:
            total = total - lines.score(up)
        if known_up is None and has_ground:
            height = (middle @ up + offset).clamp_min(0.05)
            total = total + torch.log1p(((height / CARRIED_M).log() / CARRIED).square())
        for person, scale, lean, feet in zip(people, scales, leans[:, 2], with_feet, strict=True):
            if feet:
                each, _ = on_ground(person, up, offset, scale)
                total = total - (person.weight * person.feet * each).sum()
                if known_up is None:
                    aside = unbalanced(person, leant(person, up[None], math.radians(AWAY_DEG) + lean)[0])
                    total = total + (person.weight * person.feet * person.upright * aside).sum()
        return total

    start = starts.clone()
    if has_ground:
        start[2] = first
    if not has_ground:
        x, covariance = _maximum(loss, start)
        up, _, _ = unpack(x)
        std = _degrees(covariance, frame, up, lines)
        if known_up is None and std > UNKNOWN_DEG:
            return None
        return Ground(up, None, 0.0 if known_up is not None else std, None, (1.0,) * len(people), 0.0)
    x, covariance = _maximum(loss, start)
    up, offset, scales = unpack(x)
    std = 0.0 if known_up is not None else _degrees(covariance, frame, up, lines)
    if std > UNKNOWN_DEG:
        return None
    counted, stands = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for person, scale, feet in zip(people, scales, with_feet, strict=True):
        if feet:
            each = person.weight * person.feet
            counted, stands = counted + each.sum(), stands + (each * on_ground(person, up, offset, scale)[1]).sum()
    share = float(stands / counted)
    ones = (1.0,) * len(people)
    if share < SCARCE:
        return Ground(up, None, std, None, ones, share)
    # A body's size is guessed from its proportions: everybody together may be off by as much as one alone. And up that is off by
    # what frames do not mend lifts the ground under people at a distance.
    distance = float(torch.cat([p.depth for p in people]).median())
    leaning = math.radians(min(std, SYSTEMATIC_DEG)) * distance
    height_std = math.hypot(float(covariance[2, 2].sqrt()), SCALE * float(offset.abs()), leaning)
    return Ground(up, float(offset), std, height_std, tuple(scales.exp().tolist()), share)


def basis(up: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors square to ``up`` and to each other."""
    helper = torch.eye(3, dtype=up.dtype)[int(up.abs().argmin())]
    first = torch.nn.functional.normalize(torch.linalg.cross(up, helper), dim=-1)
    return first, torch.linalg.cross(up, first)


def _likely_up(people: Sequence[Sighted], camera: Tensor | None) -> Tensor | None:
    """The direction (3,) that poses make likeliest, before a camera that was likely held upright; None where they leave open
    which of several it is."""
    grid = directions(GRID)
    score = torch.zeros(GRID, dtype=grid.dtype)
    for person in people:
        looks = person.weight.sum()
        amiss = AMISS * torch.exp(-AMISS_FADES * looks)
        # Normalised on the sphere, so that it can be weighed against nothing known.
        told = torch.log_softmax(tilt_score([person], grid), 0)
        score = score + torch.logaddexp(torch.log1p(-amiss) + told, torch.log(amiss / GRID).expand_as(told))
    if camera is not None:
        x, y, z = (grid @ camera.to(grid).mT).unbind(-1)
        down = (-y).clamp_min(0.05)
        widths = [math.tan(math.radians(d)) for d in (HELD_DEG, AIMED_DEG)]
        off = (x / down / widths[0]).square() + (z / down / widths[1]).square()
        held = (1 - ANYHOW) * torch.exp(-0.5 * off) / (2 * math.pi * widths[0] * widths[1])
        score = score + torch.log(held + ANYHOW / (4 * math.pi))
    best = grid[int(score.argmax())]
    near = (grid @ best) > math.cos(math.radians(ABOUT_DEG))
    return best if float(torch.softmax(score, 0)[near].sum()) >= SURE else None


def _first_guess(
    people: Sequence[Sighted], best: Tensor, lines: Segments | None
) -> tuple[Tensor, float, Segments | None]:
    """Up (3,) and offset to begin from, and the lines if they are to be heard: of the directions about ``best (3,)``, what poses
    alone say, each with its best ground, or of those that lines stand out for.

    Poses alone may be degrees off, and a ground looked for at their up then holds to a few stray frames.
    """
    angle = torch.arange(12, dtype=torch.float64) * (math.pi / 6)
    x, y = basis(best)
    around = (angle.cos()[:, None] * x + angle.sin()[:, None] * y)[None] * AROUND_DEG.deg2rad().tan()[:, None, None]
    near = torch.nn.functional.normalize(torch.cat((best[None], (best + around).flatten(0, 1))), dim=-1)
    leans = torch.zeros(len(people), 3, dtype=torch.float64)
    score, offset = tilt_score(people, near, leans), torch.zeros(len(near), dtype=torch.float64)
    if any(bool((p.feet * p.weight).sum() > 0) for p in people):
        offset = torch.stack([torch.tensor(_first_offset(people, up), dtype=torch.float64) for up in near])
        for number, up in enumerate(near):
            for p in people:
                each, _ = on_ground(p, up, offset[number], torch.zeros((), dtype=torch.float64))
                aside = unbalanced(p, leant(p, up[None], math.radians(AWAY_DEG))[0])
                score[number] += (p.weight * p.feet * (each - p.upright * aside)).sum()
    top = int(score.argmax())
    if lines is None:
        return near[top], float(offset[top]), None
    # The peaks of lines are a degree wide: on a grid as fine, held to what people say.
    angle = torch.arange(-REACH_DEG, REACH_DEG + 1, dtype=torch.float64).deg2rad()
    x, y = basis(near[top])
    away = torch.cartesian_prod(angle, angle)
    fine = torch.nn.functional.normalize(near[top] + away.tan() @ torch.stack((x, y)), dim=-1)
    told = lines.score(fine)
    if float(told.max() - told.median()) < DISTINCT:
        return near[top], float(offset[top]), None
    best = fine[int((told - 0.5 * away.square().sum(-1) / math.radians(UNSURE_DEG) ** 2).argmax())]
    return best, _first_offset(people, best), lines


def _first_offset(people: Sequence[Sighted], up: Tensor) -> float:
    """Where most of the lowest soles along ``up (3,)`` are: the height with the most frames within 8 cm above it."""
    lows = torch.cat([(p.soles @ up).amin(1) for p in people])
    weight = torch.cat([p.weight * p.feet for p in people])
    order = lows.argsort()
    sorted_lows, until = lows[order], torch.nn.functional.pad(weight[order].cumsum(0), (1, 0))
    above = torch.searchsorted(sorted_lows, lows + 0.08)
    below = torch.searchsorted(sorted_lows, lows - 0.08, right=True)
    near = until[above] - until[below]
    return -float(lows[int((near * (weight > 0)).argmax())])


def _degrees(covariance: Tensor, frame: tuple[Tensor, Tensor], up: Tensor, lines: Segments | None) -> float:
    """Standard deviation of up in degrees, of a covariance whose first two rows are its angles about ``frame`` in rad, with what
    frames do not average away."""
    turned = (covariance[:2, :2] + covariance[:2, :2].mT) / 2
    eye = torch.eye(2, dtype=turned.dtype)
    if lines is None:
        turned = turned + math.radians(SYSTEMATIC_DEG) ** 2 * eye
    else:  # people's part is taken out, to be counted as little as it is worth
        small = torch.zeros(2, dtype=turned.dtype)
        told = -torch.autograd.functional.hessian(
            lambda a: lines.score(rotvec_to_rotmat(a[0] * frame[0] + a[1] * frame[1]) @ up), small
        )
        values, vectors = torch.linalg.eigh((told + told.mT) / 2)
        told = (vectors * values.clamp_min(0)) @ vectors.mT
        values, vectors = torch.linalg.eigh(torch.linalg.inv(turned) - told)
        people = (vectors / values.clamp_min(1e-6)) @ vectors.mT + math.radians(SYSTEMATIC_DEG) ** 2 * eye
        turned = torch.linalg.inv(torch.linalg.inv(people) + told) + math.radians(LINES_DEG) ** 2 * eye
    return math.degrees(math.sqrt(max(0.0, float(turned.trace()) / 2)))


def _maximum(loss: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 150) -> tuple[Tensor, Tensor]:
    """Where a smooth ``loss`` of a few numbers is least, and the inverse of its curvature there.

    Damped Newton steps; curvature, a gradient for each number, is worked out at both ends and carried along between them
    by what gradients change (symmetric rank one; Nocedal and Wright, Numerical Optimization, 6.2).
    """

    def told(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().requires_grad_()
        value = loss(x)
        return float(value.detach()), torch.autograd.grad(value, x)[0]

    def curved(x: Tensor) -> Tensor:
        curvature = torch.autograd.functional.hessian(loss, x)
        return (curvature + curvature.mT) / 2

    x, damping, fresh = start, 1e-3, True
    value, gradient = told(x)
    curvature = curved(x)
    for _ in range(iterations):
        values, vectors = torch.linalg.eigh(curvature)
        gained = 0.0
        while damping < 1e6:
            step = -vectors @ ((vectors.mT @ gradient) / (values.abs() + damping * values.abs().amax()))
            tried, onward = told(x + step)
            if tried < value:
                gained, damping = value - tried, max(damping / 10, 1e-9)
                break
            if not fresh:  # what was carried along may be what is wrong
                break
            damping = max(10 * damping, 1e-6)
        if gained > 1e-7 * (1 + abs(value)):
            missed = onward - gradient - curvature @ step
            along = missed @ step
            if float(along.abs()) > 1e-8 * float(missed.norm() * step.norm()):
                curvature = curvature + missed[:, None] * missed / along
            x, value, gradient, fresh = x + step, tried, onward, False
        elif fresh:
            x = x + step if gained > 0 else x
            break
        else:
            curvature, fresh = curved(x), True
    values, vectors = torch.linalg.eigh(curved(x) if not fresh else curvature)
    return x, (vectors / values.clamp_min(1e-6)) @ vectors.mT
