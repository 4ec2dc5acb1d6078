"""Finite differences: their mean is that of the objective itself, by enumeration or quadrature, and their bias has its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, prepare
from estimators.base import Estimator, claim_of, mismatch, target_of
from estimators.evolution_strategies import evolution_strategies
from estimators.finite_difference import finite_difference
from estimators.noise import MEASURE
from problems import PROBLEMS
from problems.base import Problem
from problems.truth import gauss_hermite, log_probability, true_gradient

DISCRETE = ["bits", "bits elbo", "categories", "categories elbo"]
COSTS = ["poisson", "geometric", "binomial", "gamma", "weibull", "beta", "dirichlet", "von_mises"]
STEP = 0.8


def objective_at(problem: Problem) -> Callable[[torch.Tensor], torch.Tensor]:
    """F(theta') = E_{theta'} [f - log q_theta], by enumeration, or over Normal variables by quadrature."""
    q = problem.bind(problem.theta)
    x = q.support() if q.finite else None

    def enumerated(theta: torch.Tensor) -> torch.Tensor:
        assert x is not None
        fx = problem.f(x) - log_probability(q, x) if problem.objective.ratio else problem.f(x)
        return (log_probability(q.at(theta), x).exp() * fx).sum()

    def integrated(theta: torch.Tensor) -> torch.Tensor:
        eps, weight = gauss_hermite(2, 40)
        y = theta[0] + theta[1].exp() * eps
        log_q = torch.distributions.Normal(problem.theta[0], problem.theta[1].exp()).log_prob(y).sum(-1)
        return (weight * (problem.f(y) - log_q if problem.objective.ratio else problem.f(y))).sum()

    return enumerated if q.finite else integrated


def difference(problem: Problem, step: float, kind: str) -> torch.Tensor:
    """(F(theta + h e_i) - F(theta - h e_i)) / (2 h) or (F(theta + h e_i) - F(theta)) / h, one parameter after another."""
    F, theta = objective_at(problem), problem.theta
    ends = [step * e.reshape(theta.shape) for e in torch.eye(theta.numel(), dtype=theta.dtype)]
    if kind == "central":
        return torch.stack([(F(theta + e) - F(theta - e)) / (2 * step) for e in ends])
    return torch.stack([(F(theta + e) - F(theta)) / step for e in ends])


def claimed(estimator: Any, problem: Problem) -> torch.Tensor:
    found = target_of(estimator, problem)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("kind", ["central", "forward"])
@pytest.mark.parametrize("name", DISCRETE)
def test_the_claim_is_the_difference_of_the_objective(name: str, kind: str, small: Callable[[str], Problem]) -> None:
    problem = small(name)
    found = claimed(finite_difference(STEP, kind), problem)
    torch.testing.assert_close(found, difference(problem, STEP, kind), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("kind", ["central", "forward"])
@pytest.mark.parametrize("name", [*DISCRETE, "normals", "normals elbo"])
def test_the_mean_is_the_difference_of_the_objective(
    name: str, kind: str, common: bool, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem, estimator = small(name), finite_difference(STEP, kind, common)
    mean, P = difference(problem, STEP, kind), problem.theta.numel()
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (2 * P if kind == "central" else P + 1, 0)
    assert claim_of(estimator, problem) == "biased"
    if (kind, common) == ("forward", True):
        against_truth = agreement(estimator, problem, replicates=2**16)
        assert against_truth.z > against_truth.allowed


@pytest.mark.parametrize("kind", ["central", "forward"])
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories"])
def test_amortised_parameters_are_moved_for_each_datum(
    name: str, batch: int, kind: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """The model's gradient is that at theta, or the mean of that at the ends."""
    problem, estimator = replace(small(name), batch=batch), finite_difference(STEP, kind)
    mean = claimed(estimator, problem)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed


