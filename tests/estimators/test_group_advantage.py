"""Group advantages: what their mean is, by the true gradient or by a sum over all groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import claim_of, target_of
from estimators.group_advantage import group_advantage
from estimators.score_function import rloo
from problems.truth import log_probability, true_gradient

PROBLEMS = ["bits elbo", "categories", "normals", "counts elbo", "amortised bits elbo", "layers elbo"]


def against(problem, target):
    return replace(problem, exact=lambda _: target)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [2, 4])
def test_without_a_scale_its_mean_is_a_part_of_the_gradient(agreement, small, problem, samples):
    ours = group_advantage(samples)
    target, of = target_of(ours, small(problem))
    assert (claim_of(ours, small(problem)), of) == ("biased", "1 - 1/K of the gradient in theta")
    found = agreement(ours, against(small(problem), target))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(small(problem).rows, 1), 0)
    whole = agreement(ours, against(small(problem), true_gradient(small(problem)).gradient))
    assert whole.z > whole.allowed


def test_a_term_that_needs_no_draw_is_not_shrunk(agreement, small):
    problem = replace(small("amortised bits"), closed_form=lambda theta: theta.square().sum())
    found = agreement(group_advantage(), against(problem, target_of(group_advantage(), problem)[0]))
    assert found.z < found.allowed


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    problem = replace(small("amortised bits elbo"), batch=2)
    found = agreement(group_advantage(), against(problem, target_of(group_advantage(), problem)[0]))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "normals elbo"])
@pytest.mark.parametrize("samples", [2, 5])
def test_leave_one_out_is_it_times_k_over_k_minus_1(agreement, small, problem, samples):
    ours, other = (agreement(e(samples), small(problem), 512) for e in (group_advantage, rloo))
    g = ours.gradients * samples / (samples - 1)
    assert torch.allclose(g, other.gradients, rtol=1e-13, atol=1e-13)


def mean_over_groups(problem, samples, scale, eps=1e-4):
    """E 1/K sum_k A_k grad log q(x_k), by the sum over all S^K groups; the scores by autograd."""
    theta = problem.theta.clone().requires_grad_()
    q = problem.bind(problem.theta)
    x = q.support()
    log_q = log_probability(problem.bind(theta), x)
    index = torch.cartesian_prod(*[torch.arange(len(x))] * samples)
    f = (problem.f(x) - q.log_prob(x) if problem.objective.ratio else problem.f(x))[index]
    centre = f.sum(1, keepdim=True) / samples
    spread = ((f - centre).square().sum(1, keepdim=True) / (samples - 1)).sqrt()
    A = (f - centre) / ((spread if scale == "std" else centre.abs()) + eps)
    chance = log_q.detach()[index].sum(1).exp()
    return torch.autograd.grad((chance * (A * log_q[index]).mean(1)).sum(), theta)[0].reshape(-1)


@pytest.mark.parametrize("problem", ["bits", "categories elbo"])
@pytest.mark.parametrize(("samples", "scale", "eps"), [(2, "std", 1e-4), (3, "std", 0.5), (3, "mean", 1e-4)])
def test_with_a_scale_its_mean_is_that_over_all_groups(agreement, small, problem, samples, scale, eps):
    positive = replace(small(problem), f=lambda x: small(problem).f(x) + 9.0)
    wanted = mean_over_groups(positive, samples, scale, eps)
    found = agreement(group_advantage(samples, scale, eps), against(positive, wanted))
    assert found.z < found.allowed
    assert claim_of(group_advantage(samples, scale), positive) == "biased"


def test_another_divisor_is_seen(agreement, small):
    """The standard deviation with K in place of K - 1."""
    problem = small("bits")
    wanted = mean_over_groups(problem, 3, "std")

    def combine(q, x, fx):
        return q.score(x, (fx - fx.mean(0)) / (fx.std(0, correction=0) + 1e-4) / 3)

    found = agreement(replace(group_advantage(3, "std"), combine=combine), against(problem, wanted))
    assert found.z > found.allowed


def test_a_group_of_two_over_its_spread_is_the_sign_alone(agreement, small):
    """(f_1 - f_2) / 2 over |f_1 - f_2| / sqrt 2: any f of the same order gives the same gradient."""
    problem = small("bits")
    bent = replace(problem, f=lambda x: 3 * problem.f(x) ** 3)
    one, two = (agreement(group_advantage(2, "std", eps=1e-12), p, replicates=256) for p in (problem, bent))
    assert torch.allclose(one.gradients, two.gradients, rtol=1e-9)


@pytest.mark.parametrize("scale", ["none", "std", "mean"])
def test_a_constant_f_has_no_advantage(agreement, small, scale):
    """Of any group, zero too."""
    for level in (0.0, 0.1, -31.3):
        constant = replace(small("bits"), f=lambda x, level=level: 0 * x[..., 0] + level)
        assert agreement(group_advantage(3, scale), constant, replicates=64).gradients.abs().max() == 0


@pytest.mark.parametrize(("setting", "value"), [("samples", 1), ("scale", "rank"), ("eps", 0.0)])
def test_settings_that_make_no_sense_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"group_advantage\[{setting}={value}\]"):
        group_advantage(**{setting: value})
