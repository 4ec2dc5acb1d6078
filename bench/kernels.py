"""Sums of a cell by a compiled kernel, where the estimator and the problem both have their half of one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bench.moments import GROUPS, TOP, ZERO, Sums, block_sums, merge

if TYPE_CHECKING:
    from bench.evaluate import State, Trial
    from estimators.base import Estimator
    from estimators.kernels import cpu
    from problems.base import Problem


OBJECTIVES = ("Expectation", "Elbo", "ImportanceWeighted", "Renyi", "InclusiveKL")


class Kernel(Protocol):
    """A compiled pair, of `estimators.kernels.cpu` or `estimators.kernels.cuda`.

    chunk: replicates whose sums are added up on their own. at_once: chunks whose sums are asked for together.
    """

    @property
    def chunk(self) -> int: ...
    @property
    def at_once(self) -> int: ...
    def compiles(self) -> bool: ...
    def gradients(self, replicates: range) -> np.ndarray: ...
    def sums(
        self,
        chunks: range,
        pilot: np.ndarray,
        axis: np.ndarray,
        floor: float,
        least: float,
        scale: float,
        threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...


def kernel_for(trial: Trial, state: State | None = None, phase: int = 0) -> Kernel | None:
    """The kernel of a trial for its device, on the noise of `phase` (MEASURE), compiled or read from the disk cache.

    None where it has none. state: what the estimator has learned, as it is measured.
    """
    made = lazy_kernel_for(trial, state, phase)
    return made if made is not None and made.compiles() else None


def lazy_kernel_for(trial: Trial, state: State | None = None, phase: int = 0) -> Kernel | None:
    """The same, compiled at its first call, which raises where numba cannot compile f."""
    if why_no_kernel(trial) is not None:
        return None
    dtype = str(trial.dtype).replace("torch.", "")
    if trial.device.type == "cuda":
        from estimators.kernels import cuda

        problem, learned = at_home(trial.problem, state)
        return cuda.kernel(trial.estimator, problem, learned, trial.key, phase, dtype, trial.device.index or 0)
    from estimators.kernels import cpu

    return cpu.kernel(trial.estimator, trial.problem, state, trial.key, phase, dtype)


def at_home(problem: Problem, state: State | None) -> tuple[Problem, State | None]:
    """The same, with their tensors on the CPU."""
    names = ("theta", "model", "data", "parts")
    moved = {name: t.cpu() for name in names if (t := getattr(problem, name)) is not None}
    return replace(problem, **moved), None if state is None else {name: t.cpu() for name, t in state.items()}


def why_no_cuda(trial: Trial) -> str | None:
    """Why a pair that has its halves cannot run on the trial's CUDA device."""
    from estimators.kernels import cuda
    from estimators.kernels.tables import pair_and_tables

    if why := cuda.why_unusable():
        return why
    problem, _ = at_home(trial.problem, None)
    return cuda.why_too_large(pair_and_tables(trial.estimator, problem, None, str(trial.dtype)[6:])[0])


def why_no_kernel(trial: Trial) -> str | None:
    """What the pair lacks, in a sentence; None where nothing does (numba may still refuse to compile f)."""
    from estimators.kernels.families import FAMILIES
    from estimators.kernels.tables import MOST_ENTRIES, form_of, offers_hessian

    e, p = trial.estimator, trial.problem
    if e.kernel is None:
        return f"{e.name} has no kernel form"
    if not own_form(e):
        return f"{e.name}'s draw or combine is not the one that its kernel form was written for"
    if p.scalar_f is None and p.lanes is None:
        return f"{p.name} gives no scalar_f or lanes"
    if not same_f(p):
        return f"{p.name}'s f is not the one that its scalar_f or lanes were written for"
    if p.lanes is None and (p.model is not None or p.data is not None):
        return f"{p.name} has data or a model, for which scalar_f does not do"
    if p.shared or p.noise or p.closed_form is not None:
        return f"{p.name} has one x for all data, noise in f or a term in closed form, which the kernels do not know"
    if p.family_name not in FAMILIES:
        return f"{p.name}'s {p.family_name} variables are not written in lanes"
    if p.batch and not FAMILIES[p.family_name].keyed:
        return f"{p.name} draws rows of data, and its {p.family_name} noise comes in pairs of replicates"
    if p.objective.name not in OBJECTIVES:
        return f"the kernels know {', '.join(OBJECTIVES)}, not {p.objective.name}"
    form = form_of(e)
    if form.families is not None and p.family_name not in form.families:
        return f"{e.name} has a kernel form for {' and '.join(form.families)} variables only"
    if form.hessian and not offers_hessian(p):
        return f"{p.name} gives its lanes no second derivatives, which {e.name} asks for"
    if trial.device.type not in ("cpu", "cuda"):
        return "kernels run on the CPU or on a CUDA device"
    if p.encode is not None and p.theta.numel() * p.site_parameters(p.theta).numel() > MOST_ENTRIES:
        return f"{p.name}'s encoder has too large a Jacobian"
    return why_no_cuda(trial) if trial.device.type == "cuda" else None


def own_form(estimator: Estimator) -> bool:
    """draw and combine are of the package that the kernel form is of: a copy with another function in it keeps the field."""
    package = str(estimator.kernel).split(".")[0].split(":")[0]
    return package_of(estimator.draw) == package_of(estimator.combine) == package


