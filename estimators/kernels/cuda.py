"""The CUDA driver, and the one file that names numba's CUDA: a thread is four lanes, which are one Philox block.

Gradients go to the device's memory, `[P, 4, Q]` with entry (p, w, j) of replicate 4 j + w, so that neighbouring threads write
neighbouring numbers; two kernels that know no pair read them and leave the sums of `tally`, added up in a fixed order in float64.
Nothing is cached on disk: a pair is compiled once a process. Under numba's simulator the same functions run in plain Python.
"""

from __future__ import annotations

import dis
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from estimators.kernels import philox, tally
from estimators.kernels.backend import Backend, Function, plain
from estimators.kernels.block import Block, Pair, Tables, block
from estimators.kernels.cpu import CHUNK, check_learned, identity
from estimators.kernels.tables import pair_and_tables

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.base import Estimator
    from problems.base import Problem

    config: Any
    cuda: Any
else:
    from numba import config, cuda

    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # few replicates make a small grid, and that is what was asked for

LANES = 4  # of a thread
THREADS = 128  # of a block that makes gradients: with 255 registers each, two blocks fit a multiprocessor
SLOTS = tally.GROUPS  # threads of a block that adds up, one a group
OF_WORD = tally.SIXTEEN  # groups of one word of a Philox block
MOST_LOCAL = 2**14  # bytes of a thread's own memory; what needs more works in global memory
MOST_A_THREAD = 2**21  # bytes of it there
WORKSPACE = 2**30  # bytes of gradients, and of what threads work in, held at once
AT_ONCE = 1024  # chunks whose sums are held at once, at most
H, SQUARE, COS, ZERO, MADE = range(
    5
)  # rows made of each gradient: d . axis, |d|^2, cos(g, axis), 1 for a zero gradient


class Space(NamedTuple):
    """What a block of lanes works in, in the order in which it takes it."""

    site: Any
    x: Any
    e: Any
    r: Any
    z: Any
    room: Any
    par: Any
    row: Any
    datum: Any
    jac: Any
    buf: Any
    chosen: Any


def backend(dtype: str = "float64") -> Backend:
    """numba for CUDA, where a b + c may be rounded once; under the simulator plain Python, where it is not."""
    if config.ENABLE_CUDASIM:
        return replace(plain(dtype), name="cuda")
    libdevice: Any = import_module("numba.cuda.libdevice")

    inlined, viewed = cuda.jit(device=True, forceinline=True), cuda.jit(device=True, inline="always")

    def jit(function: Function) -> Function:
        made: Function = viewed(function) if returns_an_element(function) else inlined(function)
        return made

    if dtype == "float32":
        as_int, as_real = libdevice.float_as_int, libdevice.int_as_float

        @jit
        def bits_single(x):  # type: ignore[no-untyped-def]
            return np.uint32(as_int(x))

        @jit
        def unbits_single(u):  # type: ignore[no-untyped-def]
            return as_real(np.int32(u))

        return Backend("cuda", np.float32, jit, bits_single, unbits_single)
    as_long, as_double = libdevice.double_as_longlong, libdevice.longlong_as_double

    @jit
    def bits(x):  # type: ignore[no-untyped-def]
        return np.uint64(as_long(x))

    @jit
    def unbits(u):  # type: ignore[no-untyped-def]
        return as_double(np.int64(u))

    return Backend("cuda", np.float64, jit, bits, unbits)


def returns_an_element(function: Function) -> bool:
    """It is no more than `return a[i]`, which may be a view: numba's CUDA lets no function return one, so it is inlined first."""
    steps = list(dis.get_instructions(function))
    names = [step.opname for step in steps]
    subscripted = names[-2] == "BINARY_SUBSCR" or steps[-2].argrepr == "[]"
    return subscripted and names.count("RETURN_VALUE") == 1 and not any("STORE" in n or "CALL" in n for n in names)


@cache
def why_unusable() -> str | None:
    """Why no kernel can run here, in a sentence; None where it can."""
    if config.ENABLE_CUDASIM:
        return None
    if find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install -e '.[cuda]'"
    return None if cuda.is_available() else "numba sees no CUDA device"


def shapes(made: Block) -> Space:
    """The shapes of what it works in."""
    return Space(**{name: made.scratch[name.upper()] for name in Space._fields})


def types(be: Backend) -> Space:
    """The numbers of each."""
    real, whole = be.real, np.uint64
    found = dict.fromkeys(Space._fields, real)
    z = np.complex64 if be.single else np.complex128
    return Space(**{**found, "z": z, "datum": whole, "chosen": whole, "buf": np.uint32})


