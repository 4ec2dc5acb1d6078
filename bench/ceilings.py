"""What a kernel cannot pass on this machine: how fast one thread makes the random numbers that it is fed with.

A small buffer in lanes is filled again and again: with Philox words, as a Bernoulli's sampler is fed, and with normals by
Box-Muller.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bench.evaluate import Trial

LANES, FILLS, ROUNDS, KEY = 256, 2000, 100, np.uint64(0x5EED)
FILLER = '''"""A buffer filled again and again, written by bench/ceilings.py."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def filled(out, fills, key):
    buf, real, datum = np.empty(L, np.uint32), np.empty((1, 1), out.dtype), np.zeros(1, np.uint64)
    for i in range(fills):
        c = Here(real, real, datum, real, real, real, real, buf, real, real, np.uint64(0), np.uint64(0), key)
        fill(out, i, 0, c)
'''


@dataclass(frozen=True)
class Reads:
    """Random numbers of one replicate: normals, and words of every other kind of noise."""

    words: int
    normals: int


@dataclass(frozen=True)
class Ceilings:
    """Millions of numbers a second on one thread; normals by dtype."""

    words: float
    normals: Mapping[str, float]

    def replicates(self, read: Reads, dtype: str) -> float:
        """Millions of replicates a second, if their random numbers were all there is to make."""
        return 1 / (read.words / self.words + read.normals / self.normals[dtype])


def ceilings() -> Ceilings:
    """Of this machine, of the fastest of interleaved rounds: what else runs only slows them."""
    kinds = [("words", "float64"), ("normals", "float64"), ("normals", "float32")]
    calls = [_filler(*kind) for kind in kinds]
    seconds: list[list[float]] = [[] for _ in kinds]
    for _ in range(ROUNDS):
        for call, each in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            each.append(time.perf_counter() - started)
    words, *normals = (LANES * FILLS / min(each) / 1e6 for each in seconds)
    return Ceilings(words, dict(zip(("float64", "float32"), normals, strict=True)))


def numbers_read(trial: Trial) -> Reads:
    """Of one replicate; words that choose its rows of data are left out."""
    from estimators.base import asks, noise_of, size_of

    estimator, problem = trial.estimator, trial.problem
    size = size_of(problem)
    rows = problem.batch or problem.rows or 1
    counts = {True: 0, False: 0}
    for n in noise_of(estimator.noise, size, len(asks(estimator.points, size))):
        each = math.prod(n.front) * math.prod(n.event or ())
        counts[n.kind == "normal"] += each * rows if n.per_datum else each
    return Reads(words=counts[False], normals=counts[True])


def filled_once(kind: str, dtype: str) -> np.ndarray:
    """The buffer after one fill."""
    out = _buffer(kind, dtype)
    _filled(kind, dtype)(out, 1, KEY)
    return out


def _filler(kind: str, dtype: str) -> Callable[[], None]:
    """A call that fills the buffer FILLS times, compiled."""
    filled, out = _filled(kind, dtype), _buffer(kind, dtype)
    filled(out, 1, KEY)
    return lambda: filled(out, FILLS, KEY)


def _buffer(kind: str, dtype: str) -> np.ndarray:
    return np.empty(LANES, np.uint32 if kind == "words" else dtype)


def _filled(kind: str, dtype: str) -> Callable[..., None]:
    """`filled(out, fills, key)`, from the disk cache where it has been compiled before."""
    from estimators.kernels import cache, philox
    from estimators.kernels.backend import cpu
    from estimators.kernels.base import Here
    from estimators.kernels.cpu import sources

    def known() -> dict[str, Any]:
        be = cpu(dtype)
        words = philox.words(be, LANES)
        fill = words if kind == "words" else philox.normals(be, words, LANES)
        return {"fill": fill, "Here": Here, "L": LANES}

    made: Callable[..., None] = cache.module(FILLER, repr(["ceiling", sources(), kind, dtype]), known).filled
    return made
