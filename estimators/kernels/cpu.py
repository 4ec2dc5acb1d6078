"""The CPU driver: gradients, and sums of gradients, of aligned ranges of replicates."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators.kernels import cache as disk
from estimators.kernels import philox, tally
from estimators.kernels.backend import Backend, cpu
from estimators.kernels.block import Pair, Tables, block
from estimators.kernels.lift import OURS, Opaque, digest
from estimators.kernels.tables import pair_and_tables

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.base import Estimator
    from problems.base import Problem

CHUNK = 4096  # replicates whose sums are added up on their own, and then folded in index order
AT_ONCE, HELD = 256, 2**25  # chunks whose sums are held before they are folded, at most, and bytes of them
PARTS = 4  # of these chunks for each thread, so that one that is held up leaves its share to the others

# Copied into the disk cache under a name that says all it was made from: numba finds the machine code of a function by its file.
# `estimate` and `take` are put into the module before it runs; being closures over other compiled functions, they are globals
# here, for numba never finds a closure over a compiled function again.
DRIVER = '''"""The driver of one kernel, written by estimators/kernels/cpu.py."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def gradients(out, blocks, T, first, tag, key):
    """out [blocks, P, L]: gradients of replicates 4 first and on."""
    x, e, r, z, room = np.empty(X, REAL), np.empty(E, REAL), np.empty(R, REAL), np.empty(Z, COMPLEX), np.empty(ROOM, REAL)
    site, par, row, jac = np.empty(SITE, REAL), np.empty(PAR, REAL), np.empty(ROW, REAL), np.empty(JAC, REAL)
    datum, chosen, buf = np.empty(DATUM, np.uint64), np.empty(CHOSEN, np.uint64), np.empty(BUF, np.uint32)
    for b in range(blocks):
        start = first + np.uint64(b * (L // 4))
        gradient(out[b], site, x, e, r, z, room, par, row, datum, jac, buf, chosen, T, start, tag, key)


@njit(cache=True, nogil=True, error_model="numpy")
def sums(added, high, top, whole, blocks, pilot, axis, along, floor, T, first, tag, key):
    """Sums of each chunk of so many blocks, from replicate 4 first on; whole[c] is 0 where a gradient is not finite."""
    x, e, r, z, room = np.empty(X, REAL), np.empty(E, REAL), np.empty(R, REAL), np.empty(Z, COMPLEX), np.empty(ROOM, REAL)
    site, par, row, jac = np.empty(SITE, REAL), np.empty(PAR, REAL), np.empty(ROW, REAL), np.empty(JAC, REAL)
    datum, chosen, buf = np.empty(DATUM, np.uint64), np.empty(CHOSEN, np.uint64), np.empty(BUF, np.uint32)
    g, lane = np.empty((P, L), REAL), np.empty((4, L), REAL)
    for c in range(len(added)):
        for b in range(blocks):
            start = first + np.uint64((c * blocks + b) * (L // 4))
            gradient(g, site, x, e, r, z, room, par, row, datum, jac, buf, chosen, T, start, tag, key)
            if not take(added[c], high[c], top[c], lane, g, pilot, axis, along, floor):
                whole[c] = 0
                break
'''


def known(pair: Pair, be: Backend, L: int) -> dict[str, Any]:
    """What the driver refers to."""
    made = block(pair, be, L)
    return {
        "gradient": made.gradient,
        "take": tally.tally(be, pair.P, L),
        "REAL": be.real,
        "COMPLEX": np.complex64 if be.single else np.complex128,
        "P": pair.P,
        "L": L,
        **made.scratch,
    }


def driver(pair: Pair, contract: bool = True) -> ModuleType:
    """The compiled driver of a pair; from the disk cache where it has been compiled before."""
    return disk.module(
        DRIVER,
        identity(pair, contract),
        lambda: known(pair, cpu(pair.dtype, contract, from_python=False), pair.lanes_of_cpu),
    )


def identity(pair: Pair, contract: bool) -> str | None:
    """All that the machine code depends on; None where f, or a form from elsewhere, cannot be told from another."""
    own = None if pair.estimator.startswith(OURS) else pair.factory
    try:
        read = [None if one is None else digest(one) for one in (pair.scalar_f, pair.lanes, own)]
    except (Opaque, RecursionError):  # functions that call one another in a circle
        return None
    return repr([sources(), read, contract, repr(replace(pair, scalar_f=None, lanes=None))])


@cache
def sources() -> str:
    """Digest of this package's files, and of the others that lane functions are made with."""
    here = Path(__file__).parent
    beside = (here.parent / "noise.py", here.parents[1] / "problems" / "lanes.py")
    files = [*sorted(here.glob("*.py")), *beside]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cache
def pool(workers: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process, kept: starting them takes as long as 100,000 gradients."""
    return ThreadPoolExecutor(workers)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled pair at its parameters and key. tag: the phase of the noise, in its place."""

    pair: Pair
    functions: ModuleType
    tables: Tables
    key: int
    tag: int
    chunk: int = CHUNK

    @property
    def at_once(self) -> int:
        """Chunks whose sums are held before they are folded."""
        return max(1, min(AT_ONCE, HELD // (8 * tally.added(self.pair.P))))

    def compiles(self) -> bool:
        """Compile the sums, or load them; False where numba cannot compile the problem's f."""
        from numba.core.errors import NumbaError

        nothing = np.zeros(self.pair.P)
        try:
            self.sums(range(0), nothing, nothing, 0.0, 0.0, 1.0)
        except NumbaError:
            return False
        return True

    def gradients(self, replicates: range) -> np.ndarray:
        """g `[R, P]` of consecutive replicates."""
        L, P = self.pair.lanes_of_cpu, self.pair.P
        first, last = replicates.start // L, -(-replicates.stop // L)
        out = np.empty((last - first, P, L), self.tables.par.dtype)
        self.functions.gradients(out, last - first, self.tables, np.uint64(first * (L // 4)), *self._address())
        g = np.empty((last - first, L, P))
        g[:, philox.replicates_of(L)] = out.transpose(0, 2, 1)
        skip = replicates.start - first * L
        return g.reshape(-1, P)[skip : skip + len(replicates)]

    def sums(
        self,
        chunks: range,
        pilot: np.ndarray,
        axis: np.ndarray,
        floor: float,
        least: float,
        scale: float,
        threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(added, high, top, whole) of each of these chunks of CHUNK replicates, a row each; see `tally`.

        least: squared lengths up to it are not looked for. scale: a usual length of a gradient; sums in float32 are taken in a
        power of two near it. Where `whole` is 0 a gradient is not finite, and the row is void.
        """
        P, C, real = self.pair.P, len(chunks), self.tables.par.dtype
        unit = 1.0 if real == np.float64 else 2.0 ** round(np.log2(scale))
        added, high = np.zeros((C, tally.added(P)), order="C"), np.zeros((C, P + 1))
        top, whole = np.full((C, tally.TOP), least / unit**2), np.ones(C, np.int64)
        along = float(np.dot(pilot, axis)) / unit
        centre = np.append(pilot, unit).astype(real)
        direction = axis.astype(real)

        def part(a: int, b: int) -> None:
            self.functions.sums(
                added[a:b],
                high[a:b],
                top[a:b],
                whole[a:b],
                CHUNK // self.pair.lanes_of_cpu,
                centre,
                direction,
                along,
                floor / unit,
                self.tables,
                np.uint64((chunks.start + a) * (CHUNK // 4)),
                *self._address(),
            )

        workers = min(threads, C)
        if workers < 2:
            part(0, C)
        else:
            parts = min(PARTS * workers, C)
            edges = [C * i // parts for i in range(parts + 1)]
            list(pool(workers, os.getpid()).map(part, edges[:-1], edges[1:]))
        if unit != 1.0:
            added *= tally.powers(P, unit)
            high *= unit
            top *= unit**2
        return added, high, top, whole

    def _address(self) -> tuple[np.uint64, np.uint64]:
        return np.uint64(self.tag), np.uint64(self.key)


def kernel(
    estimator: Estimator,
    problem: Problem,
    state: Mapping[str, Tensor] | None,
    key: int,
    phase: int,
    dtype: str = "float64",
    contract: bool = True,
) -> Kernel:
    """The pair's kernel at the problem's parameters, on the noise of this key and phase."""
    pair, tables = pair_and_tables(estimator, problem, state, dtype)
    check_learned(pair, state)
    return Kernel(pair, driver(pair, contract), tables, key, phase << 30)


def check_learned(pair: Pair, state: Mapping[str, Tensor] | None) -> None:
    """Raises ValueError where a form reads what was learned, and nothing was: it would read beyond its table."""
    if state is None and pair.form.state is not None:
        raise ValueError(f"the kernel {pair.estimator} reads a learned state, and none was given")
