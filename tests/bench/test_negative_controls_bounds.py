"""Mistakes in gradients of bounds that shipped, as members that claim to be unbiased: each is found biased, its original not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from bench.evaluate import gradients, prepare
from bench.measure import measure
from estimators.base import Estimator, across
from estimators.importance_weighted import iwae_score
from estimators.ovis import ovis
from estimators.tail_adaptive import tail_adaptive
from problems.base import Problem
from problems.objectives import ImportanceWeighted, Objective, Renyi
from tests.bench.test_negative_controls import coupled_bits
from tests.estimators.test_tail_adaptive import mean_of_tail_adaptive, one_dimensional

SEEDS = range(5)
SAMPLES = 5


def tail_adaptive_by_order() -> Estimator:
    """N9: the places of the ordered samples, argsort, for their ranks, argsort of argsort. A published library's."""

    def combine(q: Any, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        gamma = 1 / (fx.argsort(0, descending=True) + 1).to(fx)
        return q.path(x, across(gamma / gamma.sum(0), dfx) * dfx)

    return claimed(replace(tail_adaptive(SAMPLES), combine=combine))


def renyi_score_of_all_samples() -> Estimator:
    """N10: alpha/(1 - alpha) sum_k v_k grad log q(x_k), the score of the bound of infinitely many samples; at alpha = 0 nil."""

    def combine(q: Any, x: Tensor, fx: Tensor, objective: Objective) -> Tensor:
        alpha = objective.alpha
        v = ((1 - alpha) * fx).softmax(0)
        return q.score(x, alpha / (1 - alpha) * v)

    return replace(iwae_score(), combine=combine)


def claimed(estimator: Estimator) -> Estimator:
    """The same, claiming to be unbiased."""
    return replace(estimator, claims=dict.fromkeys(estimator.claims, "unbiased"))


def bits(objective: Objective) -> Callable[[], Problem]:
    return lambda: replace(coupled_bits(bound=True), objective=objective)


def of_ranks() -> Problem:
    """One Normal variable whose exact gradient is put to the mean of the tail-adaptive gradient: no objective has it."""
    problem = one_dimensional()
    mean = mean_of_tail_adaptive(problem, SAMPLES, -1.0)
    return replace(problem, exact=lambda _: mean)


@dataclass(frozen=True)
class Control:
    """A mistake, its original, a problem, and the replicates at which it is found with a power of 99% (false alarm 1%)."""

    wrong: Estimator
    right: Estimator
    problem: Callable[[], Problem]
    replicates: int


CONTROLS = {
    "N9: argsort for the rank": Control(tail_adaptive_by_order(), claimed(tail_adaptive(SAMPLES)), of_ranks, 8192),
    "N10: Renyi score of all samples": Control(renyi_score_of_all_samples(), iwae_score(), bits(Renyi(0.5, 3)), 8192),
    "N10: Renyi score of all samples, alpha=0": Control(  # a gradient that never varies is believed from 10^4 on
        renyi_score_of_all_samples(), iwae_score(), bits(Renyi(0.0, 3)), 16_384
    ),
    "N15: OVIS of gamma=1": Control(claimed(ovis(1.0)), ovis(0.0), bits(ImportanceWeighted(3)), 16_384),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_the_mistake_is_found_and_its_original_is_not(name: str) -> None:
    """Stated power 99% each: 5 of 5 seeds fail by chance in 5% of cases at worst; seeds are fixed. False alarm 1% each."""
    control = CONTROLS[name]
    problem = control.problem()

    def verdict(which: str, seed: int) -> str:
        return measure(getattr(control, which), problem, replicates=control.replicates, seed=seed, rounds=0).verdict

    assert [verdict("wrong", seed) for seed in SEEDS] == ["biased"] * len(SEEDS)
    assert "biased" not in [verdict("right", seed) for seed in SEEDS]


def test_the_wrong_renyi_score_of_order_nil_is_nil() -> None:
    g = gradients(prepare(renyi_score_of_all_samples(), bits(Renyi(0.0, 3))()), range(64))
    assert float(g.abs().max()) == 0
