"""Who is who over the whole clip: tracks cut where they pass from one person to another, and pieces of one person joined.

The tracker decides frame by frame, by place. Where two people meet, the landmarks of one may slide onto the other through a blend
of both, which no single frame gives away. The whole track does: what is worn before differs from what is worn afterwards. So
tracks are cut there, and pieces joined again where place, time and look agree: crosswise, if two people were exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from kinflow.perception.appearance import DIFFERENT, LOOK_SHAPE, look_distance, typical_look
from kinflow.perception.tracking import REACH, REACH_PER_SECOND, SIZE_RATIO, Rows

__all__ = ["FEWEST", "Places", "cut_at_changes", "places_of", "reunited"]

Piece: TypeAlias = tuple[int, int, Rows]
"""Number of the track, place in it, sightings."""


class Places(NamedTuple):
    """Where a track was."""

    times: np.ndarray  #: (N,) s
    boxes: np.ndarray  #: (N, 4) px
    turning: np.ndarray  #: (N,) whether it began, ended, was lost or changed its look there, so may be somebody else's


LOST = 0.3  #: s without a sighting, after which a track may be somebody else's
CHANGED = 0.5  #: the distance of looks before and after, from which a track is cut; most such cuts are mended again
SURELY_DIFFERENT = 0.75  #: ... and between the pieces as wholes, from which it stays cut
LONGEST_BLEND = 1.2  #: s
PLAINLY_DIFFERENT = 1.0  #: the same where nobody near can have taken the track over, but for some confusion
GRADUAL = 1.0  #: less of a change is gradual: somebody half hidden, not somebody else
BLEND = 0.12  #: s on both sides of a change from one person to another that show both, or neither
WINDOW = 0.6  #: s before and after, over which looks are compared
APART = 0.5  #: s between cuts
UNLIKE = 5.0  #: where everybody else looks so many times as different, twice the difference is still the same person
FEWEST = 3  #: examined sightings on each side of a cut
SPEED_OVER = 0.4  #: s, from which the speed at a piece's end is taken
TRUSTED = 0.4  #: s, for which somebody out of sight is taken to go on at that speed


def places_of(rows: Rows, times: Sequence[float], somebody: bool = True) -> Places:
    """Where a track was, by times (s) of all frames; who is not ``somebody``, seen for a moment, takes nothing over: no turning."""
    at = np.asarray(times)[rows["index"]]
    turning = np.zeros(len(rows), bool)
    if not somebody:
        return Places(at, rows["box_xyxy"].copy(), turning)
    if len(rows):  # whoever is there in the clip's first or last frame has not come or gone
        turning[0], turning[-1] = rows["index"][0] > 0, rows["index"][-1] < len(times) - 1
    lost = np.flatnonzero(_lost(at))
    turning[lost], turning[lost + 1] = True, True
    for _, *between in _changes(rows, times):
        turning[between] = True
    return Places(at, rows["box_xyxy"].copy(), turning)


def cut_at_changes(rows: Rows, times: Sequence[float], others: Sequence[Places] | None = None) -> list[Rows]:
    """The rows in pieces of one look each; one piece where looks are not known, or the track is too short to tell.

    Args:
        times: s, of all frames; a row's index points into it.
        others: where everybody else was, for a track passes to somebody else only where somebody is, or where it was lost; None:
            there may be somebody anywhere.
    """
    at = np.asarray(times)[rows["index"]]
    looked = np.cumsum(rows["examined"]) if "examined" in (rows.dtype.names or ()) else np.zeros(len(rows))
    cuts: list[tuple[int, int, float]] = []
    for _, last, first in sorted(_changes(rows, times), reverse=True):
        least = SURELY_DIFFERENT if others is None else _least_change(rows, at, last, first, others)
        near = [c for _, c, _ in cuts if abs(at[first] - at[c]) <= APART or abs(looked[first] - looked[c]) < FEWEST]
        if least < math.inf and not near:
            cuts.append((last, first, least))
    cuts.sort()
    pieces = np.split(rows, [_parting(at, last, first) for last, first, _ in cuts])
    needed = [least for *_, least in cuts]
    while needed:  # most cuts are mended again: the light changed, or a patterned cloth turned
        found = np.array([_known_look(piece) for piece in pieces])
        change = look_distance(found[:-1], found[1:]) / np.array(needed)
        k = int(change.argmin())
        if change[k] >= 1.0:
            break
        pieces[k : k + 2] = [np.concatenate(pieces[k : k + 2])]
        del needed[k]
    return pieces


def _changes(rows: Rows, times: Sequence[float]) -> list[tuple[float, int, int]]:
    """How much the look changes, and between which examined rows, wherever it does by :data:`CHANGED` or more."""
    examined = np.flatnonzero(rows["examined"]) if "look" in (rows.dtype.names or ()) else np.zeros(0, int)
    if len(examined) < 2 * FEWEST:
        return []
    worn, at = rows["look"][examined], np.asarray(times)[rows["index"][examined]]
    if at[-1] - at[0] < 2 * WINDOW - 1e-6:
        return []
    total = np.concatenate([np.zeros((1, *worn.shape[1:])), np.cumsum(worn, 0, dtype=np.float64)])
    places = np.arange(FEWEST, len(worn) - FEWEST + 1)
    # Who comes back after a while is compared by what was seen last, however long ago.
    first = np.minimum(np.searchsorted(at, at[places - 1] - WINDOW), places - FEWEST)
    last = np.maximum(np.searchsorted(at, at[places] + WINDOW, side="right"), places + FEWEST)
    before, after = ((total[b] - total[a]) / _column(b - a) for a, b in ((first, places), (places, last)))
    change = look_distance(before, after)
    return [
        (float(change[k]), int(examined[places[k] - 1]), int(examined[places[k]]))
        for k in np.flatnonzero(change >= CHANGED)
    ]


def _lost(at: np.ndarray) -> np.ndarray:
    """After which of a track's sightings (N,) s it was lost: (N - 1,)."""
    steps = np.diff(at)
    return steps > max(LOST, 2.5 * float(np.median(steps))) if len(steps) else np.zeros(0, bool)


