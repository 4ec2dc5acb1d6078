"""The score as control variate, its coefficient regressed on the samples themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import claim_of
from estimators.control_variate_regression import control_variate_regression
from estimators.score_function import rloo
from problems.truth import log_probability

PROBLEMS = [
    "bits elbo",
    "categories",
    "normals elbo",
    "counts",
    "amortised bits elbo",
    "amortised normals",
    "layers elbo",
    "layers of categories",
]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [2, 5])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, samples):
    found = agreement(control_variate_regression(samples), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(small(problem).rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(control_variate_regression(), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits elbo", "categories", "normals", "layers"])
def test_with_two_samples_it_is_leave_one_out(agreement, small, problem):
    ours, other = (agreement(e, small(problem), 512) for e in (control_variate_regression(2), rloo(2)))
    assert torch.allclose(ours.gradients, other.gradients, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_with_many_samples_it_reaches_the_least_variance_of_each_parameter(agreement, small, problem):
    p = small(problem)
    q = p.bind(p.theta)
    x = q.support()
    weight, s, fx = q.log_prob(x).exp()[:, None], q.local(x).flatten(1), p.f(x)[:, None]
    a = (weight * fx * s**2).sum(0) / (weight * s**2).sum(0)
    least = (weight * ((fx - a) * s) ** 2).sum(0) - (weight * fx * s).sum(0) ** 2
    found = agreement(control_variate_regression(64), p)
    assert (64 * found.variance < 1.1 * least + 4 * 64 * found.variance_se).all()
    assert (64 * found.variance > least - 4 * 64 * found.variance_se).all()


def mean_over_groups(problem, samples):
    """E 1/K sum_k (f_k - a_i) s_ki with a_i from the same samples, by the sum over all S^K groups."""
    q = problem.bind(problem.theta)
    x = q.support()
    index = torch.cartesian_prod(*[torch.arange(len(x))] * samples)
    f, s = problem.f(x)[index][..., None], q.local(x).flatten(1)[index]
    a = (f * s**2).sum(1, keepdim=True) / (s**2).sum(1, keepdim=True)
    chance = log_probability(q, x)[index].sum(1).exp()
    return (chance[:, None] * ((f - a) * s).mean(1)).sum(0)


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_fitted_to_the_same_samples_its_mean_is_that_over_all_groups(agreement, small, problem):
    ours = control_variate_regression(3, "same")
    found = agreement(ours, replace(small(problem), exact=lambda _: mean_over_groups(small(problem), 3)))
    assert found.z < found.allowed
    assert claim_of(ours, small(problem)) == "consistent"
    against_truth = agreement(ours, small(problem))
    assert against_truth.z > against_truth.allowed


def test_fitted_to_the_same_samples_its_bias_vanishes_as_they_are_added(agreement, small):
    few, many = (agreement(control_variate_regression(k, "same"), small("bits"), 65_536) for k in (2, 32))
    assert (many.mean - many.truth).norm() < (few.mean - few.truth).norm() / 8


def test_a_sample_in_its_own_fit_is_seen(agreement, small):
    found = agreement(
        replace(control_variate_regression(4), combine=control_variate_regression(4, "same").combine),
        small("bits elbo"),
    )
    assert found.z > found.allowed


@pytest.mark.parametrize("fit", ["leave_one_out", "same"])
def test_a_constant_f_and_a_site_that_never_varies_give_zero(agreement, small, fit):
    constant = replace(small("normals"), f=lambda x: 0 * x[..., 0] + 5, exact=lambda p: 0 * p.theta)
    assert agreement(control_variate_regression(3, fit), constant, replicates=64).gradients.abs().max() < 1e-12
    dead = replace(
        small("bits"), theta=torch.tensor([800.0, 0.2, -800.0], dtype=torch.float64), exact=lambda p: 0 * p.theta
    )
    found = agreement(control_variate_regression(3, fit), dead, replicates=64)
    assert (found.gradients[:, [0, 2]] == 0).all()


@pytest.mark.parametrize(("setting", "value"), [("samples", 1), ("fit", "split")])
def test_settings_that_make_no_sense_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"control_variate_regression\[{setting}={value}\]"):
        control_variate_regression(**{setting: value})
