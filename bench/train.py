"""Parameter points along a training run: where the variance of an estimator matters is not where training starts.

A problem is trained from `init` by Adam, on gradients of an unbiased estimator that is found by rule, until the last tenth of the
run has made less than one hundredth of its improvement of the objective. `converged` is where the run ends; `mid` the first
recorded place that has made half of the improvement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bench.evaluate import Count, ask, gradients, plain_samples, prepare
from bench.measure import chunk_of, pinned
from bench.provenance import described, provenance
from estimators.base import Estimator, claim_of, mismatch
from estimators.noise import PILOT
from problems.base import DEFAULT_POINT, Point, Problem
from problems.calling import call
from problems.points import write_points

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PREFERRED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pathwise", {}),
    ("dreg", {}),
    ("rloo", {"samples": 4}),
    ("vimco", {}),
)
MIDWAY = 0.5
SETTLED = 0.01
LONGEST = 10
RECORDS = 100
WATCHED = 512


@dataclass(frozen=True, eq=False)
class Stage:
    """A recorded place of a run: after `step` steps, with the objective there and its standard error."""

    step: int
    point: Point
    objective: float
    se: float


def make_points(
    problem: Problem,
    report: Callable[[str], None] = print,
    *,
    steps: int = 2000,
    rate: float = 0.01,
    replicates: int = 16,
    seed: int = 0,
    maximise: bool = True,
) -> Path:
    """Train `problem` from `init` and store the points `mid` and `converged`; returns the file that holds them.

    steps: of Adam, at least, and at most LONGEST times so many. rate: its step size, constant. replicates: gradients averaged in
    a step. A pure function of the problem and the seed. Every objective is ascended, plain expectations too; maximise=False
    descends (for an expectation that is a cost).
    Raises ValueError where no preferred estimator fits, and ArithmeticError where the run diverges or improves nothing.
    """
    estimator = training_estimator(problem)
    report(f"{described(problem)}: at least {steps} steps of Adam on {replicates} gradients of {estimator.name} each")
    with pinned(1):
        stages = run(problem, estimator, steps, rate, replicates, seed, maximise, report)
    first, last = stages[0], stages[-1]
    gain = last.objective - first.objective
    if (gain if maximise else -gain) <= 4 * (first.se**2 + last.se**2) ** 0.5:
        raise ArithmeticError(
            f"{described(problem)}: training took the objective from {first.objective:.6g} to {last.objective:.6g}, "
            f"which is no improvement; take other steps, or another step size than {rate}"
        )
    mid = next(s for s in stages if (s.objective - first.objective) / gain >= MIDWAY)
    chosen = {"mid": mid, "converged": last}
    options = f"--steps {steps} --rate {rate} --replicates {replicates} --seed {seed}" + " --minimise" * (not maximise)
    common = provenance(f'python -m bench points "{described(problem)}" {options}', seed) | {
        "estimator": estimator.name,
        "estimator_settings": dict(estimator.settings),
        "rate": rate,
        "replicates": replicates,
        "maximise": maximise,
    }
    records = {
        name: common | {"steps": s.step, "objective": s.objective, "objective_se": s.se} for name, s in chosen.items()
    }
    for name, s in {DEFAULT_POINT: first, **chosen}.items():
        report(f"{name}: step {s.step}, {problem.objective.name} {s.objective:.6g} (se {s.se:.2g})")
    report(f"the last tenth of the run made {progress(stages, 0.1):.2%} of the improvement")
    return write_points(problem.name, problem.settings, {n: s.point for n, s in chosen.items()}, records)


def training_estimator(problem: Problem) -> Estimator:
    """The first of PREFERRED that fits the problem and claims to be unbiased there. Raises ValueError where none does."""
    from estimators import ESTIMATORS

    for name, settings in PREFERRED:
        estimator = ESTIMATORS[name](**settings)
        if mismatch(estimator, problem) is None and claim_of(estimator, problem) == "unbiased":
            return estimator
    tried = ", ".join(name for name, _ in PREFERRED)
    raise ValueError(f"{described(problem)} cannot be trained: none of {tried} is an unbiased estimator for it")


def run(
    problem: Problem,
    estimator: Estimator,
    steps: int,
    rate: float,
    replicates: int,
    seed: int,
    maximise: bool,
    report: Callable[[str], None],
) -> list[Stage]:
    """The recorded places of a training run, `init` first and the end last."""
    trial = prepare(estimator, problem.at(DEFAULT_POINT), seed, "training")
    leaves = [t.clone() for t in (trial.problem.theta, trial.problem.model) if t is not None]
    adam = torch.optim.Adam(leaves, lr=rate, maximize=maximise)
    stages = [_stage(trial.problem, 0, seed)]
    every = max(steps // RECORDS, 1)
    for step in range(LONGEST * steps):
        g = gradients(trial, range(step * replicates, (step + 1) * replicates)).mean(0)
        if not g.isfinite().all():
            raise ArithmeticError(
                f"{described(problem)}: the gradient of step {step} is not finite; take smaller steps than {rate}"
            )
        for leaf, part in zip(leaves, torch.split(g, [t.numel() for t in leaves]), strict=True):
            leaf.grad = part.reshape(leaf.shape)
        adam.step()
        trial = replace(trial, problem=_moved(trial.problem, leaves))
        if (step + 1) % every == 0:
            stages.append(_stage(trial.problem, step + 1, seed))
            if len(stages) % 20 == 0:
                report(f"step {step + 1}: {stages[-1].objective:.6g}")
            if step + 1 >= steps and progress(stages, 0.1) < SETTLED:
                break
    return stages


def progress(stages: list[Stage], share: float) -> float:
    """The share of the improvement that the last `share` of the run has made."""
    first, last = stages[0], stages[-1]
    earlier = stages[-1 - round(share * (len(stages) - 1))]
    gain = last.objective - first.objective
    return (last.objective - earlier.objective) / gain if gain else 0.0


def objective_at(problem: Problem, seed: int = 0, replicates: int = WATCHED) -> tuple[float, float]:
    """The objective at the problem's parameters, on all of its data, and the standard error of that.

    The same noise wherever it is asked, so that differences along a run are sharper than the error says.
    """
    whole = replace(problem, batch=0)
    plain = plain_samples(whole, whole.objective.samples)
    trial = prepare(plain, whole, seed, "objective")
    chunk = min(chunk_of(trial), replicates)
    values = []
    for start in range(0, replicates, chunk):
        fx = ask(trial, range(start, start + chunk), None, PILOT, Count()).known["fx"]
        values.append(whole.objective.value(fx).reshape(chunk, -1).sum(-1))
    found = torch.cat(values)
    if whole.closed_form is not None:
        found = found + call(whole.closed_form, {"data": whole.data}, whole.theta).sum()
    return float(found.mean()), float(found.std() / len(found) ** 0.5)


def _stage(problem: Problem, step: int, seed: int) -> Stage:
    point = Point(problem.theta.clone(), None if problem.model is None else problem.model.clone())
    return Stage(step, point, *objective_at(problem, seed))


def _moved(problem: Problem, leaves: list[Tensor]) -> Problem:
    return replace(problem, theta=leaves[0], model=leaves[1] if problem.model is not None else None)
