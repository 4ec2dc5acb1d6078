"""Stored references: the true gradient of a problem that offers no other, made once and kept with its standard error.

Where the support can be enumerated in the time given, though not in the time of a measurement, the reference is exact. Otherwise
it is the mean of a very long run of the unbiased estimator whose variance x seconds is least, on noise that no measured cell sees,
compared with a run of the second best. A run is resumed from its checkpoint: the sums after n replicates are the same bits however
often it was interrupted.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from bench.evaluate import gradients, learn, prepare
from bench.measure import chunk_of, pilot_mean, pinned
from bench.provenance import described, provenance
from bench.sources import closure, digests, harness
from estimators.base import Estimator, claim_of, mismatch
from problems import reference, truth
from problems.base import Problem
from problems.settings import settings_text
from problems.storage import significant, write_json

if TYPE_CHECKING:
    from bench.evaluate import Trial

CHECKPOINTS = Path("results") / "checkpoints"
EVERY_SECONDS = 30.0
PILOT_REPLICATES = 512
PILOT_SECONDS = 3.0
LEAST_EFFECTIVE = 100
LEAST_REPLICATES = 4096
MOST_STATES = 2**17
CHECK_SHARE = 0.1
MOST_DISTANCE = 4.0
SAMPLES = (2, 4, 8)


@dataclass(frozen=True, eq=False)
class Pilot:
    """A short run: variance (trace of the covariance) of an estimate, its seconds, and the effective number of |d|^2."""

    estimator: Estimator
    variance: float
    seconds: float
    effective: float

    @property
    def work(self) -> float:
        """variance x seconds: what a given standard error costs."""
        return self.variance * self.seconds


@dataclass(frozen=True, eq=False)
class Run:
    """Sums of n replicates about a centre: s1 of d = g - centre, s2 of d^2; `[P]`."""

    centre: np.ndarray
    n: int
    s1: np.ndarray
    s2: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """`[P]`."""
        return self.centre + self.s1 / self.n

    @property
    def se(self) -> np.ndarray:
        """Standard error of the mean, `[P]`."""
        mean = self.s1 / self.n
        return np.sqrt(np.maximum(self.s2 / self.n - mean * mean, 0) / max(self.n - 1, 1))

    @property
    def relative_se(self) -> float:
        """|se| / |mean|."""
        return ratio(self.se, self.mean) if self.n else math.inf


class Budget(NamedTuple):
    """When a run ends: at the target for |standard error| / |gradient|, or after so many seconds, or so many replicates."""

    target: float
    seconds: float
    replicates: float = math.inf


def make_reference(
    problem: Problem,
    point: str,
    *,
    max_seconds: float,
    target: float = 0.005,
    seed: int = 1,
    report: Callable[[str], None] = print,
    replicates: int | None = None,
    candidates: Sequence[Estimator] | None = None,
    checkpoints: Path | None = None,
) -> Path:
    """Store the reference of `problem` at one of its points; returns the file that holds it.

    target: stops where |standard error| / |gradient| is at most so much. max_seconds: or after so long, whatever was reached; the
    same command goes on from there. replicates: or after so many (rounded up to whole chunks). candidates: estimators to choose
    from (default: the registry). checkpoints: folder of unfinished runs.
    Where a problem draws rows of its data, every estimate here takes all of them: the gradient is the same, and its noise less.
    Raises ValueError where the gradient is exact anyway or no unbiased estimator fits, ArithmeticError where the two best disagree.
    """
    there = problem.at(point)
    if there.exact is not None or truth.terms(there) is not None:
        raise ValueError(f"{described(problem)} has an exact gradient: a reference would never be read")
    whole = replace(there, batch=0)
    among = "".join(f' -e "{_text(e)}"' for e in candidates or ())
    command = f'python -m bench reference "{described(problem)}" --point {point}{among} --seed {seed}'
    with pinned(1):
        found = enumerated(whole, max_seconds, report)
        if found is None:
            folder = CHECKPOINTS if checkpoints is None else checkpoints
            file = folder / f"{problem.name}-{reference.fingerprint(whole)}-{seed}.npz"
            pool = list(registered() if candidates is None else candidates)
            budget = Budget(target, max_seconds, math.inf if replicates is None else replicates)
            found = by_run(whole, f"reference of {point}", pool, budget, seed, report, file)
    entry = {"problem": described(problem), "point": point} | provenance(command, seed) | found
    reached = entry["relative_se"] <= target
    report(
        f"{described(problem)} at {point}: relative standard error {entry['relative_se']:.2%}"
        + ("" if reached else f", the target of {target:.2%} is not reached: run it again to go on")
    )
    path = reference.FOLDER / f"{problem.name}.json"
    entries = reference.read_references(problem.name)
    write_json(path, entries | {reference.fingerprint(there): entry}, depth=2)
    return path


def enumerated(problem: Problem, max_seconds: float, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The exact gradient by enumeration, where the first datum says that it takes no longer than `max_seconds`."""
    family: Any = problem.family
    states = family.states(problem.site_parameters(problem.theta)) if getattr(family, "finite", False) else None
    samples = 1 if problem.objective.exact else problem.objective.samples
    if states is None or states**samples > MOST_STATES or problem.noise:
        return None
    if problem.data is not None:
        started = time.perf_counter()
        truth.enumerated(replace(problem, data=problem.data[:1]))
        seconds = (time.perf_counter() - started) * problem.rows
        report(f"enumeration of {states**samples} states for each of {problem.rows} data: about {seconds:.0f} s")
        if seconds > max_seconds:
            return None
    exact = truth.enumerated(problem)
    return _entry(exact.gradient.numpy(), exact.se.numpy()) | {"estimator": "enumeration", "replicates": 0}


