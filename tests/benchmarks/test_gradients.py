"""pytest-benchmark cases: one chunk of gradients of each estimator on a small and a larger problem.

They measure and assert nothing about speed; `--benchmark-enable --benchmark-json` stores the rounds. Compare within one file only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from _pytest.mark import ParameterSet
from pytest_benchmark.fixture import BenchmarkFixture

from bench.evaluate import gradients, learn, prepare
from bench.measure import chunk_of, pinned
from estimators import ESTIMATORS
from estimators.base import mismatch
from problems import PROBLEMS
from problems.base import Problem

SIZES: list[tuple[str, dict[str, int]]] = [
    ("bernoulli_toy", {"dim": 6}),
    ("bernoulli_toy", {"dim": 200}),
    ("gaussian_cost", {}),
]


@cache
def problem(which: int) -> Problem:
    name, settings = SIZES[which]
    return PROBLEMS[name](**settings)


def cases() -> Iterator[ParameterSet]:
    """Every estimator on those of the problems that it fits."""
    for name in ESTIMATORS:
        for which, (title, settings) in enumerate(SIZES):
            if mismatch(ESTIMATORS[name](), problem(which)) is None:
                label = "-".join([name, title, *(f"{k}{v}" for k, v in settings.items())])
                yield pytest.param(name, which, id=label)


@pytest.mark.parametrize(("estimator", "which"), list(cases()))
def test_gradients(benchmark: BenchmarkFixture, estimator: str, which: int) -> None:
    e, p = ESTIMATORS[estimator](), problem(which)
    with pinned(1):
        trial = prepare(e, p)
        state, _ = learn(trial)
        n = chunk_of(trial)
        benchmark.extra_info["replicates"] = n
        g = benchmark(lambda: gradients(trial, range(n), state))
    assert g.shape == (n, p.dim)
    assert bool(g.isfinite().all())


def test_a_draw_and_an_evaluation(benchmark: BenchmarkFixture) -> None:
    """The yardstick that the estimators' times are quoted against."""
    from bench.timing import yardstick

    with pinned(1):
        call, n = yardstick(prepare(ESTIMATORS["reinforce"](), problem(0)))
        benchmark.extra_info["replicates"] = n
        assert benchmark(call) is not None
