"""The CPU driver: gradients, and sums of gradients, of aligned ranges of replicates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators.kernels import cache as disk
from estimators.kernels import philox, tally
from estimators.kernels.backend import Backend, cpu
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import FAMILIES
from estimators.kernels.lift import Opaque, differentiated, digest, lifted

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4096  # replicates whose sums are added up on their own, and then folded in index order
LANES = 256  # of a block: half and twice as many are slower at D = 6 or at D = 200
AT_ONCE = 64  # chunks whose sums are held before they are folded

# Copied into the disk cache under a name that says all it was made from: numba finds the machine code of a function by its file.
# `estimate` and `take` are put into the module before it runs; being closures over other compiled functions, they are globals
# here, for numba never finds a closure over a compiled function again.
DRIVER = '''"""The driver of one kernel, written by estimators/kernels/cpu.py."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def gradients(out, blocks, par, first, tag, key):
    """out [blocks, P, L]: gradients of replicates 4 first and on."""
    x, e, f, z, buf = np.empty(X), np.empty(E), np.empty(F), np.empty(Z, np.complex128), np.empty(L, np.uint32)
    for b in range(blocks):
        estimate(out[b], x, e, f, z, par, buf, first + np.uint64(b * (L // 4)), tag, key)


@njit(cache=True, nogil=True, error_model="numpy")
def sums(added, high, top, whole, blocks, par, pilot, axis, along, floor, first, tag, key):
    """Sums of each chunk of so many blocks, from replicate 4 first on; whole[c] is 0 where a gradient is not finite."""
    x, e, f, z, buf = np.empty(X), np.empty(E), np.empty(F), np.empty(Z, np.complex128), np.empty(L, np.uint32)
    g, lane, room = np.empty((P, L)), np.empty((4, L)), np.empty((4, 16))
    for c in range(len(added)):
        for b in range(blocks):
            block = np.uint64((c * blocks + b) * (L // 4))
            estimate(g, x, e, f, z, par, buf, first + block, tag, key)
            if not take(added[c], high[c], top[c], lane, room, g, pilot, axis, along, floor):
                whole[c] = 0
                break
'''


@dataclass(frozen=True)
class Pair:
    """What a kernel is compiled for. estimator: "module:factory" of its Form. theta: shape of the parameters."""

    estimator: str
    settings: tuple[tuple[str, Any], ...]
    family: str
    scalar_f: Callable[..., float]
    D: int

    @property
    def P(self) -> int:
        """Entries of a gradient."""
        return self.D * FAMILIES[self.family].per_site

    @property
    def form(self) -> Form:
        """The estimator in lanes."""
        module, factory = self.estimator.split(":")
        found: Form = getattr(import_module(module), factory)(**dict(self.settings))
        return found


def lane_functions(pair: Pair, be: Backend) -> tuple[Any, Any]:
    """(estimate, take): a block's gradients, and its sums."""
    form, D, P, L = pair.form, pair.D, pair.P, LANES
    words = philox.words(be, L)
    sample, score, path = FAMILIES[pair.family].build(be, words, D, L)
    f = lifted(be, pair.scalar_f, L)
    df = differentiated(be, pair.scalar_f, D, L)
    estimate = form.build(Lanes(be, sample, score, path, f, df, words, D, P, L))
    return estimate, tally.tally(be, P, L)


def known(pair: Pair, be: Backend) -> dict[str, Any]:
    """What the driver refers to."""
    form, D = pair.form, pair.D
    estimate, take = lane_functions(pair, be)
    return {
        "estimate": estimate,
        "take": take,
        "X": (form.points, D, LANES),
        "E": (form.points, FAMILIES[pair.family].noise_rows * D or 1, LANES),
        "F": (max(form.rows, 1), LANES),
        "Z": (D if form.gradient else 1, LANES),
        "P": pair.P,
        "L": LANES,
    }


def driver(pair: Pair, contract: bool = True) -> ModuleType:
    """The compiled driver of a pair; from the disk cache where it has been compiled before."""
    return disk.module(DRIVER, identity(pair, contract), lambda: known(pair, cpu(contract)))


def identity(pair: Pair, contract: bool) -> str | None:
    """All that the machine code depends on; None where f cannot be told from another f, so that it is compiled anew."""
    try:
        f = digest(pair.scalar_f)
    except Opaque:
        return None
    return repr([sources(), f, pair.estimator, pair.settings, pair.family, pair.D, contract])


@cache
def sources() -> str:
    """Digest of this package's files."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled pair at its parameters and key. par: see `LaneFamily.prepare`. tag: the phase of the noise, in its place."""

    pair: Pair
    functions: ModuleType
    par: np.ndarray
    key: int
    tag: int

    def compiles(self) -> bool:
        """Compile the sums, or load them; False where numba cannot compile the problem's f."""
        from numba.core.errors import NumbaError

        nothing = np.zeros(self.pair.P)
        try:
            self.sums(range(0), nothing, nothing, 0.0, 0.0)
        except NumbaError:
            return False
        return True

    def gradients(self, replicates: range) -> np.ndarray:
        """g `[R, P]` of consecutive replicates."""
        L, P = LANES, self.pair.P
        first, last = replicates.start // L, -(-replicates.stop // L)
        out = np.empty((last - first, P, L))
        self.functions.gradients(out, last - first, self.par, np.uint64(first * (L // 4)), *self._address())
        g = np.empty((last - first, L, P))
        g[:, philox.replicates_of(L)] = out.transpose(0, 2, 1)
        skip = replicates.start - first * L
        return g.reshape(-1, P)[skip : skip + len(replicates)]

    def sums(
        self, chunks: range, pilot: np.ndarray, axis: np.ndarray, floor: float, least: float, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(added, high, top, whole) of each of these chunks of CHUNK replicates, a row each; see `tally`.

        least: squared lengths up to it are not looked for. Where `whole` is 0 a gradient is not finite, and the row is void.
        """
        P, L, C = self.pair.P, LANES, len(chunks)
        added, high = np.zeros((C, tally.added(P)), order="C"), np.zeros((C, P + 1))
        top, whole = np.full((C, tally.TOP), least), np.ones(C, np.int64)
        along = float(np.dot(pilot, axis))

        def part(a: int, b: int) -> None:
            first = np.uint64((chunks.start + a) * (CHUNK // 4))
            self.functions.sums(
                added[a:b],
                high[a:b],
                top[a:b],
                whole[a:b],
                CHUNK // L,
                self.par,
                pilot,
                axis,
                along,
                floor,
                first,
                *self._address(),
            )

        workers = min(threads, C)
        if workers < 2:
            part(0, C)
        else:
            edges = [C * i // workers for i in range(workers + 1)]
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(part, edges[:-1], edges[1:]))
        return added, high, top, whole

    def _address(self) -> tuple[np.uint64, np.uint64]:
        return np.uint64(self.tag), np.uint64(self.key)


def kernel(pair: Pair, theta: Tensor, key: int, phase: int, contract: bool = True) -> Kernel:
    """The pair's kernel at these parameters, on the noise of this key and phase."""
    par = np.ascontiguousarray(FAMILIES[pair.family].prepare(theta), dtype=np.float64)
    return Kernel(pair, driver(pair, contract), par, key, phase << 30)
