"""SPSA: unbiased as its step vanishes, and with a long step its mean is that of its own difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, prepare
from estimators.base import claim_of, mismatch, target_of
from estimators.noise import MEASURE
from estimators.spsa import spsa
from problems.base import Problem
from problems.families.gamma import Gamma
from problems.objectives import Elbo
from problems.quadratic import quadratic
from problems.truth import log_probability


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gammas() -> Problem:
    """The ELBO of a Gamma q for a Gamma target: E [1.5 log x - 2 x] and the entropy."""

    def exact(problem: Problem) -> torch.Tensor:
        theta = problem.theta.clone().requires_grad_()
        a, b = theta.exp()
        entropy = torch.distributions.Gamma(a, b).entropy()
        return torch.autograd.grad((1.5 * (torch.digamma(a) - b.log()) - 2 * a / b + entropy).sum(), theta)[0]

    theta = tensor([0.2], [-0.3])
    return Problem("gammas", Gamma, theta, lambda x: (1.5 * x.log() - 2 * x).sum(-1), Elbo(), exact=exact)


NAMES = ["bits", "categories", "normals", "counts"]


@pytest.mark.parametrize("name", [n + suffix for n in NAMES for suffix in ("", " elbo")] + ["gammas"])
def test_a_short_step_leaves_no_bias_to_be_seen(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """h = 0.01: the bias, of order 1e-4, is far below the standard error of 16,384 replicates."""
    problem = gammas() if name == "gammas" else small(name)
    found = agreement(spsa(), problem)
    assert claim_of(spsa(), problem) == "biased"
    assert found.z < found.allowed
    assert (found.f, found.df) == (2, 0)


def mean_of_spsa(problem: Problem, step: float) -> torch.Tensor:
    """Mean over every Delta in {-1, 1}^P of [F(theta + h Delta) - F(theta - h Delta)] / (2 h Delta), F by enumeration."""
    q = problem.bind(problem.theta)
    x = q.support()
    fx = problem.f(x) - log_probability(q, x) if problem.objective.ratio else problem.f(x)
    signs = torch.cartesian_prod(*[tensor(-1.0, 1.0)] * problem.theta.numel()).unflatten(-1, problem.theta.shape)

    def F(theta: torch.Tensor) -> torch.Tensor:
        return (log_probability(q.at(theta), x).exp() * fx).sum()

    ends = [(F(problem.theta + step * delta) - F(problem.theta - step * delta)) / (2 * step * delta) for delta in signs]
    return torch.stack(ends).mean(0)


LONG = 1.5


def claimed(problem: Problem) -> torch.Tensor:
    found = target_of(spsa(step=LONG), problem)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("name", ["bits", "bits elbo", "categories", "categories elbo"])
def test_a_long_step_has_the_mean_of_its_difference(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    mean = mean_of_spsa(problem, LONG)
    torch.testing.assert_close(claimed(problem), mean.reshape(-1), rtol=1e-10, atol=1e-12)
    found = agreement(spsa(step=LONG), replace(problem, exact=lambda _: mean), replicates=2**17)
    assert found.z < found.allowed
    against_truth = agreement(spsa(step=LONG), problem)
    assert against_truth.z > against_truth.allowed


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("name", ["bits elbo", "amortised categories"])
def test_several_directions_and_draws_of_their_own_have_the_same_mean(
    name: str, common: bool, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem, mean = small(name), claimed(small(name))
    found = agreement(spsa(3, LONG, common), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (6 * max(problem.rows, 1), 0)


def test_three_directions_have_a_third_of_the_variance(
    agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    one, three = (agreement(spsa(K, 0.5), small("normals"), replicates=2**16) for K in (1, 3))
    error = 3 * three.total_variance_se + one.total_variance_se
    assert abs(3 * three.total_variance - one.total_variance) < 4 * error


def test_a_wrong_constant_is_seen(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """2.2 in place of 2."""

    def combine(noise: tuple[torch.Tensor, torch.Tensor], fx: torch.Tensor) -> torch.Tensor:
        return (fx[0] - fx[1])[..., None] / (2.2 * LONG * noise[0][0])

    problem = small("bits")
    mean = mean_of_spsa(problem, LONG)
    wrong = replace(spsa(step=LONG), combine=combine)
    found = agreement(wrong, replace(problem, exact=lambda _: mean), replicates=2**17)
    assert found.z > found.allowed


def test_the_bias_falls_as_the_step_squared(small: Callable[[str], Problem]) -> None:
    problem = small("bits")
    limit = mean_of_spsa(problem, 1e-3)
    long, short = ((mean_of_spsa(problem, h) - limit).norm() for h in (0.2, 0.1))
    assert float(long / short) == pytest.approx(4, rel=0.05)


def test_both_ends_have_the_same_noise(small: Callable[[str], Problem]) -> None:
    """Of normals, x+ - x- is that of mu and sigma alone."""
    problem = small("normals")
    known = ask(prepare(spsa(step=0.1), problem), range(16), None, MEASURE, Count()).known
    ((delta,), (eps,)), (up, down) = known["noise"], known["x"]
    log_sigma = problem.theta[1]
    between = ((log_sigma + 0.1 * delta[:, 1]).exp() - (log_sigma - 0.1 * delta[:, 1]).exp()) * eps
    assert torch.allclose(up - down, 0.2 * delta[:, 0] + between)
    assert delta.abs().unique().tolist() == [1.0]


def test_amortised_parameters_are_moved_for_each_datum(
    agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Rows drawn and all; the model's gradient is the mean of that at both ends."""
    for batch in (0, 2):
        found = agreement(spsa(), replace(small("amortised normals"), batch=batch))
        assert found.z < found.allowed


@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories"])
def test_amortised_sites_and_a_model_have_the_mean_that_is_claimed(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    mean = claimed(problem)
    found = agreement(spsa(step=LONG), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    against_truth = agreement(spsa(step=LONG), problem)
    assert against_truth.z > against_truth.allowed


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"spsa\[step=0\]: the step must be positive"):
        spsa(step=0)
    assert "spsa is for bernoulli" in (mismatch(spsa(), small("layers")) or "")


def test_more_directions_of_signs_than_can_be_listed_have_no_target() -> None:
    """2^16 for 16 categories, 2^40 for 40."""
    few, many = (quadratic(family="categorical", dim=1, categories=categories) for categories in (16, 40))
    assert target_of(spsa(), few) is not None
    assert target_of(spsa(), many) is None