def _least_change(rows: Rows, at: np.ndarray, last: int, first: int, others: Sequence[Places]) -> float:
    """From which difference of looks on a track has passed to somebody else between rows ``last`` and ``first``.

    Infinite where nobody was near, and it was not lost: who is alone and squats changes looks, too. More where those near stay
    themselves, for whose the track is now has lost theirs, most often.
    """
    if _lost(at)[last:first].any():
        return SURELY_DIFFERENT
    box, least = rows["box_xyxy"][last], math.inf
    for when, boxes, turning in others:
        near = (when > at[last] - LONGEST_BLEND) & (when < at[first] + LONGEST_BLEND)
        near &= ((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(-1)
        if near.any():
            least = min(least, SURELY_DIFFERENT if turning[near].any() else PLAINLY_DIFFERENT)
    return least


def _parting(times: np.ndarray, last: int, first: int) -> int:
    """Where to cut between the last sighting known to be of the one and the first known to be of the other: at the longest
    absence between them; in the middle where there is none.
    """
    steps = np.diff(times[last : first + 1])
    longest = np.flatnonzero(steps > steps.max() - 1e-6)
    return last + 1 + int(longest[len(longest) // 2])


def reunited(tracks: Sequence[Sequence[Rows]], times: Sequence[float], reunion_s: float) -> list[Rows]:
    """Pieces of one person joined, the most alike first: no further apart in time than ``reunion_s``, in place than somebody
    may have gone meanwhile, and of one look.

    Two short ones are not joined: they may be blends of the same two people. Where looks are not known the tracker has decided.

    Args:
        tracks: the pieces of each, as :func:`cut_at_changes` leaves them.
        times: s, of all frames. reunion_s: s.
    """
    pieces: list[Piece] = [
        (number, place, rows) for number, track in enumerate(tracks) for place, rows in enumerate(track)
    ]
    at = np.asarray(times)
    looks = [_known_look(rows) for _, _, rows in pieces]
    costs = []
    for i, (_, _, earlier) in enumerate(pieces):
        for j, (_, _, later) in enumerate(pieces):
            change = _change(i, j, pieces, looks, at, reunion_s) if i != j else math.inf
            if (cost := _apart(earlier, later, at, change)) < 1.0:
                costs.append((cost, i, j))
    follows: dict[int, int] = {}
    for _, i, j in sorted(costs):
        if i not in follows and j not in follows.values():
            follows[i] = j
    chains = []
    for first in sorted(set(range(len(pieces))) - set(follows.values())):
        chain = [first]
        while chain[-1] in follows:
            chain.append(follows[chain[-1]])
        chains.append(chain)
    chains = _without_excursions(chains, pieces, at)
    owner = {pieces[k][:2]: c for c, chain in enumerate(chains) for k in chain}
    found = []
    for chain in chains:  # copied only where anything changes: with masks and part maps a long clip is large
        parts = [_trimmed(pieces[k], owner, at) for k in sorted(chain)]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        rows = rows[np.argsort(rows["index"], kind="stable")] if (np.diff(rows["index"]) < 0).any() else rows
        if len(rows):
            found.append(rows)
    return found


def _without_excursions(chains: list[list[int]], pieces: list[Piece], times: np.ndarray) -> list[list[int]]:
    """The chains without those that lie, for a moment, between two parts of one other chain in the same track: blends of the
    person with somebody in front, or, where the change is gradual, the person half hidden, and part of that chain.
    """
    of = {k: c for c, chain in enumerate(chains) for k in chain}
    number = {(track, place): k for k, (track, place, _) in enumerate(pieces)}
    out = [list(chain) for chain in chains]
    for c, chain in enumerate(chains):
        (track, start, first), (other, end, last) = pieces[chain[0]], pieces[chain[-1]]
        before, after = number.get((track, start - 1)), number.get((other, end + 1))
        span = float(times[last["index"][-1]] - times[first["index"][0]])
        if track != other or before is None or after is None or of[before] != of[after] or span > LONGEST_BLEND:
            continue
        out[c] = []
        looks = [_known_look(pieces[k][2]) for k in (before, chain[0], chain[-1], after)]
        if min(look_distance(*looks[:2]), look_distance(*looks[2:])) < GRADUAL:
            out[of[before]] += chain
    return [chain for chain in out if chain]


def _trimmed(piece: Piece, owner: dict[tuple[int, int], int], times: np.ndarray) -> Rows:
    """A piece without the sightings next to where its track goes on as somebody else, nor those there that were not examined."""
    track, place, rows = piece
    mine, at = owner[track, place], times[rows["index"]]
    examined = at[rows["examined"]] if "examined" in (rows.dtype.names or ()) else at
    keep = np.ones(len(rows), bool)
    if owner.get((track, place - 1), mine) != mine:
        keep &= at >= max(at[0] + BLEND, examined[0]) - 1e-6
    if owner.get((track, place + 1), mine) != mine:
        keep &= at <= min(at[-1] - BLEND, examined[-1]) + 1e-6
    return rows if keep.all() else rows[keep]


def _change(
    i: int, j: int, pieces: Sequence[Piece], looks: Sequence[np.ndarray], times: np.ndarray, reunion_s: float
) -> float:
    """Below 1 where pieces ``i`` and ``j``, of which j is the later, look alike: the likelier the same person, the less.

    Light and a half hidden trunk change looks, too: two that differ by a little more are alike where nobody else about that time
    is nearly as much so.
    """
    (_, _, earlier), (_, _, later) = pieces[i], pieces[j]
    last, first = times[earlier["index"][-1]], times[later["index"][0]]
    mine = looks[i], looks[j]
    if not 0 < first - last <= reunion_s or not all(look.any() for look in mine):
        return math.inf
    change = float(look_distance(*mine)) / DIFFERENT
    if not 1.0 <= change < 2.0:
        return change
    rivals = [
        looks[k]
        for k, (_, _, rows) in enumerate(pieces)
        if k not in (i, j)
        and times[rows["index"][0]] < first + reunion_s
        and times[rows["index"][-1]] > last - reunion_s
    ]
    apart = [float(look_distance(look, one)) / DIFFERENT for look in rivals if look.any() for one in mine]
    return change / 2 if apart and min(apart) > UNLIKE * change else change


def _apart(earlier: Rows, later: Rows, times: np.ndarray, change: float) -> float:
    """Below 1 where the later piece, which looks so different, may go on with the person of the earlier one; the less, the
    likelier."""
    gap = float(times[later["index"][0]] - times[earlier["index"][-1]])
    spans = [float(np.ptp(times[rows["index"][[0, -1]]])) for rows in (earlier, later)]
    if change >= 1.0 or max(spans) < WINDOW - 1e-6:
        return math.inf
    end, start = earlier["next_roi"][-1], later["roi"][0]
    side = max(float(end[2]), 1.0)
    ahead = end[:2] + _velocity(earlier, times) * min(gap, TRUSTED)
    reach = REACH + REACH_PER_SECOND * gap
    place = float(np.linalg.norm(start[:2] - ahead)) / side / reach
    size = abs(math.log(max(float(start[2]), 1.0) / side)) / math.log(SIZE_RATIO)
    return math.inf if max(place, size) >= 1.0 else max(change, 0.5 * (change + 0.5 * (place + size)))


def _known_look(rows: Rows) -> np.ndarray:
    """All that is known of what a piece's person wears; zeros where nothing is."""
    if "look" not in (rows.dtype.names or ()):
        return np.zeros(LOOK_SHAPE)
    worn = rows["look"][rows["examined"]]
    return typical_look(worn) if len(worn) else np.zeros(worn.shape[1:])


def _column(counts: np.ndarray) -> np.ndarray:
    return counts[:, None, None, None]


def _velocity(rows: Rows, times: np.ndarray) -> np.ndarray:
    """Of the region's centre at the end, px/s."""
    at = times[rows["index"]]
    recent = rows[at >= at[-1] - SPEED_OVER]
    span = float(times[recent["index"][-1]] - times[recent["index"][0]])
    if span <= 0:
        return np.zeros(2)
    return np.asarray((recent["next_roi"][-1, :2] - recent["next_roi"][0, :2]) / span)