def same_f(problem: Problem) -> bool:
    """f is of the package that its scalar_f or lanes are of: a copy of a problem with another f keeps the other fields."""
    form = problem.lanes if problem.lanes is not None else problem.scalar_f
    return package_of(problem.f) == package_of(form)


def package_of(function: object) -> str:
    """The outermost package that a function was defined in."""
    return str(getattr(function, "__module__", "")).split(".")[0]


ROUGHLY = {"float64": 1e-6, "float32": 1e-2}  # of the largest entry: other functions differ by more, roundings by less


def check_members(trial: Trial, state: State | None, kernel: cpu.Kernel) -> None:
    """Sixteen gradients of the kernel form, in plain Python, beside the torch form's, where one half of the pair is not ours.

    Ours are held to each other by the tests. Raises MemberError where they are not the same function.
    """
    from bench.evaluate import MemberError, gradients
    from estimators.kernels import plainly

    e, p, dtype = trial.estimator, trial.problem, str(trial.dtype).replace("torch.", "")
    if (package_of(e.combine), package_of(p.f)) == ("estimators", "problems"):
        return
    wanted = gradients(trial, range(16), state).cpu().double().numpy()
    found = plainly.gradients(kernel.pair, kernel.tables, kernel.key, kernel.tag, 16)
    apart = np.abs(found - wanted).max(1)
    if not (apart <= ROUGHLY[dtype] * np.abs(wanted).max()).all():
        r = int(np.nanargmax(apart))
        raise MemberError(
            f"{e.name} on {p.name}: the kernel form's gradient of replicate {r} is {found[r].round(6).tolist()}, the torch form's"
            f" {wanted[r].round(6).tolist()}; is scalar_f (or lanes) the same function as f?"
        )


def block_sums_by_kernel(
    kernel: Kernel, pilot: np.ndarray, axis: np.ndarray, scale: float, replicates: range, threads: int = 1
) -> Sums:
    """`block_sums` of the gradients of these replicates, none of which outlives its block.

    The same bits whatever the threads, and as from the folded sums of its aligned chunks. A chunk that is not
    whole in the range, or has a gradient that is not finite, is summed from its gradients. The first chunks are few: once the
    largest lengths are known, few are looked at again.
    """
    chunk, done = kernel.chunk, 0
    pilot, axis = np.ascontiguousarray(pilot, np.float64), np.ascontiguousarray(axis, np.float64)
    found = block_sums(np.zeros((0, len(pilot))), pilot, axis, scale, 0)
    at = replicates.start
    while at < replicates.stop:
        whole = (replicates.stop - at) // chunk if at % chunk == 0 else 0
        if whole:
            count = min(whole, kernel.at_once * threads, max(4, 4 * done))
            found = _chunks(kernel, found, range(at // chunk, at // chunk + count), threads)
            done += count
            at += count * chunk
        else:
            stop = min(replicates.stop, (at // chunk + 1) * chunk)
            found = merge(found, _from_gradients(kernel, found, range(at, stop)))
            at = stop
    return found


def _from_gradients(kernel: Kernel, like: Sums, replicates: range) -> Sums:
    return block_sums(kernel.gradients(replicates), like.pilot, like.axis, like.scale, replicates.start)


def _chunks(kernel: Kernel, onto: Sums, chunks: range, threads: int) -> Sums:
    """`onto`, and then these whole chunks in index order."""
    added, high, top, whole = kernel.sums(
        chunks, onto.pilot, onto.axis, ZERO * onto.scale, float(onto.top[0]), onto.scale, threads
    )
    nonfinite = 0
    for c in np.flatnonzero(whole == 0):
        start = (chunks.start + int(c)) * kernel.chunk
        row = _from_gradients(kernel, onto, range(start, start + kernel.chunk))
        added[c], high[c], top[c] = _packed(row), row.high, row.top
        nonfinite += row.nonfinite
    folded = np.add.reduce(np.concatenate([_packed(onto)[None], added]))
    return _unpacked(onto, folded, np.maximum(onto.high, high.max(0)), top, nonfinite)


def _packed(sums: Sums) -> np.ndarray:
    """What is added up over chunks, in the order of `estimators.kernels.tally`."""
    from estimators.kernels.tally import group_order

    group = group_order()
    s1 = sums.s1[group].T.ravel()
    return np.concatenate(
        [sums.n[group], sums.q1[group], sums.cos[group], s1, sums.s2, sums.s3, sums.s4, [float(sums.zero)]]
    )


def _unpacked(like: Sums, folded: np.ndarray, high: np.ndarray, top: np.ndarray, nonfinite: int) -> Sums:
    from estimators.kernels.tally import group_order

    P1, place = len(like.pilot) + 1, np.argsort(group_order())
    ends = np.cumsum([GROUPS, GROUPS, GROUPS, GROUPS * P1, P1, P1, P1])
    n, q1, cos, s1, s2, s3, s4, zero = np.split(folded, ends)
    candidates = np.concatenate([like.top, top[top > like.top[0]]])
    return Sums(
        pilot=like.pilot,
        axis=like.axis,
        n=n[place].astype(np.int64),
        s1=np.ascontiguousarray(s1.reshape(P1, GROUPS).T[place]),
        q1=q1[place],
        cos=cos[place],
        s2=s2,
        s3=s3,
        s4=s4,
        high=high,
        top=np.sort(candidates)[-TOP:],
        nonfinite=like.nonfinite + nonfinite,
        zero=int(zero[0]),
        scale=like.scale,
    )
