"""The words of `estimators.noise` in lanes: one Philox-4x32-10 block for four replicates of one coordinate."""

from __future__ import annotations

import numpy as np

from estimators.kernels.backend import Backend, Function

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


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


def words(be: Backend, lanes: int) -> Function:
    """`words(out, first, event, tag, key)`: the words of 4 first, 4 first + 1, ... `[lanes]`, at one event index and tag."""
    Q, block = lanes // 4, philox(be)

    @be.jit
    def words(out, first, event, tag, key):  # type: ignore[no-untyped-def]
        for j in range(Q):
            counter = np.uint64(first) + np.uint64(j)
            c0, c1, c2, c3 = block(counter, np.uint64(0), np.uint64(event), np.uint64(tag), key)
            out[j] = np.uint32(c0)
            out[Q + j] = np.uint32(c1)
            out[2 * Q + j] = np.uint32(c2)
            out[3 * Q + j] = np.uint32(c3)

    return words


def replicates_of(lanes: int) -> np.ndarray:
    """The replicate, within its block, that each lane holds."""
    lane = np.arange(lanes)
    Q = lanes // 4
    return 4 * (lane % Q) + lane // Q
