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
    """`tally(sums, high, top, lane, g, pilot, axis, along, floor)`: takes in one block's gradients g `[P, L]`.

    False, and the sums void, where one of them is not finite. pilot: `[P + 1]`, its last entry the unit of length, a power of
    two, in which float32 sums are taken (float64: 1). lane: `[4, L]`, to work in. along: pilot . axis, floor:
    the length below which a gradient is zero, both in units. Sums of a block are in the lanes' precision, over blocks in float64.
    """
    T, R = tile_of(P), be.real
    root, bits, unbits = vmath.inverse_root(be), be.bits, be.unbits
    ZERO, ONE, MOST, LEAST = R(0), R(1), R(LARGEST[R]), TINY[R]
    AT_SQUARE, AT_COS, AT_S1 = GROUPS, 2 * GROUPS, 3 * GROUPS
    AT_S2 = AT_S1 + GROUPS * (P + 1)
    AT_S3, AT_S4, AT_ZERO = AT_S2 + P + 1, AT_S2 + 2 * (P + 1), AT_S2 + 3 * (P + 1)
    in_units = be.single

    @be.jit
    def over_coordinates(lane, g, tile, pilot, axis, per_unit):  # type: ignore[no-untyped-def]
        """lane += |d|^2, |g|^2 and d . axis of every lane, over the rows of one tile."""
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

    @be.sum_jit
    def over_lanes(sums, high, p, row, centre, per_unit):  # type: ignore[no-untyped-def]
        """Grouped sums of d = row - centre, sums of d^2, d^3, d^4 and the largest |d|, of coordinate p.

        Magnitudes are in the order of their bits.
        """
        s1 = sums[AT_S1 + GROUPS * p : AT_S1 + GROUPS * (p + 1)]
        s2, s3, s4, most = ZERO, ZERO, ZERO, bits(ZERO)
        for i in range(GROUPS):
            t1 = ZERO
            for step in range(L // GROUPS):
                d = row[step * GROUPS + i] - centre
                if in_units:
                    d *= per_unit
                d2 = d * d
                size = bits(abs(d))
                t1 += d
                s2 += d2
                s3 += d2 * d
                s4 += d2 * d2
                most = size if size > most else most
            s1[i] += t1
        sums[AT_S2 + p] += s2
        sums[AT_S3 + p] += s3
        sums[AT_S4 + p] += s4
        high[p] = max(high[p], unbits(most))

    @be.jit
    def grouped(sums, at, row):  # type: ignore[no-untyped-def]
        """Grouped sums of a row."""
        for i in range(GROUPS):
            total = ZERO
            for step in range(L // GROUPS):
                total += row[step * GROUPS + i]
            sums[at + i] += total

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
    def longest(squares):  # type: ignore[no-untyped-def]
        """Bits of the largest of squares; what is not a number has larger bits than any number."""
        most = bits(ZERO)
        for l in range(L):
            size = bits(squares[l])
            most = size if size > most else most
        return most

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
    def tally(sums, high, top, lane, g, pilot, axis, along, floor):  # type: ignore[no-untyped-def]
        per_unit = ONE / pilot[P]
        lane[:3] = ZERO
        for tile in range(P // T):
            over_coordinates(lane, g, tile, pilot, axis, per_unit)
            for p in range(tile * T, tile * T + T):
                over_lanes(sums, high, p, g[p], pilot[p], per_unit)
        most = longest(lane[0])
        if most > bits(MOST):
            return False
        over_lanes(sums, high, P, lane[2], ZERO, ONE)
        zeros = cosines(lane, R(along), R(max(floor * floor, LEAST)))
        grouped(sums, AT_SQUARE, lane[0])
        grouped(sums, AT_COS, lane[3])
        for group in range(GROUPS):
            sums[group] += L // GROUPS
        sums[AT_ZERO] += zeros
        if unbits(most) > top[0]:
            keep_largest(top, lane[0])
        return True

    return tally
