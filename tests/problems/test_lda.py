"""Latent Dirichlet allocation against Gauss-Jacobi rules over the simplex, finite differences, and estimators of several kinds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import betainc, betaincinv, digamma, roots_jacobi, softmax
from torch import Tensor

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, Noise
from estimators.noise import MEASURE, addressed
from estimators.pathwise import pathwise
from estimators.pathwise_analytic_entropy import pathwise_analytic_entropy
from estimators.rejection_reparameterisation import rejection_reparameterisation
from estimators.score_function import rloo
from problems.base import Problem
from problems.families.dirichlet import Dirichlet
from problems.lda import POSTERIORS, draws, lda, mean_log
from problems.truth import Truth, true_gradient

SMALL: dict[str, Any] = {"vocabulary": 5, "words": 6, "data": 3, "batch": 0}


def truth_of(problem: Problem) -> Truth:
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "quadrature"
    return truth


def both(problem: Problem) -> np.ndarray:
    """theta and then the model, flat."""
    assert problem.model is not None
    return torch.cat([problem.theta, problem.model]).numpy()


def test_f_is_the_log_joint_word_by_word() -> None:
    problem = lda(**SMALL, concentration=0.7)
    rng = np.random.default_rng(0)
    assert problem.model is not None
    assert problem.data is not None
    model = rng.standard_normal(15)
    x = rng.dirichlet([0.5, 1.0, 2.0], size=(2, 4, 3))
    found = problem.f(torch.from_numpy(x)[..., None, :], problem.data, torch.from_numpy(model))
    beta = softmax(model.reshape(3, 5), 1)
    for k, r, d in np.ndindex(2, 4, 3):
        counts = problem.data[d, :5].int().tolist()
        document = [v for v, count in enumerate(counts) for _ in range(count)]
        assert len(document) == 6
        wanted = scipy.stats.dirichlet([0.7] * 3).logpdf(x[k, r, d])
        wanted += sum(math.log(x[k, r, d] @ beta[:, v]) for v in document)
        assert float(found[k, r, d]) == pytest.approx(wanted, rel=1e-12)


def simplex_rule(alpha: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points `[S, K]` and weights `[S]` for Dir(alpha): x_k is a Beta(alpha_k, sum of those after it) share of what is left."""
    rules = []
    for k in range(len(alpha) - 1):
        y, w = roots_jacobi(nodes, alpha[k + 1 :].sum() - 1, alpha[k] - 1)
        rules.append(((1 + y) / 2, w / w.sum()))
    points, weights = [], []
    for share, weight in zip(
        itertools.product(*[rule[0] for rule in rules]), itertools.product(*[rule[1] for rule in rules]), strict=True
    ):
        left = np.cumprod(1 - np.array(share))
        points.append([*np.array(share) * [1, *left[:-1]], left[-1]])
        weights.append(np.prod(weight))
    return np.array(points), np.array(weights)


def bound_in_numpy(problem: Problem, at: np.ndarray, nodes: int) -> float:
    """The ELBO with the words by a Gauss-Jacobi rule over the simplex, what is left in scipy's closed forms."""
    K, V, a = (problem.settings[name] for name in ("topics", "vocabulary", "concentration"))
    theta, model = np.split(at, [problem.theta.numel()])
    beta = softmax(model.reshape(K, V), 1)
    assert problem.data is not None
    total = 0.0
    for d, row in enumerate(problem.data.numpy()):
        if problem.settings["posterior"] == "free":
            alpha = np.exp(theta.reshape(-1, K)[d])
        else:
            alpha = np.exp(theta[:K]) + row[:V] @ np.exp(theta[K:].reshape(V, K))
        x, weight = simplex_rule(alpha, nodes)
        log_x = digamma(alpha) - digamma(alpha.sum())
        prior = math.lgamma(K * a) - K * math.lgamma(a) + (a - 1) * log_x.sum()
        total += prior + scipy.stats.dirichlet(alpha).entropy() + weight @ np.log(x @ beta) @ row[:V]
    return float(total)


