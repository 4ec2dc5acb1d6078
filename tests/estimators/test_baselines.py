"""Constant baselines learned from other samples: the moving average, and the least-variance baseline of each parameter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.moving_average import moving_average_baseline
from estimators.optimal_baseline import optimal_baseline
from estimators.score_function import reinforce

PROBLEMS = [
    "bits elbo",
    "categories",
    "normals",
    "counts elbo",
    "amortised bits elbo",
    "layers",
    "layers of categories",
]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("make", [moving_average_baseline, optimal_baseline])
def test_they_agree_with_the_exact_gradient(agreement, small, make, problem):
    found = agreement(make(samples=2), small(problem))
    assert found.z < found.allowed


@pytest.mark.parametrize("make", [moving_average_baseline, optimal_baseline])
def test_they_reduce_the_variance_of_a_score_function_far_from_zero(agreement, small, make):
    plain, better = (agreement(e, small("bits elbo")) for e in (reinforce(), make()))
    assert better.total_variance < plain.total_variance - 4 * plain.total_variance_se


def test_a_moving_average_that_is_updated_before_it_is_used_is_seen(agreement, small):
    right = moving_average_baseline(samples=1, decay=0.8)

    def combine(q, x, fx, state):
        return q.score(x, fx - (0.8 * state["b"] + 0.2 * fx.mean(0)))

    found = agreement(replace(right, combine=combine), small("bits"))
    assert found.z > found.allowed
    shrunk = agreement(replace(right, combine=combine), replace(small("bits"), exact=lambda _: 0.8 * found.truth))
    assert shrunk.z < shrunk.allowed


def test_the_moving_average_forgets_its_start_geometrically(agreement, small):
    constant = replace(small("bits"), f=lambda x: 0 * x[..., 0] + 5, smooth=0)
    found = agreement(moving_average_baseline(decay=0.7, steps=10), constant, replicates=16)
    assert found.state["b"].item() == pytest.approx(5 * (1 - 0.7**10), rel=1e-12)
    assert (found.learning.f, found.f) == (10, 1)


def test_the_optimal_baseline_reaches_the_least_variance_of_each_parameter(agreement, small):
    problem = small("bits")
    q = problem.bind(problem.theta)
    x = q.support()
    weight, s, fx = q.log_prob(x).exp()[:, None], q.local(x), problem.f(x)[:, None]
    g = (weight * fx * s).sum(0)

    def variance(b):
        return (weight * ((fx - b) * s) ** 2).sum(0) - g**2

    least = variance((weight * fx * s**2).sum(0) / (weight * s**2).sum(0))
    found = agreement(optimal_baseline(), problem)
    learned = variance(found.state["f_s2"] / found.state["s2"])
    assert (learned <= 1.01 * least).all()
    assert ((found.variance - learned).abs() < 4 * found.variance_se).all()
    assert variance(0.0).sum() > 1.05 * least.sum()
    assert found.learning.f == 10_000


@pytest.mark.parametrize("problem", [*PROBLEMS, "amortised normals"])
def test_one_optimal_baseline_for_all_agrees_too(agreement, small, problem):
    found = agreement(optimal_baseline(samples=2, shared=True), small(problem))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories elbo"])
def test_shared_it_reaches_the_least_total_variance_of_one_baseline(agreement, small, problem):
    """Worse than one for each parameter, better than none."""
    p = small(problem)
    q = p.bind(p.theta)
    x = q.support()
    log_q = q.log_prob(x)
    weight, s, fx = log_q.exp()[:, None], q.local(x).flatten(1), (p.f(x) - log_q * p.objective.ratio)[:, None]

    def total(b):
        return (weight * ((fx - b) * s) ** 2).sum() - (weight * fx * s).sum(0).square().sum()

    least = total((weight * fx * s**2).sum() / (weight * s**2).sum())
    each, shared = (agreement(optimal_baseline(shared=one), p) for one in (False, True))
    learned = total(shared.state["f_s2"].sum() / shared.state["s2"].sum())
    assert least <= learned <= 1.01 * least
    assert abs(shared.total_variance - learned) < 4 * shared.total_variance_se
    assert total((weight * fx * s**2).sum(0) / (weight * s**2).sum(0)) <= least < total(0.0)
    assert not torch.equal(each.gradients, shared.gradients)


def test_a_wrong_divisor_is_seen(agreement, small):
    def combine(q, x, fx, state):
        return q.score(x, fx / 3)

    found = agreement(replace(optimal_baseline(samples=2), combine=combine), small("categories"))
    assert found.z > found.allowed


def test_a_site_that_never_varies_has_baseline_zero_and_gradient_zero(agreement, small):
    dead = replace(
        small("bits"), theta=torch.tensor([800.0, 0.2, -800.0], dtype=torch.float64), exact=lambda p: 0 * p.theta
    )
    found = agreement(optimal_baseline(), dead, replicates=64)
    assert (found.gradients[:, [0, 2]] == 0).all()


@pytest.mark.parametrize(
    ("make", "setting", "value"),
    [
        (moving_average_baseline, "samples", 0),
        (moving_average_baseline, "decay", 1.0),
        (moving_average_baseline, "steps", -1),
        (optimal_baseline, "samples", 0),
        (optimal_baseline, "steps", 0),
        (optimal_baseline, "batch", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, setting, value):
    with pytest.raises(ValueError, match=rf"\[{setting}={value}\]"):
        make(**{setting: value})
