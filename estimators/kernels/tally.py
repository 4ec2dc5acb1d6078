"""The sums of `bench.moments` taken in lanes, block after block, so that no gradient outlives its block.

What is added up over blocks, `[ADDED(P)]`: for each of the 64 groups n, sum |d|^2, sum cos, then s1 as `[P+1, 64]`; then s2, s3, s4
`[P+1]` and the number of zero gradients; d = g - pilot, coordinate P its projection on the axis. Groups are in the order of lanes:
16 w + i is group 4 i + w. Beside them the largest |d| `[P+1]`, and the largest |d|^2, ascending.
"""

from __future__ import annotations

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function

GROUPS, TOP = 64, 64
SIXTEEN = 16  # lanes of one word that lie in groups of their own
LARGEST = {np.float64: 1e120, np.float32: 1e18}  # of a squared length, in units: fourth powers stay finite
TINY = {np.float64: 1e-300, np.float32: 1e-30}  # squared lengths below it are zero: their roots are not normal numbers


def added(P: int) -> int:
    """Numbers that are added up over blocks."""
    return GROUPS * (3 + P + 1) + 3 * (P + 1) + 1


def powers(P: int, unit: float) -> np.ndarray:
    """What sums taken in units are multiplied by, `[ADDED(P)]`."""
    squares = np.full(GROUPS, unit**2)
    firsts = np.full(GROUPS * (P + 1), unit)
    each = [np.full(P + 1, unit**n) for n in (2, 3, 4)]
    return np.concatenate([np.ones(GROUPS), squares, np.ones(GROUPS), firsts, *each, [1.0]])


def group_order() -> np.ndarray:
    """The group of each place in lane order."""
    place = np.arange(GROUPS)
    return 4 * (place % SIXTEEN) + place // SIXTEEN


def tile_of(P: int) -> int:
    """Rows taken together, so that the sums over a lane's coordinates are loaded and stored more rarely."""
    return max(t for t in range(1, 9) if P % t == 0)


def tally(be: Backend, P: int, L: int) -> Function:
    """`tally(sums, high, top, lane, room, g, pilot, axis, along, floor)`: takes in one block's gradients g `[P, L]`.

    False, and nothing taken in, where one of them is not finite. pilot: `[P + 1]`, its last entry the unit of length, a power of
    two, in which float32 sums are taken (float64: 1). lane: `[4, L]` and room: `[4, 16]`, to work in. along: pilot . axis, floor:
    the length below which a gradient is zero, both in units. Sums of a block are in the lanes' precision, over blocks in float64.
    """
    T, Q, R = tile_of(P), L // 4, be.real
    root = vmath.inverse_root(be)
    ZERO, ONE, MOST, LEAST = R(0), R(1), LARGEST[R], TINY[R]
    AT_SQUARE, AT_COS, AT_S1 = GROUPS, 2 * GROUPS, 3 * GROUPS
    AT_S2 = AT_S1 + GROUPS * (P + 1)
    AT_S3, AT_S4, AT_ZERO = AT_S2 + P + 1, AT_S2 + 2 * (P + 1), AT_S2 + 3 * (P + 1)
    in_units = be.single

    @be.jit
    def over_coordinates(lane, g, pilot, axis):  # type: ignore[no-untyped-def]
        """lane = |d|^2, |g|^2 and d . axis of every lane."""
        per_unit = ONE / pilot[P]
        for l in range(L):
            lane[0, l] = ZERO
            lane[1, l] = ZERO
            lane[2, l] = ZERO
        for tile in range(P // T):
            for l in range(L):
                square, raw, h = lane[0, l], lane[1, l], lane[2, l]
                for t in range(T):
                    value = g[tile * T + t, l]
                    d = value - pilot[tile * T + t]
                    if in_units:
                        value *= per_unit
                        d *= per_unit
                    square += d * d
                    raw += value * value
                    h += d * axis[tile * T + t]
                lane[0, l] = square
                lane[1, l] = raw
                lane[2, l] = h

    @be.jit
    def over_lanes(sums, high, p, row, centre, per_unit, room):  # type: ignore[no-untyped-def]
        """Grouped sums of row - centre, its powers and its largest magnitude, of coordinate p; room: `[4, 16]`."""
        for i in range(SIXTEEN):
            room[0, i] = ZERO
            room[1, i] = ZERO
            room[2, i] = ZERO
            room[3, i] = ZERO
        s1 = sums[AT_S1 + GROUPS * p : AT_S1 + GROUPS * (p + 1)]
        for w in range(4):
            for i in range(SIXTEEN):
                t1, t2, t3, t4, most = ZERO, room[0, i], room[1, i], room[2, i], room[3, i]
                for step in range(Q // SIXTEEN):
                    d = row[w * Q + step * SIXTEEN + i] - centre
                    if in_units:
                        d *= per_unit
                    d2 = d * d
                    size = abs(d)
                    t1 += d
                    t2 += d2
                    t3 += d2 * d
                    t4 += d2 * d2
                    most = size if size > most else most
                s1[w * SIXTEEN + i] += t1
                room[0, i] = t2
                room[1, i] = t3
                room[2, i] = t4
                room[3, i] = most
        s2, s3, s4, most = ZERO, ZERO, ZERO, R(high[p])
        for i in range(SIXTEEN):
            s2 += room[0, i]
            s3 += room[1, i]
            s4 += room[2, i]
            most = room[3, i] if room[3, i] > most else most
        sums[AT_S2 + p] += s2
        sums[AT_S3 + p] += s3
        sums[AT_S4 + p] += s4
        high[p] = most

    @be.jit
    def grouped(sums, at, row):  # type: ignore[no-untyped-def]
        """Grouped sums of a row."""
        for w in range(4):
            for i in range(SIXTEEN):
                total = ZERO
                for step in range(Q // SIXTEEN):
                    total += row[w * Q + step * SIXTEEN + i]
                sums[at + w * SIXTEEN + i] += total

    @be.jit
    def cosines(lane, along, least):  # type: ignore[no-untyped-def]
        """lane[3] = cos(g, axis), 0 for a zero gradient; the number of those."""
        zeros = 0
        for l in range(L):
            raw = lane[1, l]
            some = raw >= least
            lane[3, l] = (lane[2, l] + along) * root(raw if some else ONE) if some else ZERO
            zeros += 0 if some else 1
        return zeros

    @be.jit
    def keep_largest(top, squares):  # type: ignore[no-untyped-def]
        """The largest of top and of squares, ascending."""
        for l in range(L):
            value = squares[l]
            if value > top[0]:
                place = 0
                while place + 1 < TOP and top[place + 1] < value:
                    top[place] = top[place + 1]
                    place += 1
                top[place] = value

    @be.jit
    def tally(sums, high, top, lane, room, g, pilot, axis, along, floor):  # type: ignore[no-untyped-def]
        over_coordinates(lane, g, pilot, axis)
        dead = 0
        for l in range(L):
            dead += 0 if lane[0, l] <= MOST else 1
        if dead:
            return False
        per_unit = ONE / pilot[P]
        for p in range(P):
            over_lanes(sums, high, p, g[p], pilot[p], per_unit, room)
        over_lanes(sums, high, P, lane[2], ZERO, ONE, room)
        zeros = cosines(lane, R(along), R(max(floor * floor, LEAST)))
        grouped(sums, AT_SQUARE, lane[0])
        grouped(sums, AT_COS, lane[3])
        for group in range(GROUPS):
            sums[group] += L // GROUPS
        sums[AT_ZERO] += zeros
        keep_largest(top, lane[0])
        return True

    return tally