def test_the_claim_of_an_encoder_and_a_model_is_written_out(small: Callable[[str], Problem]) -> None:
    """By automatic differentiation of the sum of F_i(theta + h e_i) - F_i(theta - h e_i) over data and sites."""
    problem = small("amortised bits elbo")
    assert problem.data is not None
    assert problem.model is not None
    w, model = (t.clone().requires_grad_() for t in (problem.theta, problem.model))
    sites = problem.site_parameters(w)
    held, surrogate, ends = sites.detach(), torch.zeros(()), torch.zeros(())
    for b in range(len(problem.data)):
        q = problem.bind(held[b])
        x = q.support()

        def F(theta: torch.Tensor, b: int = b, q: Any = q, x: torch.Tensor = x) -> torch.Tensor:
            assert problem.data is not None
            fx = problem.value(x[:, None], model, problem.data[b : b + 1])[:, 0] - log_probability(q, x)
            return (log_probability(q.at(theta), x).exp() * fx).sum()

        for d in range(2):
            e = STEP * torch.eye(2, dtype=torch.float64)[d]
            up, down = F(held[b] + e), F(held[b] - e)
            surrogate = surrogate + sites[b, d] * (up - down).detach() / (2 * STEP)
            ends = ends + (up + down) / 4
    expected = torch.cat([torch.autograd.grad(surrogate, w)[0], torch.autograd.grad(ends, model)[0]])
    torch.testing.assert_close(claimed(finite_difference(STEP), problem), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("kind", "ratio"), [("central", 4), ("forward", 2)])
@pytest.mark.parametrize("name", DISCRETE)
def test_the_bias_has_its_order(name: str, kind: str, ratio: float, small: Callable[[str], Problem]) -> None:
    """Of the claims alone, by enumeration: half the step leaves a quarter of a central difference's bias, half of a forward's."""
    problem = small(name)
    truth = true_gradient(problem)
    assert truth is not None
    long, short = ((claimed(finite_difference(h, kind), problem) - truth.gradient).norm() for h in (0.02, 0.01))
    assert float(long / short) == pytest.approx(ratio, rel=0.02)


def test_a_wrong_constant_is_seen(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """2.2 in place of 2."""
    problem = small("bits")
    estimator = finite_difference(STEP)
    mean = claimed(estimator, problem)

    def combine(fx: torch.Tensor) -> torch.Tensor:
        return ((fx[:3] - fx[3:]) / (2.2 * STEP)).movedim(0, -1)

    found = agreement(replace(estimator, combine=combine), replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


def test_common_noise_moves_one_parameter_alone(small: Callable[[str], Problem]) -> None:
    """Of normals, x+_i - x-_i is that of one mean, or of one scale times its noise."""
    problem = small("normals")
    known = ask(prepare(finite_difference(0.1), problem), range(16), None, MEASURE, Count()).known
    up, down = known["x"][:4], known["x"][4:]
    eps, log_sigma = known["noise"][0], problem.theta[1]
    spread = ((log_sigma + 0.1).exp() - (log_sigma - 0.1).exp()) * eps
    for d in range(2):
        here = torch.eye(2, dtype=torch.float64)[d]
        torch.testing.assert_close((up - down)[d], (0.2 * here).expand(16, 2))
        torch.testing.assert_close((up - down)[2 + d], here * spread)


def test_the_variance_grows_as_the_step_falls(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """A step of half: as it was for smooth draws with common noise, twice for bits, four times with noise of their own."""
    for name, common, growth in (("normals", True, 1), ("bits", True, 2), ("normals", False, 4), ("bits", False, 4)):
        long, short = (agreement(finite_difference(h, common=common), small(name), 65_536) for h in (0.1, 0.05))
        error = (long.total_variance_se / long.total_variance) ** 2 + (
            short.total_variance_se / short.total_variance
        ) ** 2
        found = short.total_variance / long.total_variance
        assert abs(found / growth - 1) < 4 * error**0.5 + 0.02, (name, common)


@pytest.mark.parametrize("estimator", [finite_difference(0.01), evolution_strategies(4, 0.01)], ids=lambda e: e.name)
@pytest.mark.parametrize("name", ["subset", *(f"{name}_cost" for name in COSTS)])
def test_a_short_step_leaves_no_bias_to_be_seen(name: str, estimator: Estimator, agreement: Callable[..., Any]) -> None:
    found = agreement(estimator, PROBLEMS[name]())
    assert found.z < found.allowed


def test_an_infinite_support_has_no_target(small: Callable[[str], Problem]) -> None:
    assert target_of(finite_difference(), small("normals")) is None
    assert target_of(finite_difference(), small("counts")) is None


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"finite_difference\[step=0\]: the step must be positive"):
        finite_difference(0)
    with pytest.raises(ValueError, match=r"finite_difference\[kind=backward\]: kind is central or forward"):
        finite_difference(kind="backward")
    assert "finite_difference is for bernoulli" in (mismatch(finite_difference(), small("layers")) or "")