def bytes_of(pair: Pair, be: Backend, made: Block) -> int:
    """What a thread works in, its gradients with it."""
    sizes = zip(shapes(made), types(be), strict=True)
    scratch = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in sizes)
    return scratch + pair.P * LANES * np.dtype(be.real).itemsize


def why_too_large(pair: Pair) -> str | None:
    """What a thread would need, where it is more than it can have."""
    be = plain(pair.dtype)
    needs = bytes_of(pair, be, block(pair, be, LANES))
    most = MOST_A_THREAD // 2**20
    return f"a CUDA thread would work in {needs / 2**20:.1f} MiB, over {most} MiB" if needs > MOST_A_THREAD else None


def in_local_memory(pair: Pair, be: Backend, made: Block) -> Function:
    """`gradients(out [P, 4, Q], space, T, first, tag, key)`, of replicates 4 first on; each thread's work is its own."""
    P, gradient = pair.P, made.gradient
    SITE, X, E, R, Z, ROOM, PAR, ROW, DATUM, JAC, BUF, CHOSEN = shapes(made)
    REAL, COMPLEX = be.real, types(be).z

    def gradients(out, space, T, first, tag, key):  # type: ignore[no-untyped-def]
        g, site = cuda.local.array((P, LANES), REAL), cuda.local.array(SITE, REAL)
        x, e, r = cuda.local.array(X, REAL), cuda.local.array(E, REAL), cuda.local.array(R, REAL)
        z, room = cuda.local.array(Z, COMPLEX), cuda.local.array(ROOM, REAL)
        par, row = cuda.local.array(PAR, REAL), cuda.local.array(ROW, REAL)
        datum, jac = cuda.local.array(DATUM, np.uint64), cuda.local.array(JAC, REAL)
        buf, chosen = cuda.local.array(BUF, np.uint32), cuda.local.array(CHOSEN, np.uint64)
        for j in range(cuda.grid(1), out.shape[2], cuda.gridsize(1)):
            start = first + np.uint64(j)
            gradient(g, site, x, e, r, z, room, par, row, datum, jac, buf, chosen, T, start, tag, key)
            for p in range(P):
                for l in range(LANES):
                    out[p, l, j] = g[p, l]

    return gradients


def in_global_memory(pair: Pair, be: Backend, made: Block) -> Function:
    """The same, each thread working at its place on the last axis of every array of space."""
    gradient = made.gradient

    def gradients(out, space, T, first, tag, key):  # type: ignore[no-untyped-def]
        at = cuda.grid(1)
        for j in range(at, out.shape[2], cuda.gridsize(1)):
            gradient(
                out[:, :, j],
                space.site[..., at],
                space.x[..., at],
                space.e[..., at],
                space.r[..., at],
                space.z[..., at],
                space.room[..., at],
                space.par[..., at],
                space.row[..., at],
                space.datum[..., at],
                space.jac[..., at],
                space.buf[..., at],
                space.chosen[..., at],
                T,
                first + np.uint64(j),
                tag,
                key,
            )

    return gradients


