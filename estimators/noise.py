"""Addressed noise: every random number is a pure function of its address, so nothing is ever consumed.

Philox-4x32-10 (Salmon et al. 2011). The key is 64 bits of a hash of (run seed, problem, settings, point): the estimator is left
out, so that all estimators of a problem see the same noise. Counter words:
(replicate // 4, datum or 0, flat event index, phase << 30 | noise index << 24 | flat front index); of the block's four words,
word r % 4 is replicate r's. Every kind of noise is a fixed map of the same words:

    uniform      (word + 1/2) 2^-32                       exponential  -log u
    sign         +1 where the word is below 2^31, else -1  gumbel       -log(-log u)
    normal       Box-Muller of words (0, 1) and (2, 3): replicates 4j, 4j+1 are the cosine and the sine of one radius, as 4j+2, 4j+3

Probabilities below 2^-33 are never drawn, and a normal never passes 6.8 standard deviations.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit

from problems.base import MOST_NOISE
from problems.families.base import Noise

if TYPE_CHECKING:
    from torch import Tensor

MEASURE, LEARN, PILOT, TRIAL = range(4)
ROWS_INDEX = 63
INNER_INDEX = ROWS_INDEX - MOST_NOISE  # the first that f itself draws
KINDS = ("uniform", "normal", "exponential", "gumbel", "sign")

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def key_of(*parts: object) -> int:
    """64 bits of SHA-256 of the parts, written with `repr` and separated."""
    text = "\x1f".join(repr(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@njit(cache=True, error_model="numpy")
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """One Philox-4x32-10 block: four 32-bit words, each held in a uint64."""
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _MASK, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@njit(cache=True, error_model="numpy")
def _shared(out, first, data, tag, key):  # type: ignore[no-untyped-def]
    """Words out[F, R, B, E] of replicates 4 first ... for data that all replicates share; R is a multiple of 4."""
    k0, k1 = key & _MASK, key >> _SHIFT
    fronts, replicates, rows, events = out.shape
    for f in range(fronts):
        for j in range(replicates // 4):
            for b in range(rows):
                for e in range(events):
                    w0, w1, w2, w3 = philox(np.uint64(first + j), data[b], np.uint64(e), np.uint64(tag + f), k0, k1)
                    out[f, 4 * j, b, e] = w0
                    out[f, 4 * j + 1, b, e] = w1
                    out[f, 4 * j + 2, b, e] = w2
                    out[f, 4 * j + 3, b, e] = w3


@njit(cache=True, error_model="numpy")
def _own(out, first, data, tag, key):  # type: ignore[no-untyped-def]
    """The same where each replicate has rows of its own: data [R, B]. Only the replicate's own pair of words is kept.

    out[F, R, B, E, 2]: the two words of the pair, the replicate's own first where r is even, second where it is odd.
    """
    k0, k1 = key & _MASK, key >> _SHIFT
    fronts, replicates, rows, events, _ = out.shape
    for f in range(fronts):
        for r in range(replicates):
            for b in range(rows):
                for e in range(events):
                    block = np.uint64((4 * first + r) // 4)
                    w0, w1, w2, w3 = philox(block, data[r, b], np.uint64(e), np.uint64(tag + f), k0, k1)
                    low = r % 4 < 2
                    out[f, r, b, e, 0] = w0 if low else w2
                    out[f, r, b, e, 1] = w1 if low else w3


def addressed(
    noise: Noise,
    key: int,
    phase: int,
    index: int,
    replicates: range,
    data: Tensor | Sequence[int] | None,
    dtype: torch.dtype,
) -> Tensor:
    """The array `[*front, R, (B,) *event]` of one Noise; its event must be given.

    key: 64 bits (`key_of`). phase: MEASURE, LEARN, PILOT or TRIAL. index: place of the noise in the estimator's list.
    replicates: consecutive indices. data: None, the indices `[B]` of the data, or each replicate's own `[R, B]`.
    """
    assert noise.event is not None
    assert replicates.step == 1
    if not 0 <= index <= ROWS_INDEX:
        raise ValueError(f"there are at most {ROWS_INDEX} arrays of noise")
    if noise.kind not in KINDS:
        raise ValueError(f"there is no noise of kind {noise.kind!r}; there are {', '.join(KINDS)}")
    fronts, events = math.prod(noise.front), math.prod(noise.event)
    tag = phase << 30 | index << 24
    first, last = replicates.start // 4, -(-replicates.stop // 4)
    skip = replicates.start - 4 * first
    with_data = data is not None and noise.per_datum
    rows = np.asarray(data if with_data else [0], dtype=np.uint64)
    if rows.ndim == 2:
        return _own_rows(noise, rows, np.uint64(key), tag, first, skip, dtype)
    words = np.empty((fronts, 4 * (last - first), len(rows), events), np.uint32)
    _shared(words, first, rows, tag, np.uint64(key))
    if noise.kind == "normal":
        values = _box_muller(words.reshape(fronts, -1, 4, len(rows), events)).reshape(words.shape)
    else:
        values = _map(noise.kind, words)
    values = values[:, skip : skip + len(replicates)]
    shape = (*noise.front, len(replicates), *([len(rows)] if with_data else []), *noise.event)
    out = _cast(noise.kind, values, dtype).reshape(shape)
    return out if with_data or data is None else out.unsqueeze(len(noise.front) + 1)


def _own_rows(
    noise: Noise, rows: np.ndarray, key: np.uint64, tag: int, first: int, skip: int, dtype: torch.dtype
) -> Tensor:
    assert noise.event is not None
    replicates = len(rows)
    padded = np.concatenate([np.zeros((skip, rows.shape[1]), np.uint64), rows]) if skip else rows
    pair = np.empty((math.prod(noise.front), len(padded), rows.shape[1], math.prod(noise.event), 2), np.uint32)
    _own(pair, first, padded, tag, key)
    odd = (np.arange(len(padded)) % 2).astype(bool)[None, :, None, None]
    if noise.kind == "normal":
        radius, angle = _polar(pair[..., 0], pair[..., 1])
        values = radius * np.where(odd, np.sin(angle), np.cos(angle))
    else:
        values = _map(noise.kind, np.where(odd, pair[..., 1], pair[..., 0]))
    shape = (*noise.front, replicates, rows.shape[1], *noise.event)
    return _cast(noise.kind, values[:, skip:], dtype).reshape(shape)


def _cast(kind: str, values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """In `dtype`; a uniform stays below one, to which float32 would round the largest."""
    out = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    return out.clamp(max=1 - torch.finfo(dtype).eps / 2) if kind == "uniform" and dtype != torch.float64 else out


def _uniform(words: np.ndarray) -> np.ndarray:
    return (words + 0.5) * 2.0**-32


def _map(kind: str, words: np.ndarray) -> np.ndarray:
    u = _uniform(words)
    if kind == "uniform":
        return u
    if kind == "exponential":
        return -np.log(u)
    if kind == "gumbel":
        return -np.log(-np.log(u))
    return np.where(u < 0.5, 1.0, -1.0)


def _polar(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sqrt(-2 * np.log(_uniform(first))), 2 * np.pi * _uniform(second)


def _box_muller(words: np.ndarray) -> np.ndarray:
    """sqrt(-2 log u1) (cos, sin)(2 pi u2); words: [F, R / 4, 4, B, E], the pairs (0, 1) and (2, 3) of the third axis."""
    radius, angle = _polar(words[:, :, 0::2], words[:, :, 1::2])
    values = np.empty(words.shape)
    values[:, :, 0::2] = radius * np.cos(angle)
    values[:, :, 1::2] = radius * np.sin(angle)
    return values


def rows_without_replacement(key: int, phase: int, replicates: range, rows: int, batch: int) -> Tensor:
    """`batch` distinct rows of `rows` for each replicate, `[R, batch]`: the places of the smallest of addressed uniforms."""
    order = Noise("uniform", (), (rows,))
    u = addressed(order, key, phase, ROWS_INDEX, replicates, None, torch.float64)
    return u.argsort(dim=-1, stable=True)[..., :batch]
