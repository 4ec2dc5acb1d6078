"""The bandit: rewards by hand, its gradient by three ways, and what committing does to the score function's variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators.disarm_categorical import disarm_categorical
from estimators.score_function import reinforce, rloo
from estimators.straight_through import straight_through
from problems.bandit import bandit
from problems.truth import true_gradient

SETTINGS: list[dict[str, Any]] = [{}, {"arms": 2, "contexts": 4}, {"arms": 5, "offset": 2.0}, {"contexts": 3}]
POINTS = ["init", "committed", "converged"]


def softmax(values: list[float]) -> list[float]:
    most = max(values)
    weights = [math.exp(v - most) for v in values]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("point", POINTS)
def test_the_gradient_by_three_ways(settings: dict[str, Any], point: str, differences: Callable[..., Tensor]) -> None:
    """Closed form, enumeration by autograd, and central differences of the mean reward in plain Python."""
    problem = bandit(**settings).at(point)
    arms, contexts, offset = (problem.settings[name] for name in ("arms", "contexts", "offset"))
    base = {2: [1.0, 0.7], 3: [1.0, 0.7, 0.0], 5: [1.0, 0.7, 1.4 / 3, 0.7 / 3, 0.0]}[arms]

    def J(theta: list[float]) -> float:
        total = 0.0
        for s in range(contexts):
            p = softmax(theta[s * arms : (s + 1) * arms])
            total += sum(p[a] * (base[(a - s) % arms] + offset) for a in range(arms))
        return total / contexts

    truth, enumerated = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert truth is not None
    assert enumerated is not None
    assert (truth.tier, enumerated.tier) == ("closed form", "enumeration")
    torch.testing.assert_close(truth.gradient, enumerated.gradient, rtol=0, atol=1e-14)
    wanted = differences(J, problem.theta.flatten().tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-9)
    assert float(wanted.norm()) > 1e-3


def test_truth_is_of_the_contexts_that_are_there() -> None:
    problem = bandit(contexts=3).at("committed")
    assert problem.data is not None
    there = replace(problem, data=problem.data[[1, 2, 1]])
    truth, enumerated = true_gradient(there), true_gradient(replace(there, exact=None))
    assert truth is not None
    assert enumerated is not None
    torch.testing.assert_close(truth.gradient, enumerated.gradient, rtol=0, atol=1e-14)


def test_rewards_by_hand() -> None:
    choices = torch.eye(3, dtype=torch.float64)[:, None]
    problem = bandit(offset=0.5)
    assert problem.f(choices).tolist() == pytest.approx([1.5, 1.2, 0.5])
    assert problem.scalar_f is not None
    assert [problem.scalar_f(one) for one in choices.tolist()] == pytest.approx([1.5, 1.2, 0.5])
    turned = bandit(contexts=3)
    for a, wanted in enumerate([[1, 0, 0.7], [0.7, 1, 0], [0, 0.7, 1]]):
        x = choices[a].expand(3, 1, 3)
        assert (3 * turned.value(x)).tolist() == pytest.approx(wanted)
    assert turned.scalar_f is None
    assert turned.value(choices.expand(3, 3, 1, 3).float(), None, torch.eye(3)).dtype == torch.float32


def test_an_offset_moves_no_gradient_but_the_noise_of_what_has_no_baseline() -> None:
    plain, moved = bandit(), bandit(offset=10.0)
    a, b = true_gradient(plain), true_gradient(moved)
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a.gradient, b.gradient, rtol=0, atol=1e-14)
    same = replace(moved, settings=plain.settings)  # the noise is addressed by the settings
    with_baseline = [gradients(prepare(rloo(2), p), range(64)) for p in (plain, same)]
    torch.testing.assert_close(*with_baseline, rtol=0, atol=1e-13)
    without = [gradients(prepare(reinforce(2), p), range(4096)).var(0).sum() for p in (plain, same)]
    assert float(without[1]) > 50 * float(without[0])


def test_committing_costs_in_proportion_to_what_is_not_seen() -> None:
    """Var g / |E g|^2, Var g = sum_a p_a (r_a - b)^2 |e_a - p|^2 - |E g|^2, goes as 1 / p of the best arm for every baseline b.

    It is least for b = sum_a p_a |e_a - p|^2 r_a / sum_a p_a |e_a - p|^2, which tends to the mean of the other arms, 1/2.
    """
    r, one = torch.tensor([1.0, 0.7, 0.0], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    problem, relative = bandit(), {}
    for logit in (5.0, 9.0):
        there = replace(problem, theta=logit * one[1:2])
        p = there.theta[0].softmax(-1)
        of_score = p * (one - p).square().sum(-1)
        best = float((of_score * r).sum() / of_score.sum())
        assert best == pytest.approx(0.5, abs=3 * math.exp(-logit))
        truth = true_gradient(there)
        assert truth is not None
        size = float(truth.gradient.square().sum())
        for b in (0.0, best, 0.7, 1.0):
            key = "best" if b == best else f"{b}"
            relative[key, logit] = float(p[0]) * (float((of_score * (r - b) ** 2).sum()) / size - 1)
    for key in ("0.0", "best", "0.7", "1.0"):
        assert relative[key, 9.0] == pytest.approx(relative[key, 5.0], rel=0.1)
        assert relative[key, 9.0] >= relative["best", 9.0] > 0.5


@pytest.mark.parametrize("settings", [{"arms": 4}, {"contexts": 2}])
def test_estimators_of_three_kinds_reach_the_truth(settings: dict[str, Any]) -> None:
    """Scores, antithetic pairs and, f being linear, straight-through."""
    for estimator in (rloo(4), disarm_categorical(), straight_through()):
        findings = check(estimator, [bandit(**settings)], replicates=4096, level=1e-4)
        assert failures(findings) == []
        assert sum(f.check == "unbiased as claimed" for f in findings) == 3


def test_settings_that_make_no_sense_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"arms": 1}, r"bandit\[arms=1\]: arms must"),
        ({"contexts": 0}, r"bandit\[contexts=0\]: "),
        ({"offset": math.nan}, r"bandit\[offset=nan\]: offset must be finite"),
        ({"offset": math.inf}, r"bandit\[offset=inf\]: offset must be finite"),
    ]
    for settings, why in refused:
        with pytest.raises(ValueError, match=why):
            bandit(**settings)