def measured(made, whole, g, pilot, axis, along, floor, quads):  # type: ignore[no-untyped-def]
    """Of each gradient of g `[P, 4, Q]` the rows made `[MADE, 4, Q]`; whole[c] is 0 where chunk c has one that is not finite.

    quads: quarters of the replicates of a chunk. along: pilot . axis. floor: the squared length below which a gradient is zero.
    """
    Q = g.shape[2]
    for i in range(cuda.grid(1), LANES * Q, cuda.gridsize(1)):
        w, j = i // Q, i % Q
        square, raw, h = 0.0, 0.0, 0.0
        for p in range(g.shape[0]):
            value = np.float64(g[p, w, j])
            d = value - pilot[p]
            square += d * d
            raw += value * value
            h += d * axis[p]
        if not square <= MOST:
            whole[j // quads] = 0
        some = raw >= floor
        made[H, w, j] = h
        made[SQUARE, w, j] = square
        made[COS, w, j] = (h + along) / math.sqrt(raw if some else 1.0) if some else 0.0
        made[ZERO, w, j] = 0.0 if some else 1.0


def summed(added, high, g, made, pilot, quads):  # type: ignore[no-untyped-def]
    """The sums of chunk blockIdx.x over row blockIdx.y of the gradients, and then of the rows made; a thread is a group.

    added `[C, ADDED(P)]`, high `[C, P + 1]`: as in `tally`. The groups' sums are added up in pairs, whatever thread is first.
    """
    part = cuda.shared.array((5, SLOTS), np.float64)
    c, row, slot, P = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, g.shape[0]
    w, i = slot // OF_WORD, slot % OF_WORD
    t1, t2, t3, t4, most = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(c * quads + i, (c + 1) * quads, OF_WORD):
        d = np.float64(g[row, w, j]) - pilot[row] if row < P else made[row - P, w, j]
        d2 = d * d
        size = abs(d)
        t1 += d
        t2 += d2
        t3 += d2 * d
        t4 += d2 * d2
        most = size if size > most else most
    part[0, slot] = t1
    part[1, slot] = t2
    part[2, slot] = t3
    part[3, slot] = t4
    part[4, slot] = most
    if row <= P:
        added[c, (3 + row) * SLOTS + slot] = t1
    elif row == P + SQUARE:
        added[c, slot] = LANES * quads // SLOTS
        added[c, SLOTS + slot] = t1
    elif row == P + COS:
        added[c, 2 * SLOTS + slot] = t1
    half = SLOTS // 2
    while half > 0:
        cuda.syncthreads()
        if slot < half:
            for n in range(4):
                part[n, slot] += part[n, slot + half]
            other = part[4, slot + half]
            part[4, slot] = other if other > part[4, slot] else part[4, slot]
        half //= 2
    if slot == 0:
        after = SLOTS * (P + 4)
        if row <= P:
            for n in range(3):
                added[c, after + n * (P + 1) + row] = part[n + 1, 0]
            high[c, row] = part[4, 0]
        elif row == P + ZERO:
            added[c, after + 3 * (P + 1)] = part[0, 0]


MOST = tally.LARGEST[np.float64]
LEAST = tally.TINY[np.float64]


@cache
def adding() -> tuple[Any, Any]:
    """`measured` and `summed`, compiled."""
    return cuda.jit(measured), cuda.jit(summed)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A pair's kernel. threads: at most so many. space: shapes and types; None where threads work in memory of their own."""

    run: Any
    threads: int
    space: tuple[tuple[tuple[int, ...], Any], ...] | None = None

    def spaces(self) -> Space | int:
        """What its threads work in, on the device."""
        if self.space is None:
            return 0
        return Space(*(cuda.device_array((*shape, self.threads), kind) for shape, kind in self.space))


def chosen_form(pair: Pair, be: Backend) -> tuple[Callable[[Pair, Backend, Block], Function], Block, int]:
    """Where its threads work, the block of lanes, and the bytes that a thread works in."""
    made = block(pair, be, LANES)
    needs = bytes_of(pair, be, made)
    return (in_local_memory if needs <= MOST_LOCAL else in_global_memory), made, needs


def compiled(pair: Pair) -> Compiled:
    """The pair's kernel, compiled at its first launch."""
    be = backend(pair.dtype)
    form, made, needs = chosen_form(pair, be)
    run = cuda.jit(form(pair, be, made))
    if form is in_local_memory:
        return Compiled(run, 2**20)
    threads = max(THREADS, min(2**17, WORKSPACE // needs) // THREADS * THREADS)
    return Compiled(run, threads, tuple(zip(shapes(made), types(be), strict=True)))


_compiled: dict[str, Compiled] = {}


def driver(pair: Pair) -> Compiled:
    """The same, once a process where two can be told apart."""
    name = identity(pair, True)
    if name is None:
        return compiled(pair)
    if name not in _compiled:
        _compiled[name] = compiled(pair)
    return _compiled[name]


@dataclass(eq=False)
class Kernel:
    """A pair at its parameters and key, which stay on the device. tag: the phase of the noise, in its place.

    chunk: replicates whose sums are added up on their own.
    """

    pair: Pair
    compiled: Compiled
    tables: Tables
    key: int
    tag: int
    chunk: int = CHUNK
    threads: int = THREADS
    held: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    space: Space | int | None = None

    @property
    def at_once(self) -> int:
        """Chunks whose sums are asked for at once."""
        return max(1, min(AT_ONCE, WORKSPACE // (8 * self.chunk * (self.pair.P + MADE))))

    def compiles(self) -> bool:
        """Compile the gradients; False where numba cannot compile the problem's f."""
        from numba.core.errors import NumbaError

        try:
            self.gradients(range(LANES))
        except NumbaError:
            return False
        return True

    def gradients(self, replicates: range) -> np.ndarray:
        """g `[R, P]` of consecutive replicates."""
        first, last = replicates.start // LANES, -(-replicates.stop // LANES)
        out = cuda.device_array((self.pair.P, LANES, last - first), self._real)
        self._launch(out, first)
        g = out.copy_to_host().transpose(2, 1, 0).reshape(-1, self.pair.P).astype(np.float64)
        skip = replicates.start - first * LANES
        return g[skip : skip + len(replicates)]

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
        """(added, high, top, whole) of each of these chunks, a row each; see `tally`. Only they come back from the device.

        least: squared lengths up to it need not be found. scale, threads: of no use here. Where `whole` is 0 a gradient is not
        finite, and the row is void.
        """
        P, C, quads = self.pair.P, len(chunks), self.chunk // LANES
        g, made = self._held(C)
        self._launch(g, chunks.start * quads)
        measure, add = adding()
        added, high = cuda.device_array((C, tally.added(P)), np.float64), cuda.device_array((C, P + 1), np.float64)
        whole, centre = cuda.to_device(np.ones(C, np.int64)), cuda.to_device(pilot)
        along, below = float(np.dot(pilot, axis)), max(floor * floor, LEAST)
        blocks = -(-C * self.chunk // self.threads)
        measure[blocks, self.threads](made, whole, g, centre, cuda.to_device(axis), along, below, quads)
        add[(C, P + MADE), SLOTS](added, high, g, made, centre, quads)
        top = np.maximum(largest(made, C), least)
        return added.copy_to_host(), high.copy_to_host(), top, whole.copy_to_host()

    def _launch(self, out: Any, first: int) -> None:
        quads = min(out.shape[2], self.compiled.threads)
        self.space = self.compiled.spaces() if self.space is None else self.space
        run = self.compiled.run[-(-quads // self.threads), self.threads]
        run(out, self.space, self.tables, np.uint64(first), np.uint64(self.tag), np.uint64(self.key))

    def _held(self, chunks: int) -> tuple[Any, Any]:
        """Where the gradients of so many chunks go, and the rows made of them."""
        if chunks not in self.held:
            self.held.clear()
            quads = chunks * self.chunk // LANES
            g = cuda.device_array((self.pair.P, LANES, quads), self._real)
            self.held[chunks] = g, cuda.device_array((MADE, LANES, quads), np.float64)
        return self.held[chunks]

    @property
    def _real(self) -> Any:
        return np.dtype(self.pair.dtype).type


def largest(made: Any, chunks: int) -> np.ndarray:
    """The largest squared lengths of each chunk, ascending `[C, 64]`; found on the device where torch is there too."""
    import torch

    if config.ENABLE_CUDASIM or not torch.cuda.is_available():
        squares = made.copy_to_host()[SQUARE].reshape(LANES, chunks, -1).transpose(1, 0, 2).reshape(chunks, -1)
        return np.sort(squares)[:, -tally.TOP :]
    rows = torch.as_tensor(made, device=f"cuda:{cuda.get_current_device().id}")[SQUARE]
    found = rows.view(LANES, chunks, -1).transpose(0, 1).reshape(chunks, -1).topk(tally.TOP).values
    return np.ascontiguousarray(found.cpu().numpy()[:, ::-1])


def kernel(
    estimator: Estimator,
    problem: Problem,
    state: Mapping[str, Tensor] | None,
    key: int,
    phase: int,
    dtype: str = "float64",
    device: int = 0,
) -> Kernel:
    """The pair's kernel at the problem's parameters, on the noise of this key and phase. The problem's tensors are on the CPU.

    Raises ValueError where a thread would have to hold more than it can.
    """
    pair, tables = pair_and_tables(estimator, problem, state, dtype)
    check_learned(pair, state)
    if why := why_too_large(pair):
        raise ValueError(f"{estimator.name} on {problem.name}: {why}")
    cuda.select_device(device)
    return Kernel(pair, driver(pair), Tables(*map(cuda.to_device, tables)), key, phase << 30)


@cache
def noise_kernels() -> tuple[Any, Any]:
    """What fills out with uniforms: for data that all replicates share `[F, Q, 4, B, E]`, for each one's own `[F, R, B, E, 2]`."""
    philox_block = philox.philox(backend())
    SCALE, FOUR = philox.UNIT, np.uint64(4)

    def shared(out, first, data, tag, key):  # type: ignore[no-untyped-def]
        F, Q, _, B, E = out.shape
        for i in range(cuda.grid(1), F * Q * B * E, cuda.gridsize(1)):
            e, b, j, f = i % E, i // E % B, i // (E * B) % Q, i // (E * B * Q)
            w0, w1, w2, w3 = philox_block(
                first + np.uint64(j), np.uint64(data[b]), np.uint64(e), tag + np.uint64(f), key
            )
            out[f, j, 0, b, e] = (np.float64(w0) + 0.5) * SCALE
            out[f, j, 1, b, e] = (np.float64(w1) + 0.5) * SCALE
            out[f, j, 2, b, e] = (np.float64(w2) + 0.5) * SCALE
            out[f, j, 3, b, e] = (np.float64(w3) + 0.5) * SCALE

    def own(out, first, data, tag, key):  # type: ignore[no-untyped-def]
        F, N, B, E, _ = out.shape
        for i in range(cuda.grid(1), F * N * B * E, cuda.gridsize(1)):
            e, b, r, f = i % E, i // E % B, i // (E * B) % N, i // (E * B * N)
            place = first + np.uint64(r)
            w0, w1, w2, w3 = philox_block(place // FOUR, np.uint64(data[r, b]), np.uint64(e), tag + np.uint64(f), key)
            low = place % FOUR < np.uint64(2)
            out[f, r, b, e, 0] = (np.float64(w0 if low else w2) + 0.5) * SCALE
            out[f, r, b, e, 1] = (np.float64(w1 if low else w3) + 0.5) * SCALE

    return cuda.jit(shared), cuda.jit(own)


def fill(out: Tensor, first: int, rows: Tensor, tag: int, key: int) -> None:
    """Fill out with the uniforms of rows `[B]`, from replicate 4 first on, or of each replicate's own `[R, B]`, from first on."""
    shared, own = noise_kernels()
    run, words = (shared, LANES) if rows.ndim == 1 else (own, 2)
    if out.is_cuda:
        cuda.select_device(out.device.index or 0)
    blocks = max(1, min(2**16, -(-out.numel() // (words * THREADS))))
    there = (out, rows) if out.is_cuda else (out.numpy(), rows.numpy())
    run[blocks, THREADS](there[0], np.uint64(first), there[1], np.uint64(tag), np.uint64(key))


def ptx(function: Function, arguments: Sequence[Any], capability: tuple[int, int] = (9, 0)) -> str:
    """The PTX of a kernel for arguments like these; needs numba-cuda and its compilers, and no device."""
    typeof = import_module("numba.cuda.typing.typeof").typeof
    modules: list[Any] = [import_module(f"numba.cuda.{name}") for name in ("dispatcher", "compiler")]
    stand_in, there = SimpleNamespace(compute_capability=capability), [m.get_current_device for m in modules]
    try:
        for module in modules:
            module.get_current_device = lambda: stand_in
        text: str = cuda.compile_ptx(function, tuple(map(typeof, arguments)), cc=capability)[0]
    finally:
        for module, was in zip(modules, there, strict=True):
            module.get_current_device = was
    return text


def ptx_of_pair(pair: Pair, tables: Tables, capability: tuple[int, int] = (9, 0)) -> str:
    """The PTX of a pair's kernel."""
    be, word = backend(pair.dtype), np.uint64(0)
    form, made, _ = chosen_form(pair, be)
    places = zip(shapes(made), types(be), strict=True)
    space = 0 if form is in_local_memory else Space(*(np.empty((*shape, 1), kind) for shape, kind in places))
    out = np.empty((pair.P, LANES, 1), be.real)
    return ptx(form(pair, be, made), (out, space, tables, word, word, word), capability)


def ptx_of_all(dtype: str = "float64", capability: tuple[int, int] = (9, 0)) -> dict[str, str]:
    """The PTX of the kernels that know no pair: sums, and noise."""
    word, real = np.uint64(0), np.float64
    g, made, whole = np.empty((1, LANES, 1), dtype), np.empty((MADE, LANES, 1)), np.empty(1, np.int64)
    pilot, added, out = np.empty(1), np.empty((1, 1)), np.empty((1, 1, 1, 1, 1))
    shared, own = (kernel.py_func for kernel in noise_kernels())
    return {
        "measured": ptx(measured, (made, whole, g, pilot, pilot, real(0), real(0), 1), capability),
        "summed": ptx(summed, (added, added, g, made, pilot, 1), capability),
        "noise, shared": ptx(shared, (out, word, whole, word, word), capability),
        "noise, own": ptx(own, (out, word, np.empty((1, 1), np.int64), word, word), capability),
    }