@pytest.mark.parametrize(
    ("topics", "posterior", "nodes"), [(2, "free", 40), (3, "amortised", 25), (3, "free", 25), (4, "amortised", 12)]
)
def test_truth_is_the_slope_of_a_gauss_jacobi_rule(
    topics: int, posterior: str, nodes: int, differences: Callable[..., Tensor]
) -> None:
    """By central differences along directions drawn at random."""
    problem = lda(**SMALL, topics=topics, posterior=posterior, concentration=0.8)
    directions = np.random.default_rng(topics).standard_normal((6, problem.dim))

    def L(steps: list[float]) -> float:
        return bound_in_numpy(problem, both(problem) + np.array(steps) @ directions, nodes)

    found = torch.from_numpy(directions) @ truth_of(problem).gradient
    torch.testing.assert_close(found, differences(L, [0.0] * 6, 1e-4), rtol=1e-5, atol=1e-5)


def test_mean_log_in_known_cases() -> None:
    """log c for equal entries; psi(alpha_1) - psi(s) where the others are nil; and for two topics the Beta integral."""
    alpha = torch.tensor([0.4, 2.5, 30.0], dtype=torch.float64)
    equal = mean_log(alpha, torch.full((3, 2), 0.3, dtype=torch.float64), 200)
    torch.testing.assert_close(equal, torch.full_like(equal, math.log(0.3)), rtol=1e-12, atol=1e-12)
    for least in (1e-13, 1e-150):
        nil = torch.tensor([[least], [1.0], [least]], dtype=torch.float64)
        assert float(mean_log(alpha, nil, 400)) == pytest.approx(digamma(2.5) - digamma(32.9), rel=1e-9)
    for a, b in [(0.3, 0.2), (5.0, 70.0)]:
        wanted = scipy.stats.beta(a, b).expect(lambda p: np.log(0.01 + 0.59 * p))
        two = mean_log(
            torch.tensor([a, b], dtype=torch.float64), torch.tensor([[0.6], [0.01]], dtype=torch.float64), 400
        )
        assert float(two) == pytest.approx(wanted, rel=1e-7)


def test_truth_holds_for_documents_of_one_topic() -> None:
    """The integrand of mean_log reaches up to t = e^900 then; words by a Gauss-Jacobi rule."""
    problem = lda(topics=2, vocabulary=3, words=1, data=1, batch=0, posterior="free")
    problem = replace(problem, theta=torch.full_like(problem.theta, math.log(0.02)))
    truth_of(problem)
    assert problem.model is not None
    beta = problem.model.reshape(2, 3).softmax(-1)
    x, weight = simplex_rule(problem.theta.exp().numpy(), 60)
    wanted = torch.from_numpy(weight @ np.log(x @ beta.numpy()))
    torch.testing.assert_close(mean_log(problem.theta.exp(), beta, 200), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_pathwise_is_plain_autograd_through_posterior_and_topics(posterior: str) -> None:
    """On the same draws; what moves the draws themselves is scipy's inverse of the Beta distribution, by central differences."""
    problem = lda(**SMALL, posterior=posterior)
    trial = prepare(pathwise(), problem, 3)
    u = addressed(Noise("uniform", (), (1, 3)), trial.key, MEASURE, 0, range(4), range(3), torch.float64)
    assert problem.model is not None
    wanted = []
    for noise in u:
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        alpha = problem.site_parameters(theta).exp()
        x = Dirichlet(alpha.detach().log()).sample(noise).requires_grad_()
        fixed = torch.distributions.Dirichlet(alpha.detach()).log_prob(x).sum()
        slope, d_model = torch.autograd.grad(problem.value(x, model).sum() - fixed, (x, model))
        moved = alpha_slope(x.detach().numpy(), alpha.detach().numpy(), slope.numpy())
        d_theta = torch.autograd.grad(alpha, theta, torch.from_numpy(moved))[0]
        wanted.append(torch.cat([d_theta, d_model]))
    found, P = gradients(trial, range(4)), problem.theta.numel()
    torch.testing.assert_close(found[:, :P], torch.stack(wanted)[:, :P], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, P:], torch.stack(wanted)[:, P:], rtol=1e-11, atol=1e-11)


