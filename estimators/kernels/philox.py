"""The words of `estimators.noise` in lanes: one Philox-4x32-10 block for four replicates of one coordinate."""

from __future__ import annotations

import math

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
UNIT = 2.0**-32
AT_ONCE = 16  # blocks: a loop so short is unrolled whole, which makes the words in three quarters of the time


def philox(be: Backend) -> Function:
    """`philox(c0, c1, c2, c3, key)`: one block, four 32-bit words, each held in a uint64."""

    @be.jit
    def philox(c0, c1, c2, c3, key):  # type: ignore[no-untyped-def]
        k0, k1 = key & MASK, key >> SHIFT
        for _ in range(10):
            p0, p1 = c0 * M0, c2 * M1
            c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK, (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
            k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
        return c0, c1, c2, c3

    return philox


def words(be: Backend, lanes: int, S: int = 0) -> Function:
    """`words(out, event, tag, c)`: the words of every lane `[lanes]`, at one event index and tag.

    Where each lane has a datum of its own (S = 1) a block gives one word instead of four.
    """
    Q, block = lanes // 4, philox(be)
    A = blocks_at_once(lanes)

    @be.jit
    def shared(out, event, tag, c):  # type: ignore[no-untyped-def]
        datum, there = c.datum[0], c.tag + np.uint64(tag)
        for part in range(Q // A):
            at = 4 * A * part
            for i in range(A):
                counter = c.first + np.uint64(part * A + i)
                c0, c1, c2, c3 = block(counter, datum, np.uint64(event), there, c.key)
                out[at + i] = np.uint32(c0)
                out[at + A + i] = np.uint32(c1)
                out[at + 2 * A + i] = np.uint32(c2)
                out[at + 3 * A + i] = np.uint32(c3)

    @be.jit
    def own(out, event, tag, c):  # type: ignore[no-untyped-def]
        there = c.tag + np.uint64(tag)
        for part in range(Q // A):
            at, start = 4 * A * part, c.first + np.uint64(part * A)
            for i in range(A):
                w = block(start + np.uint64(i), c.datum[at + i], np.uint64(event), there, c.key)[0]
                out[at + i] = np.uint32(w)
            for i in range(A):
                w = block(start + np.uint64(i), c.datum[at + A + i], np.uint64(event), there, c.key)[1]
                out[at + A + i] = np.uint32(w)
            for i in range(A):
                w = block(start + np.uint64(i), c.datum[at + 2 * A + i], np.uint64(event), there, c.key)[2]
                out[at + 2 * A + i] = np.uint32(w)
            for i in range(A):
                w = block(start + np.uint64(i), c.datum[at + 3 * A + i], np.uint64(event), there, c.key)[3]
                out[at + 3 * A + i] = np.uint32(w)

    return own if S else shared


def uniform(be: Backend) -> Function:
    """(word + 1/2) 2^-32; in float32 rounded, and kept below one."""
    R = be.real
    HALF, SCALE, MOST = R(0.5), R(UNIT), R(1) - R(np.finfo(R).eps) / R(2)

    if not be.single:

        @be.jit
        def uniform(word):  # type: ignore[no-untyped-def]
            return (np.float64(word) + HALF) * SCALE

        return uniform

    @be.jit
    def rounded(word):  # type: ignore[no-untyped-def]
        u = (R(word) + HALF) * SCALE
        return u if u < MOST else MOST

    return rounded


def normals(be: Backend, words: Function, lanes: int, S: int = 0) -> Function | None:
    """`normals(out, event, tag, c)`: Box-Muller of words (0, 1) and of words (2, 3). None where a block gives one word (S = 1)."""
    if S:
        return None
    A, R = blocks_at_once(lanes), be.real
    u, log, sincos = uniform(be), vmath.log(be), vmath.sincos_turns(be)
    MINUS_TWO = R(-2)

    @be.jit
    def normals(out, event, tag, c):  # type: ignore[no-untyped-def]
        words(c.buf, event, tag, c)
        for half in range(lanes // (2 * A)):
            a, b = 2 * half * A, (2 * half + 1) * A
            for i in range(A):
                radius = math.sqrt(MINUS_TWO * log(u(c.buf[a + i])))
                sine, cosine = sincos(u(c.buf[b + i]))
                out[a + i] = radius * cosine
                out[b + i] = radius * sine

    return normals


def blocks_at_once(lanes: int) -> int:
    """A: lane 4 A m + A w + i holds word w of block A m + i."""
    return min(lanes // 4, AT_ONCE)


def replicates_of(lanes: int) -> np.ndarray:
    """The replicate, within its block of lanes, that each lane holds."""
    lane, A = np.arange(lanes), blocks_at_once(lanes)
    part, w, i = lane // (4 * A), lane // A % 4, lane % A
    return 4 * (A * part + i) + w