def by_run(
    problem: Problem,
    label: str,
    pool: Sequence[Estimator],
    budget: Budget,
    seed: int,
    report: Callable[[str], None],
    file: Path,
) -> dict[str, Any]:
    """The mean of a long run of the best estimator of the pool, compared with a tenth as long a run of the second best."""
    kept = _kept(file)
    known = {_text(e): e for e in pool}
    chosen = [known[text] for text in kept.chosen if text in known] if kept else []
    if kept is None or len(chosen) < len(kept.chosen) or kept.sources != _sources(problem, chosen):
        kept, chosen = None, choose(problem, pool, seed, report)
    best, *others = chosen

    def save(sums: Run) -> None:
        _save(file, problem, chosen, sums)

    trial = prepare(best, problem, seed, label)
    done = accumulate(trial, kept.sums if kept else None, budget, report, save)
    entry = _entry(done.mean, done.se) | {"estimator": _text(best), "replicates": done.n}
    for second in others:
        trial = prepare(second, problem, seed, f"check of {label}")
        other = accumulate(trial, None, budget._replace(seconds=CHECK_SHARE * budget.seconds), report)
        entry["check"] = _check(done, other, best, second)
        report(
            f"{_text(second)} is {entry['check']['distance']:.2f} of the distance away that both errors lead to expect"
        )
    return entry


def _check(done: Run, other: Run, best: Estimator, second: Estimator) -> dict[str, Any]:
    """How far a run of another estimator is away, in units of the root mean square distance that both errors lead to expect."""
    rounding = 1e-12 * float(np.linalg.norm(done.mean))
    expected = math.hypot(float(np.linalg.norm(done.se)), float(np.linalg.norm(other.se)), rounding)
    distance = float(np.linalg.norm(done.mean - other.mean)) / expected
    if distance > MOST_DISTANCE:
        raise ArithmeticError(
            f"{_text(best)} and {_text(second)} are {distance:.1f} times as far apart as their standard errors lead to expect; "
            "one of them is biased"
        )
    return {"estimator": _text(second), "replicates": other.n, "distance": significant(distance, 4)}


def registered() -> Iterator[Estimator]:
    """Every estimator of the registry with its default settings, and with other numbers of samples where it has that setting."""
    from estimators import ESTIMATORS

    for name in ESTIMATORS:
        default = ESTIMATORS.settings(name).get("samples")
        yield ESTIMATORS[name]()
        for samples in SAMPLES if isinstance(default, int) else ():
            with suppress(ValueError):
                if samples != default:
                    yield ESTIMATORS[name](samples=samples)


def choose(
    problem: Problem, candidates: Iterable[Estimator], seed: int, report: Callable[[str], None]
) -> list[Estimator]:
    """The unbiased candidate of least variance x seconds in a pilot, and the best of another name to compare it with.

    Left out: what must be learned first, and what has a heavy tail in the pilot, whose standard error would not be one.
    """
    pilots = []
    for estimator in candidates:
        learns = estimator.learning is not None and estimator.learning.steps
        if learns or mismatch(estimator, problem) or claim_of(estimator, problem) != "unbiased":
            continue
        found = pilot(estimator, problem, seed)
        heavy = found.effective < LEAST_EFFECTIVE
        report(f"{_text(estimator)}: variance x seconds {found.work:.3g}{', left out for its heavy tail' * heavy}")
        if not heavy:
            pilots.append(found)
    if not pilots:
        raise ValueError(
            f"{described(problem)} has no unbiased estimator without a heavy tail to make a reference with"
        )
    pilots.sort(key=lambda found: found.work)
    best = pilots[0].estimator
    return [best, *[found.estimator for found in pilots if found.estimator.name != best.name][:1]]


