"""The linear Gaussian bounds: against torch's KL divergence, product quadratures, and their limits in K."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor, distributions

from problems.base import Problem
from problems.gaussian_bound import density, slope
from problems.linear_gaussian import VARIANCE, linear_gaussian
from problems.truth import Truth, gauss_hermite, true_gradient


def truth_of(problem: Problem) -> Truth:
    truth = true_gradient(problem)
    assert truth is not None
    return truth


def leaves(problem: Problem) -> tuple[Tensor, Tensor]:
    assert problem.model is not None
    return problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()


def means(theta: Tensor, data: Tensor) -> Tensor:
    D = data.shape[1]
    return data @ theta[: D * D].reshape(D, D).T + theta[D * D :]


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_elbo_is_the_expected_likelihood_less_the_divergence(point: str) -> None:
    problem = linear_gaussian(dim=3, data=4).at(point)
    theta, mu = leaves(problem)
    assert problem.data is not None
    q = distributions.Normal(means(theta, problem.data), math.sqrt(VARIANCE))
    one = torch.ones_like(mu)
    likelihood = distributions.Normal(q.mean, 1.0).log_prob(problem.data) - 0.5 * VARIANCE
    L = (likelihood - distributions.kl_divergence(q, distributions.Normal(mu, one))).sum()
    truth = truth_of(problem)
    assert truth.tier == "closed form"
    torch.testing.assert_close(truth.gradient, torch.cat(torch.autograd.grad(L, (theta, mu))), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("dim", "K", "nodes"), [(1, 2, 60), (1, 3, 40), (2, 2, 22)])
@pytest.mark.parametrize("alpha", [0.0, 0.5, -0.5])
@pytest.mark.parametrize("point", ["init", "converged"])
def test_bound_is_that_of_a_product_quadrature(dim: int, K: int, nodes: int, alpha: float, point: str) -> None:
    """E 1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha) over a Gauss-Hermite grid of all draws, differentiated by autograd."""
    problem = linear_gaussian(dim, K, 2, "renyi" if alpha else "elbo", alpha).at(point)
    theta, mu = leaves(problem)
    assert problem.data is not None
    eps, weight = gauss_hermite(dim * K, nodes)
    m = means(theta, problem.data)
    z = m + math.sqrt(VARIANCE) * eps.reshape(-1, K, 1, dim)
    log_w = (
        distributions.Normal(mu, 1.0).log_prob(z)
        + distributions.Normal(z, 1.0).log_prob(problem.data)
        - distributions.Normal(m, math.sqrt(VARIANCE)).log_prob(z)
    ).sum(-1)
    L = (weight[:, None] * (((1 - alpha) * log_w).logsumexp(1) - math.log(K)) / (1 - alpha)).sum()
    truth = truth_of(problem)
    assert truth.tier == "quadrature"
    wanted = torch.cat(torch.autograd.grad(L, (theta, mu)))
    of_grid = 1e-6 if alpha >= 0 else 2e-4  # the smaller alpha, the less is w^(1 - alpha) a polynomial
    torch.testing.assert_close(truth.gradient, wanted, rtol=of_grid, atol=of_grid / 10)
    assert float((truth_of(linear_gaussian(dim=dim, data=2).at(point)).gradient - wanted).abs().max()) > 1e-3


def test_renyi_bound_of_order_near_one_is_the_elbo() -> None:
    """To first order in 1 - alpha."""
    elbo = truth_of(linear_gaussian(3, 1, 2).at("mid")).gradient
    gaps = [truth_of(linear_gaussian(3, 4, 2, "renyi", 1 - e).at("mid")).gradient - elbo for e in (0.02, 0.01)]
    assert float(gaps[1].norm() / elbo.norm()) < 0.02
    assert float(gaps[0].norm() / gaps[1].norm()) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_objectives_beside_the_bounds_are_those_of_a_quadrature(point: str) -> None:
    """log E_q w, E_posterior log q and sum_j width_j E_pi log w over a Gauss-Hermite grid, differentiated by autograd."""
    eps, weight = gauss_hermite(1, 80)
    for objective in ("log_marginal", "inclusive_kl", "thermodynamic"):
        problem = linear_gaussian(dim=1, data=2, objective=objective).at(point)
        assert problem.data is not None
        theta = problem.theta.clone().requires_grad_()
        mu = (problem.data.mean(0) if problem.model is None else problem.model).clone().requires_grad_()
        m = means(theta, problem.data)
        q = distributions.Normal(m, math.sqrt(VARIANCE))
        z = (m + math.sqrt(VARIANCE) * eps[:, None]).detach()
        log_w = distributions.Normal(mu, 1.0).log_prob(z) + distributions.Normal(z, 1.0).log_prob(problem.data)
        log_w = (log_w - q.log_prob(z)).squeeze(-1)
        log_q = weight.log()[:, None] + (q.log_prob(z) - q.log_prob(z).detach()).squeeze(-1)
        exact = problem.objective.exact
        assert exact is not None
        L = exact(log_q, log_q + log_w)
        if objective == "inclusive_kl":
            L = ((log_q + log_w).softmax(0).detach() * q.log_prob(z).squeeze(-1)).sum(0)
        wanted = torch.autograd.grad(L.sum(), (theta, mu), materialize_grads=True)
        truth = truth_of(problem).gradient
        torch.testing.assert_close(truth, torch.cat(wanted)[: len(truth)], rtol=1e-8, atol=1e-9)


def test_slope_in_the_limits_of_one_and_of_many_draws() -> None:
    """-1/6 for K = 1, where E log V = -E y / 6; -1/8 for many, where log E V = D/2 log 3/4 - lam / 8."""
    for D, lam in [(1, 0.5), (20, 0.1), (20, 200.0), (50, 3.0)]:
        assert slope(lam, D, 1, 1000) == pytest.approx(-1 / 6, rel=1e-10)
    assert slope(1.0, 1, 10_000, 1000) == pytest.approx(-1 / 8, rel=1e-4)
    between = [slope(5.0, 20, K, 800) for K in (1, 2, 8, 64)]
    assert between == sorted(between)


def test_density_is_that_of_scipy() -> None:
    s = torch.linspace(0.1, 12, 50, dtype=torch.float64).numpy()
    for D, lam in [(1, 2.0), (2, 0.01), (20, 30.0), (150, 1e-9)]:
        wanted = scipy.stats.ncx2(D, lam).pdf(s * s) * 2 * s
        torch.testing.assert_close(density(s, lam, D), wanted, rtol=1e-9, atol=1e-30)


def test_many_samples_reach_the_log_marginal() -> None:
    """d log p(x) / d mu = (x - mu) / 2, and nothing is left of the encoder's gradient."""
    problem = linear_gaussian(dim=2, samples=100_000, data=3).at("mid")
    assert problem.data is not None
    assert problem.model is not None
    g = truth_of(problem).gradient
    torch.testing.assert_close(g[-2:], (problem.data - problem.model).sum(0) / 2, rtol=1e-3, atol=1e-3)
    assert float(g[:-2].abs().max()) < 1e-2


def test_data_and_points_repeat() -> None:
    first, second = linear_gaussian(), linear_gaussian()
    assert first.data is not None
    assert second.data is not None
    assert torch.equal(first.data, second.data)
    assert torch.equal(first.points["converged"].theta, second.points["converged"].theta)
    x, _ = torch.randn(2, 5, 4, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = distributions.Normal(first.model, 1.0).log_prob(x) + distributions.Normal(x, 1.0).log_prob(first.data)
    torch.testing.assert_close(first.value(x), wanted.sum(-1))


@pytest.mark.parametrize("setting", ["dim", "samples", "data"])
def test_settings_it_cannot_take(setting: str) -> None:
    with pytest.raises(ValueError, match=rf"^linear_gaussian\[{setting}=0\]: {setting} must be at least 1$"):
        linear_gaussian(**{setting: 0})


def test_orders_that_are_not_known_exactly_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^linear_gaussian\[alpha=1.5\]: alpha must be below 1, where .*$"):
        linear_gaussian(objective="renyi", alpha=1.5)
