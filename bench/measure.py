"""One cell: an estimator on a problem at a point, measured in blocks of replicates and read as a Measurement.

`observe` gives an Outcome, exact sums without statistics, which can be stored; `summarise` reads intervals and the verdict
from it. `measure` is both, with timing, for one pair of objects.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from bench.measurement import Measurement, summarise
from bench.moments import Sums, block_sums, empty, merge
from bench.outcome import Outcome

if TYPE_CHECKING:
    from bench.evaluate import Count, State, Trial
    from bench.kernels import Kernel
    from estimators.base import Estimator
    from problems.base import Problem
    from problems.truth import Truth

BLOCK = 4096
PILOT_REPLICATES = 256
CHUNK_ELEMENTS = 2**19
MOST_ELEMENTS = 2**24  # of one array, of which some ten may be alive at once: a gigabyte or so
BACKENDS = ("auto", "torch", "numba", "cuda")
DTYPES = ("float64", "float32")


def chunk_of(trial: Trial) -> int:
    """Replicates evaluated at once: a power of two from 64 to BLOCK that keeps the arrays of a chunk near CHUNK_ELEMENTS numbers.

    Fewer, down to the four of a block of noise, where 64 would take MOST_ELEMENTS. A function of the cell alone: the last bits of
    vectorised functions depend on it.
    """
    from estimators.base import Ask, asks, noise_of, size_of

    problem = trial.problem
    rows = max(problem.batch or problem.rows, 1)
    each, hessians = problem.dim, 0
    if trial.estimator.gradients is None:
        size = size_of(problem)
        asked = asks(trial.estimator.points, size)
        points, sites = len(asked), math.prod(size.event)
        noises = noise_of(trial.estimator.noise, size, points)
        numbers = sum(math.prod(n.front) * math.prod(n.event or ()) for n in noises)
        each += problem.rows * bool(problem.batch)  # the uniforms that choose the rows
        each += rows * (points * sites + numbers)
        hessians = rows * sites**2 * sum(Ask.HESSIAN in one for one in asked)
    chunk = BLOCK
    while chunk > 64 and chunk * each > CHUNK_ELEMENTS:
        chunk //= 2
    while chunk > 4 and chunk * (each + hessians) > MOST_ELEMENTS:
        chunk //= 2
    return chunk


def block_of(
    trial: Trial,
    state: State | None,
    pilot: np.ndarray,
    axis: np.ndarray,
    scale: float,
    replicates: range,
    count: Count,
) -> Sums:
    """Sums of one aligned range of replicates: a pure function of the trial, the state, the pilot and the range.

    Chunks are always evaluated whole, so that replicate r is the same whatever the range asked for.
    """
    from bench.evaluate import gradients

    chunk = chunk_of(trial)
    found = empty(pilot, axis, scale)
    for start in range(replicates.start, replicates.stop, chunk):
        g = gradients(trial, range(start, start + chunk), state, count=count)
        wanted = min(chunk, replicates.stop - start)
        found = merge(found, block_sums(g[:wanted].cpu().numpy(), pilot, axis, scale, start))
    return found


def observe(
    estimator: Estimator,
    problem: Problem,
    *,
    point: str = "init",
    replicates: int = BLOCK,
    seed: int = 0,
    backend: str = "auto",
    dtype: str = "float64",
    device: str = "cpu",
    threads: int = 1,
    truth: Truth | None = None,
    subsampling: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Measure `replicates` gradients of `problem` (already at its point). Raises Mismatch where the pair cannot run.

    truth: the true gradient where the caller has it already. subsampling: where rows of data are drawn, measure their part of
    the variance too. progress: told the number of replicates done.
    threads: recorded; the numbers are computed on one, of which they would else depend in their last bits.
    """
    from bench.evaluate import gradients, initial_state, learn, prepare
    from bench.subsampling import pair_products
    from estimators.base import claim_of
    from estimators.noise import PILOT
    from problems.truth import true_gradient

    _check(replicates, dtype, threads)
    with pinned(1):
        trial = prepare(estimator, problem, seed, point, dtype, device)
        _check_backend(trial, backend)
        truth = truth or true_gradient(problem)
        reset_peak()
        started = time.perf_counter()
        gradients(trial, range(min(chunk_of(trial), 64)), initial_state(trial), phase=PILOT)
        cold = time.perf_counter() - started
        started = time.perf_counter()
        state, learning = learn(trial)
        learned = time.perf_counter()
        kernel = _kernel(trial, state, backend)
        cold = cold if kernel is None else time.perf_counter() - learned
        pilot = pilot_mean(trial, state)
        exact = np.full(len(pilot), np.nan) if truth is None else truth.gradient.numpy()
        rounding = 0.0 if dtype == "float64" else rounding_of(trial, state, kernel is not None, seed, point)
        sums, count = _all_blocks(trial, state, kernel, pilot, exact, replicates, progress)
        pairs = pair_products(trial, state, chunk_of(trial)) if subsampling and problem.batch else None
    rows = max(problem.batch or problem.rows, 1)
    evaluated = rows * (_evaluated(trial, replicates) if kernel is None else replicates)
    return Outcome(
        sums=sums,
        truth=exact,
        truth_se=np.full(len(pilot), np.nan) if truth is None else truth.se.numpy(),
        truth_tier="none" if truth is None else truth.tier,
        family=problem.family_name,
        objective=problem.objective.name,
        claimed=claim_of(estimator, problem),
        dim=_sites(problem),
        samples=_samples(trial),
        f_evals=count.f / evaluated,
        gradient_evals=count.gradient / evaluated,
        hessian_evals=count.hessian / evaluated,
        learn_f_evals=learning.f / rows,
        learn_gradient_evals=learning.gradient / rows,
        learn_seconds=learned - started,
        cold_s=cold,
        peak_bytes=peak_bytes(),
        backend="torch" if kernel is None else "cuda" if trial.device.type == "cuda" else "numba",
        device=device,
        dtype=dtype,
        threads=threads,
        state={} if state is None else {n: t.cpu().numpy() for n, t in state.items()},
        rounding=rounding,
        subsampling=pairs,
    )


