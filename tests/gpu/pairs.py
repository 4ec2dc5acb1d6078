"""Every estimator that has a kernel form, on one problem of every kind that it runs on: small, for none of it is about size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.evaluate import Trial, prepare
from bench.kernels import why_no_kernel
from estimators import ESTIMATORS
from estimators.base import Estimator, mismatch
from problems import PROBLEMS
from problems.base import Problem

SMALL: dict[str, list[dict[str, Any]]] = {
    "alignment": [{"words": 2, "vocabulary": 3, "sentences": 2}],
    "bayes_logreg": [{"data": 20}],
    "bernoulli_toy": [{"dim": 4}],
    "gamma_cost": [{"dim": 2}],
    "gaussian_cost": [{"dim": 2, "cost": "exp"}],
    "linear_gaussian": [
        {"dim": 2, "data": 2},
        {"dim": 2, "data": 2, "samples": 2},
        {"dim": 2, "data": 2, "samples": 2, "objective": "renyi"},
        {"dim": 2, "data": 2, "objective": "inclusive_kl"},
    ],
    "mixture": [
        {"data": 2},
        {"data": 2, "samples": 2},
        {"data": 2, "samples": 2, "objective": "renyi"},
        {"data": 2, "samples": 2, "objective": "inclusive_kl"},
    ],
    "poisson_cost": [{"dim": 2}],
    "quadratic": [{"dim": 4}, {"dim": 2, "family": "categorical"}],
    "sbn": [{"hidden": 3, "data": 6, "batch": 2}],
    "tiny_sbn": [{"hidden": 3, "data": 2}, {"hidden": 3, "data": 2, "samples": 2}],
}


def kind(p: Problem) -> tuple[object, ...]:
    """What decides which lane functions a kernel on this problem is made of."""
    bound = (p.objective.name, p.objective.ratio, p.objective.samples)
    parts = (p.lanes is None, p.encode is None, bool(p.rows), bool(p.batch), p.model is None)
    return (p.family_name, *bound, *parts)


def problems() -> list[Problem]:
    """One of each kind, at its first point."""
    found: dict[tuple[object, ...], Problem] = {}
    for name, build in PROBLEMS.items():
        for settings in SMALL.get(name, [{}]):
            problem = build(**settings)
            found.setdefault(kind(problem), problem)
    return [problem.at(problem.point_names()[0]) for problem in found.values()]


def title(e: Estimator, p: Problem) -> str:
    """As a table and a test name the pair."""
    told = "".join(
        f",{name}={value}" for name, value in p.settings.items() if name in ("family", "samples", "objective")
    )
    return f"{e.name}-{p.name}{told}"


def trials(dtype: str = "float64", device: str = "cpu") -> Iterator[tuple[str, Trial]]:
    """The pairs, by name."""
    own = [ESTIMATORS[name]() for name in ESTIMATORS]
    for problem in problems():
        for estimator in own:
            if estimator.kernel is not None and mismatch(estimator, problem) is None:
                trial = prepare(estimator, problem, 7, "", dtype)
                if why_no_kernel(trial) is None:
                    yield (
                        title(estimator, problem),
                        trial if device == "cpu" else prepare(estimator, problem, 7, "", dtype, device),
                    )