def alpha_slope(x: np.ndarray, alpha: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """sum_i slope_i dx_i/dalpha_j: x_j moves as its own uniform does, and takes the same share off the others."""
    rest, step = alpha.sum(-1, keepdims=True) - alpha, 1e-5 * alpha
    u = betainc(alpha, rest, x)
    own = (betaincinv(alpha + step, rest, u) - betaincinv(alpha - step, rest, u)) / (2 * step)
    others = (x * slope).sum(-1, keepdims=True) - x * slope
    return np.asarray(own * (slope - others / (1 - x)))


def largest_z(problem: Problem, estimator: Estimator, truth: Tensor, n: int = 4096) -> tuple[float, float]:
    """Largest |mean - truth| in standard errors, and what it passes with probability 1e-5 where there is no bias."""
    trial = prepare(estimator, problem, 11)
    g = torch.cat([gradients(trial, range(start, start + 512)) for start in range(0, n, 512)])
    se = (g.std(0) / n**0.5).clamp(min=1e-12 * float(truth.norm()))
    return float(((g.mean(0) - truth).abs() / se).max()), NormalDist().inv_cdf(1 - 0.5e-5 / problem.dim)


@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({}, pathwise()),
        ({}, rloo(4)),
        ({"batch": 2}, pathwise_analytic_entropy()),
        ({"posterior": "free", "topics": 4}, pathwise()),
        ({"posterior": "free", "batch": 1}, rloo(4)),
        ({"posterior": "free"}, rejection_reparameterisation()),
    ],
)
def test_estimators_agree_with_the_quadrature(settings: dict[str, Any], estimator: Estimator) -> None:
    problem = lda(**SMALL | settings)
    truth = truth_of(problem).gradient
    z, allowed = largest_z(problem, estimator, truth)
    assert z < allowed
    assert largest_z(problem, estimator, 1.2 * truth)[0] > allowed


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_estimators_agree_at_the_stored_points(posterior: str, point: str) -> None:
    problem = lda(posterior=posterior).at(point)
    z, allowed = largest_z(problem, pathwise(), truth_of(problem).gradient, 1024)
    assert z < allowed


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_training_finds_the_topics_that_the_corpus_was_drawn_from(posterior: str) -> None:
    """Up to their order; and no concentration comes near those at which Dirichlet variables underflow."""
    problem = lda(posterior=posterior).at("converged")
    _, theta, beta = draws(3, 30, 40, 40, 0.5)
    alpha = problem.site_parameters(problem.theta).squeeze(-2).exp()
    assert float(alpha.min()) > 0.1
    assert problem.model is not None
    found = problem.model.reshape(3, 30).softmax(-1)
    order = [int((found - row).abs().sum(-1).argmin()) for row in beta]
    assert sorted(order) == [0, 1, 2]
    mixtures = (alpha / alpha.sum(-1, keepdim=True))[:, order]
    for k in range(3):
        assert float(torch.corrcoef(torch.stack([mixtures[:, k], theta[:, k]]))[0, 1]) > 0.9
        assert float(torch.corrcoef(torch.stack([found[order[k]], beta[k]]))[0, 1]) > 0.9


def test_corpus_repeats_and_every_word_occurs() -> None:
    rows, _, _ = draws(3, 30, 40, 40, 0.5)
    assert torch.equal(rows, draws(3, 30, 40, 40, 0.5)[0])
    assert rows[:, :30].sum(1).eq(40).all()
    assert rows[:, :30].sum(0).min() > 0
    assert torch.equal(rows[:, 30], torch.arange(40.0, dtype=torch.float64))


def test_extreme_topics_leave_f_finite() -> None:
    problem = lda(**SMALL)
    assert problem.model is not None
    far = torch.where(problem.model > 0, 30.0, -30.0)
    for kind in (torch.float32, torch.float64):
        trial = prepare(pathwise(), replace(problem, model=far), 0, dtype=str(kind).removeprefix("torch."))
        assert gradients(trial, range(256)).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"topics": 1}, r"lda\[topics=1\]: topics must be at least 2"),
        ({"words": 0}, r"lda\[words=0\]: words must be at least 1"),
        ({"concentration": 0.0}, r"lda\[concentration=0.0\]: concentration must be positive and finite"),
        ({"posterior": "sampled"}, r"lda\[posterior=sampled\]: posterior is amortised or free"),
        ({"data": 5}, r"lda\[batch=10\]: batch is 0 \(all\) or a number of rows up to data=5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        lda(**settings)