def pilot(estimator: Estimator, problem: Problem, seed: int) -> Pilot:
    """PILOT_REPLICATES of the estimator, or as many as PILOT_SECONDS allow; the first chunk is not timed."""
    trial = prepare(estimator, problem, seed, "choice of a reference")
    state, _ = learn(trial)
    chunk = min(chunk_of(trial), 64)
    parts = [gradients(trial, range(chunk), state)]
    started = time.perf_counter()
    while len(parts) * chunk < PILOT_REPLICATES and time.perf_counter() - started < PILOT_SECONDS:
        parts.append(gradients(trial, range(len(parts) * chunk, (len(parts) + 1) * chunk), state))
    seconds = (time.perf_counter() - started) / max((len(parts) - 1) * chunk, 1)
    g = torch.cat(parts).double()
    squares = (g - g.mean(0)).square().sum(1)
    total = float(squares.sum())
    effective = total**2 / float(squares.square().sum()) if total > 0 else math.inf
    return Pilot(estimator, total / (len(g) - 1), seconds, effective if math.isfinite(total) else 0.0)


def accumulate(
    trial: Trial,
    sums: Run | None,
    budget: Budget,
    report: Callable[[str], None],
    save: Callable[[Run], None] = lambda sums: None,
) -> Run:
    """Replicates 0, 1, 2, ... in whole chunks, until the budget is spent; goes on from `sums`."""
    name = _text(trial.estimator)
    state, _ = learn(trial)
    if sums is None:
        centre = pilot_mean(trial, state)
        sums = Run(centre, 0, np.zeros_like(centre), np.zeros_like(centre))
    elif sums.n:
        report(f"{name}: goes on after {sums.n:,} replicates")
    chunk, started, saved = chunk_of(trial), time.perf_counter(), time.perf_counter()
    while sums.n < budget.replicates and not (sums.n >= LEAST_REPLICATES and sums.relative_se <= budget.target):
        d = gradients(trial, range(sums.n, sums.n + chunk), state).double().numpy() - sums.centre
        if not np.isfinite(d).all():
            raise ArithmeticError(f"{name} on {described(trial.problem)} gave a gradient that is not finite")
        sums = Run(sums.centre, sums.n + chunk, sums.s1 + d.sum(0), sums.s2 + (d * d).sum(0))
        if time.perf_counter() - saved >= EVERY_SECONDS:
            save(sums)
            saved = time.perf_counter()
            report(f"{name}: {sums.n:,} replicates, relative standard error {sums.relative_se:.2%}")
        if time.perf_counter() - started >= budget.seconds:
            break
    save(sums)
    return sums


@dataclass(frozen=True, eq=False)
class Kept:
    """A checkpoint: the estimators that were chosen, the digest of the source that made the sums, and the sums so far."""

    chosen: list[str]
    sources: str
    sums: Run


def _kept(file: Path) -> Kept | None:
    if not file.exists():
        return None
    with np.load(file) as stored:
        sums = Run(stored["centre"], int(stored["n"]), stored["s1"], stored["s2"])
        return Kept(stored["chosen"].tolist(), str(stored["sources"]), sums)


def _save(file: Path, problem: Problem, chosen: Sequence[Estimator], sums: Run) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    texts, sources = [_text(e) for e in chosen], _sources(problem, chosen)
    with partial.open("wb") as out:
        np.savez(out, chosen=texts, sources=sources, centre=sums.centre, n=sums.n, s1=sums.s1, s2=sums.s2)
    partial.replace(file)


def _sources(problem: Problem, chosen: Sequence[Estimator]) -> str:
    """Digest of every file of ours that the gradients depend on: sums are not carried over a change of one."""
    functions = [problem.f, *[e.combine or e.gradients for e in chosen]]
    modules = [sys.modules[f.__module__].__file__ for f in functions if f is not None]
    files = harness() | closure([Path(module) for module in modules if module]) | {"bench/reference.py": Path(__file__)}
    return hashlib.sha256(repr(digests(files)).encode()).hexdigest()[:16]


def ratio(error: np.ndarray, gradient: np.ndarray) -> float:
    """|error| / |gradient|."""
    return float(np.linalg.norm(error)) / max(float(np.linalg.norm(gradient)), 1e-300)


def _entry(gradient: np.ndarray, se: np.ndarray) -> dict[str, Any]:
    return {
        "relative_se": significant(ratio(se, gradient), 4),
        "gradient": [significant(v, 10) for v in gradient.tolist()],
        "se": [significant(v, 4) for v in se.tolist()],
    }


def _text(estimator: Estimator) -> str:
    """The estimator as the command line selects it."""
    settings = settings_text(estimator.settings)
    return f"{estimator.name}[{settings}]" if settings else estimator.name
