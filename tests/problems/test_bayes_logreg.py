"""Bayesian logistic regression against plain numpy, plain autograd, and integrals by another rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import log_expit

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators.base import Estimator, Noise
from estimators.measure_valued import measure_valued_normal
from estimators.noise import MEASURE, addressed, rows_without_replacement
from estimators.pathwise import pathwise, pathwise_total
from estimators.score_function import rloo
from problems.bayes_logreg import bayes_logreg, breast_cancer, elbo_gradient
from problems.truth import true_gradient


def test_the_data_are_standardised_and_have_a_bias() -> None:
    features, labels = breast_cancer()
    assert features.shape == (569, 31)
    assert float(features[:, :30].mean(0).abs().max()) < 1e-12
    torch.testing.assert_close(features[:, :30].square().mean(0), torch.ones(30, dtype=torch.float64))
    assert (features[:, 30] == 1).all()
    assert int(labels.sum()) == 357


def test_f_is_the_log_joint() -> None:
    problem = bayes_logreg(data=50)
    features, labels = (t[:50].numpy() for t in breast_cancer())
    w = np.random.default_rng(0).standard_normal((3, 2, 31))
    likelihood = log_expit(np.where(labels == 1, 1, -1) * (w @ features.T)).sum(-1)
    prior = np.log(np.exp(-0.5 * w**2) / math.sqrt(2 * math.pi)).sum(-1)
    np.testing.assert_allclose(problem.f(torch.from_numpy(w)).numpy(), likelihood + prior, rtol=1e-9)
    single = problem.f(torch.from_numpy(w).float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), likelihood + prior, rtol=1e-4)


def elbo(theta: np.ndarray, rows: int) -> float:
    """The ELBO by adaptive integrals over each logit and the closed form of the rest."""
    features, labels = (t[:rows].numpy() for t in breast_cancer())
    mu, sigma = theta[0], np.exp(theta[1])

    def integrand(z: float, m: float, s: float) -> float:
        return float(np.logaddexp(0, m + s * z)) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    total = float((-0.5 * (mu**2 + sigma**2) + theta[1] + 0.5).sum())
    for x, y in zip(features, labels, strict=True):
        m, s = x @ mu, math.sqrt(x**2 @ sigma**2)
        total += y * m - quad(integrand, -12, 12, args=(m, s), epsabs=1e-12, epsrel=1e-12, limit=200)[0]
    return total


def test_the_exact_gradient_is_the_slope_of_the_elbo() -> None:
    rows = 6
    problem = bayes_logreg(data=rows)
    theta = np.random.default_rng(1).standard_normal((2, 31)) * 0.5
    features, labels = breast_cancer()
    found = elbo_gradient(torch.from_numpy(theta), features[:rows], labels[:rows], 500).numpy()
    for place in ((0, 0), (0, 17), (0, 30), (1, 0), (1, 17), (1, 30)):
        step = np.zeros_like(theta)
        step[place] = 1e-4
        slope = (elbo(theta + step, rows) - elbo(theta - step, rows)) / 2e-4
        assert found[place] == pytest.approx(slope, rel=1e-6, abs=1e-7)
    assert problem.exact is not None


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_estimators_of_two_kinds_agree_with_the_exact_gradient(point: str) -> None:
    """Within 4.5 standard errors along the gradient, and as far from it as their noise says."""
    problem = bayes_logreg().at(point)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "quadrature"
    for estimator, n in ((pathwise(), 8192), (rloo(4), 4096)):
        g = gradients(prepare(estimator, problem, 7), range(n))
        axis = truth.gradient / truth.gradient.norm()
        along = g @ axis
        assert abs(float(along.mean() - truth.gradient.norm())) < 4.5 * float(along.std()) / n**0.5
        ratio = float((g.mean(0) - truth.gradient).square().sum() / (g.var(0).sum() / n))
        assert 0.1 < ratio < 4


def test_the_patients_shares_add_up_to_the_log_joint() -> None:
    whole, shared = bayes_logreg(data=50), bayes_logreg(data=50, batch=4)
    w = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 2, 1, 31)))
    assert shared.data is not None
    found = shared.value(w.expand(3, 2, 50, 31)).sum(-1)
    torch.testing.assert_close(found, whole.value(w[..., 0, :]), rtol=1e-12, atol=1e-12)
    assert shared.value(w.float(), None, shared.data.float()).dtype == torch.float32


def test_the_batch_stands_at_the_points_of_the_whole() -> None:
    whole, shared = bayes_logreg(), bayes_logreg(batch=32)
    assert whole.point_names() == shared.point_names() == ["init", "mid", "converged"]
    for name, point in whole.points.items():
        assert torch.equal(point.theta, shared.points[name].theta)
    truths = [true_gradient(p.at("mid")) for p in (whole, shared)]
    assert truths[0] is not None
    assert truths[1] is not None
    assert torch.equal(truths[0].gradient, truths[1].gradient)
    assert whole.lanes is not None
    assert shared.lanes is None


@pytest.mark.parametrize("estimator", [pathwise(), pathwise_total(), rloo(4), measure_valued_normal()])
def test_estimators_agree_on_minibatches(estimator: Estimator) -> None:
    """A false alarm in 1e-5 of such tests."""
    assert failures(check(estimator, [bayes_logreg(data=20, batch=5)], seed=5, replicates=4096, level=1e-5)) == []


def test_the_gradient_of_a_minibatch_is_plain_autograd() -> None:
    """One draw of w for the rows of a replicate, whose likelihood is scaled by N / B and whose prior and log q are not."""
    problem = bayes_logreg(data=40, batch=8)
    assert problem.data is not None
    trial = prepare(pathwise_total(), problem, 3)
    eps = addressed(Noise("normal", (1,), (31,)), trial.key, MEASURE, 0, range(5), None, torch.float64)[0]
    rows = rows_without_replacement(trial.key, MEASURE, range(5), 40, 8)
    for r in range(5):
        theta = problem.theta.clone().requires_grad_()
        w = theta[0] + theta[1].exp() * eps[r]
        q, prior = torch.distributions.Normal(theta[0], theta[1].exp()), torch.distributions.Normal(0.0, 1.0)
        x, y = problem.data[rows[r]][:, :-1], problem.data[rows[r]][:, -1]
        likelihood = torch.distributions.Bernoulli(logits=x @ w).log_prob(y).sum()
        (5 * likelihood + prior.log_prob(w).sum() - q.log_prob(w).sum()).backward()
        assert theta.grad is not None
        torch.testing.assert_close(gradients(trial, range(5))[r], theta.grad.reshape(-1), rtol=1e-10, atol=1e-10)


def test_pathwise_is_plain_autograd() -> None:
    problem = bayes_logreg(data=40)
    trial = prepare(pathwise_total(), problem, 3)
    eps = addressed(Noise("normal", (1,), (31,)), trial.key, MEASURE, 0, range(5), None, torch.float64)[0]
    for r in range(5):
        theta = problem.theta.clone().requires_grad_()
        w = theta[0] + theta[1].exp() * eps[r]
        q = torch.distributions.Normal(theta[0], theta[1].exp())
        (problem.f(w) - q.log_prob(w).sum()).backward()
        assert theta.grad is not None
        torch.testing.assert_close(gradients(trial, range(5))[r], theta.grad.reshape(-1), rtol=1e-10, atol=1e-10)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bayes_logreg\[data=570\]: data is the number of patients, 1 to 569"):
        bayes_logreg(data=570)
    with pytest.raises(ValueError, match=r"bayes_logreg\[batch=21\]: batch is 0 \(all\) or .* up to data=20"):
        bayes_logreg(data=20, batch=21)