def _check(replicates: int, dtype: str, threads: int) -> None:
    """Raises ValueError, in a sentence."""
    if not isinstance(replicates, int) or replicates < 2:
        raise ValueError(f"replicates is {replicates!r}; it is a whole number of at least 2")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: it is one of {', '.join(DTYPES)}")
    if threads < 1:
        raise ValueError(f"threads is {threads}; it is at least 1")


def _all_blocks(
    trial: Trial,
    state: State | None,
    kernel: Kernel | None,
    pilot: np.ndarray,
    exact: np.ndarray,
    replicates: int,
    progress: Callable[[int], None] | None,
) -> tuple[Sums, Count]:
    """The blocks of a cell one after the other, folded in index order."""
    from bench.evaluate import Count
    from bench.kernels import block_sums_by_kernel

    known = bool(np.isfinite(exact).all())
    norm = float(np.linalg.norm(exact)) if known else 0.0
    axis = exact / norm if norm > 0 else np.zeros(len(pilot))
    scale = norm or float(np.linalg.norm(pilot)) or 1.0
    count, sums = Count(), empty(pilot, axis, scale)
    step = BLOCK if kernel is None else kernel.at_once * kernel.chunk
    for start in range(0, replicates, step):
        here = range(start, min(start + step, replicates))
        if kernel is None:
            sums = merge(sums, block_of(trial, state, pilot, axis, scale, here, count))
        else:
            sums = merge(sums, block_sums_by_kernel(kernel, pilot, axis, scale, here))
            _count_kernel(trial, len(here), count)
        if progress is not None:
            progress(here.stop)
    return sums, count


def _count_kernel(trial: Trial, replicates: int, count: Count) -> None:
    """A kernel asks what the estimator declares: no point of it is ever NaN."""
    from estimators.base import Ask, asks, size_of

    asked = asks(trial.estimator.points, size_of(trial.problem))
    each = replicates * max(trial.problem.batch or trial.problem.rows, 1)
    count.f += each * len(asked)
    count.gradient += each * sum(Ask.GRADIENT in one or Ask.HESSIAN in one for one in asked)
    count.hessian += each * sum(Ask.HESSIAN in one for one in asked)


def _evaluated(trial: Trial, replicates: int) -> int:
    """Replicates evaluated for a number of replicates kept: chunks are evaluated whole."""
    chunk = chunk_of(trial)
    return -(-replicates // chunk) * chunk


def _check_backend(trial: Trial, backend: str) -> None:
    """Raises Mismatch where the pair has no kernel of the back end asked for, ValueError where there is no such back end."""
    from bench.evaluate import Mismatch
    from bench.kernels import why_no_kernel

    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: it is one of {', '.join(BACKENDS)}")
    runs_on = {"numba": "cpu", "cuda": "cuda"}.get(backend, trial.device.type)
    if trial.device.type != runs_on:
        raise Mismatch(f"{backend} kernels run on device {runs_on}, not on {trial.device.type}")
    if backend in ("numba", "cuda") and (why := why_no_kernel(trial)):
        raise Mismatch(f"{trial.estimator.name} on {trial.problem.name} has no {backend} kernel: {why}")


def _kernel(trial: Trial, state: State | None, backend: str) -> Kernel | None:
    """The kernel that measures the trial; None where torch does. Raises Mismatch where numba cannot compile it."""
    from bench.evaluate import Mismatch
    from bench.kernels import check_members, kernel_for
    from estimators.kernels import cpu

    if backend == "torch":
        return None
    found = kernel_for(trial, state)
    if isinstance(found, cpu.Kernel):
        check_members(trial, state, found)
    if found is None and backend != "auto":
        raise Mismatch(
            f"{trial.estimator.name} on {trial.problem.name}: numba does not compile {trial.problem.name}'s f"
        )
    return found


def _sites(problem: Problem) -> int:
    from estimators.base import size_of

    return size_of(problem).D


def _samples(trial: Trial) -> int:
    """Points that count as samples of q."""
    from estimators.base import Ask, asks, size_of

    if trial.estimator.gradients is not None:
        return 0
    return sum(Ask.SAMPLE in one for one in asks(trial.estimator.points, size_of(trial.problem)))


def pilot_mean(trial: Trial, state: State | None) -> np.ndarray:
    """Mean gradient of a separate stream, `[P]`: what the sums are centred on. A pure function of the cell."""
    from bench.evaluate import gradients
    from estimators.noise import PILOT

    chunk = min(chunk_of(trial), PILOT_REPLICATES)
    total, n = np.zeros(trial.dim), 0
    for start in range(0, PILOT_REPLICATES, chunk):
        g = gradients(trial, range(start, start + chunk), state, phase=PILOT).cpu().double().numpy()
        finite = np.isfinite(g).all(1)
        total, n = total + g[finite].sum(0), n + int(finite.sum())
    return total / max(n, 1)


def rounding_of(trial: Trial, state: State | None, by_kernel: bool, seed: int, point: str) -> float:
    """How far gradients are from those of the same replicates by torch in float64, in standard deviations: root mean square.

    Draws at a threshold count in full. Relative to the length of the gradient where it does not vary; NaN for estimators that draw
    their noise themselves, which is another in another precision.
    """
    from bench.evaluate import gradients, prepare
    from bench.kernels import kernel_for
    from estimators.noise import PILOT

    if trial.estimator.gradients is not None:
        return math.nan
    chunk = range(min(chunk_of(trial), PILOT_REPLICATES))
    double = prepare(trial.estimator, trial.problem, seed, point, "float64", str(trial.device))
    known = None if state is None else {name: t.double() for name, t in state.items()}
    wanted = gradients(double, chunk, known, phase=PILOT).cpu().numpy()
    kernel = kernel_for(trial, state, PILOT) if by_kernel else None
    found = gradients(trial, chunk, state, phase=PILOT).cpu().numpy() if kernel is None else kernel.gradients(chunk)
    spread = float(np.linalg.norm(wanted - wanted.mean(0)))
    return float(np.linalg.norm(found - wanted)) / (spread or float(np.linalg.norm(wanted)) or 1.0)


def measure(
    estimator: Estimator,
    problem: Problem,
    *,
    replicates: int = 65_536,
    seed: int = 0,
    point: str = "init",
    backend: str = "auto",
    dtype: str = "float64",
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 15,
) -> Measurement:
    """Measure one estimator on one problem: bias, variance and time, each with its interval.

    replicates: number of gradients. seed: of the addressed noise; the same numbers come again for the same seed. point: one of the
    problem's named points. backend: torch, or numba (on a CUDA device cuda) where both have a kernel form; auto takes the kernel
    where there is one, and torch elsewhere. rounds: of timing; 0 does not time.
    Raises Mismatch, with the reason, where the pair cannot run, and MemberError where a gradient is not finite.
    """
    from bench.timing import time_together

    there = problem.at(point)
    outcome = observe(
        estimator,
        there,
        point=point,
        replicates=replicates,
        seed=seed,
        backend=backend,
        dtype=dtype,
        device=device,
        threads=threads,
    )
    _check_finite(outcome)
    timing = None
    if rounds:
        with pinned(threads):
            timing = time_together([(estimator, there)], [outcome.backend], rounds=rounds, dtype=dtype, device=device)[
                0
            ]
    return summarise(outcome, timing)


def _check_finite(outcome: Outcome) -> None:
    """Raises MemberError where a gradient was not finite: the mean of the others says nothing of the estimator."""
    from bench.evaluate import MemberError

    if bad := outcome.sums.nonfinite:
        raise MemberError(f"{bad} of {bad + outcome.replicates} gradients were not finite")


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """torch, BLAS and OpenMP on so many threads for a while."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def reset_peak() -> None:
    """Start the process's peak of resident memory anew, where the system can (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Peak of resident memory of this process in bytes, since `reset_peak` where the system can."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
