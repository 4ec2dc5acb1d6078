"""The Gaussian autoencoder against numpy, plain autograd through both networks, another quadrature, and estimators of each kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import expit, logsumexp
from torch import Tensor, distributions

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, Noise
from estimators.importance_weighted import dreg, iwae_pathwise, iwae_score
from estimators.measure_valued import measure_valued_normal
from estimators.noise import MEASURE, addressed
from estimators.pathwise import pathwise, pathwise_total
from estimators.score_function import rloo
from problems.base import Problem
from problems.gaussian_vae import gaussian_vae
from problems.reference import fingerprint, read_references
from problems.truth import true_gradient

SMALL: dict[str, Any] = {"latent": 1, "hidden": 2, "data": 2, "batch": 0, "side": 4}


def perceptron(flat: Any, h: Any, hidden: int, tanh: Callable[[Any], Any]) -> Any:
    """W' tanh(W h + b) + b' with the weights in the order W, b, W', b'; for arrays of numpy and of torch."""
    inputs = h.shape[-1]
    outputs = (len(flat) - hidden * (inputs + 1)) // (hidden + 1)
    cuts = np.cumsum([hidden * inputs, hidden, outputs * hidden, outputs]).tolist()
    assert cuts[-1] == len(flat)
    W, b, V, c = flat[: cuts[0]], flat[cuts[0] : cuts[1]], flat[cuts[1] : cuts[2]], flat[cuts[2] :]
    return tanh(h @ W.reshape(hidden, inputs).T + b) @ V.reshape(outputs, hidden).T + c


def log_joint(z: np.ndarray, problem: Problem, model: np.ndarray) -> np.ndarray:
    """log p(x, z), z `[..., N, D]`."""
    assert problem.data is not None
    p = expit(perceptron(model, z, problem.settings["hidden"], np.tanh))
    data = problem.data.numpy()
    return np.log(np.where(data == 1, p, 1 - p)).sum(-1) + scipy.stats.norm.logpdf(z).sum(-1)


def numbers(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    assert problem.model is not None
    return problem.theta.numpy(), problem.model.numpy()


def test_f_is_the_log_joint_or_the_likelihood() -> None:
    sampled, closed = (gaussian_vae(latent=3, hidden=5, data=7, batch=0, kl=kl) for kl in ("sampled", "closed_form"))
    z = np.random.default_rng(0).standard_normal((2, 4, 7, 3))
    wanted = log_joint(z, sampled, numbers(sampled)[1])
    np.testing.assert_allclose(sampled.value(torch.from_numpy(z)).numpy(), wanted, rtol=1e-10)
    prior = scipy.stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(closed.value(torch.from_numpy(z)).numpy(), wanted - prior, rtol=1e-10)


def test_the_closed_form_is_the_divergence() -> None:
    problem = gaussian_vae(latent=3, data=7, batch=0, kl="closed_form")
    assert problem.closed_form is not None
    m, log_s = problem.site_parameters(problem.theta).unbind(-2)
    q, p = distributions.Normal(m, log_s.exp()), distributions.Normal(torch.zeros_like(m), 1.0)
    found = problem.closed_form(problem.theta, problem.data)
    torch.testing.assert_close(found, -distributions.kl_divergence(q, p).sum(-1), rtol=1e-12, atol=1e-12)


def bound(problem: Problem, theta: np.ndarray, model: np.ndarray) -> float:
    """The bound of one latent variable and one or two draws by a Gauss-Legendre rule, panel by panel, in numpy."""
    assert problem.data is not None
    K, hidden = problem.objective.samples, problem.settings["hidden"]
    x, w = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(-8, 8, 41)
    eps = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).reshape(-1)
    weight = (np.diff(edges)[:, None] * w / 2).reshape(-1) * scipy.stats.norm.pdf(eps)
    m, log_s = perceptron(theta, problem.data.numpy(), hidden, np.tanh).T
    z = m + np.exp(log_s) * eps[:, None]
    log_w = log_joint(z[..., None], problem, model) - scipy.stats.norm.logpdf(z, m, np.exp(log_s))
    if K == 1:
        return float((weight @ log_w).sum())
    pairs = logsumexp(np.stack(np.broadcast_arrays(log_w[:, None], log_w[None])), axis=0) - math.log(2)
    return float(np.einsum("i,j,ijn->", weight, weight, pairs))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_quadrature_is_the_slope_of_another(samples: int, scale: float) -> None:
    """Along eight directions, by central differences; at the start, and at weights twice as large."""
    problem = gaussian_vae(**SMALL, samples=samples)
    assert problem.model is not None
    problem = replace(problem, theta=scale * problem.theta, model=scale * problem.model)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "quadrature"
    at = np.concatenate(numbers(problem))
    P, rng, h = problem.theta.numel(), np.random.default_rng(1), 1e-5
    for direction in rng.standard_normal((8, len(at))):
        up, down = (bound(problem, *np.split(at + sign * h * direction, [P])) for sign in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(float(truth.gradient @ torch.from_numpy(direction)), rel=1e-6)


def test_with_a_closed_form_the_truth_is_the_same() -> None:
    first, second = (true_gradient(gaussian_vae(**SMALL, kl=kl)) for kl in ("sampled", "closed_form"))
    assert first is not None
    assert second is not None
    assert second.tier == "quadrature"
    assert torch.equal(first.gradient, second.gradient)
    unknown = gaussian_vae(latent=3, hidden=2, data=2, batch=0, side=4, kl="closed_form")
    assert true_gradient(unknown) is None


@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({}, pathwise()),
        ({}, pathwise_total()),
        ({}, rloo(4)),
        ({}, measure_valued_normal()),
        ({"kl": "closed_form"}, pathwise()),
        ({"kl": "closed_form"}, rloo(4)),
        ({"samples": 2}, dreg()),
        ({"samples": 2}, iwae_score()),
        ({"data": 3, "batch": 2, "kl": "closed_form"}, pathwise()),
        ({"latent": 2}, pathwise()),
    ],
)
def test_estimators_reach_the_quadrature(settings: dict[str, Any], estimator: Estimator) -> None:
    """Beyond 5.5 standard errors in any of 150 coordinates: a chance of 6e-6."""
    problem = gaussian_vae(**{**SMALL, **settings})
    truth = true_gradient(problem)
    assert truth is not None
    g = gradients(prepare(estimator, problem), range(4096))
    se = g.std(0) / len(g) ** 0.5
    assert float(((g.mean(0) - truth.gradient) / se.clamp(min=1e-12)).abs().max()) < 5.5
    assert float(((g.mean(0) - 1.2 * truth.gradient) / se.clamp(min=1e-12)).abs().max()) > 5.5


@pytest.mark.parametrize(
    ("settings", "estimator", "held"),
    [
        ({}, pathwise(), True),
        ({}, pathwise_total(), False),
        ({"kl": "closed_form"}, pathwise(), False),
        ({"samples": 3}, iwae_pathwise(), False),
    ],
)
def test_pathwise_gradients_are_plain_autograd_of_both_networks(
    settings: dict[str, Any], estimator: Estimator, held: bool
) -> None:
    """Encoder's and decoder's, on the same noise; `held`: the path form has q's parameters held fixed in log q."""
    problem = gaussian_vae(latent=3, hidden=4, data=6, batch=0, **settings)
    samples = problem.objective.samples
    trial, R = prepare(estimator, problem, 3), 8
    eps = addressed(Noise("normal", (samples,), (3,)), trial.key, MEASURE, 0, range(R), range(6), torch.float64)
    found = gradients(trial, range(R))
    assert problem.data is not None
    assert problem.model is not None
    for r in range(R):
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        m, log_s = perceptron(theta, problem.data, 4, torch.tanh).unflatten(-1, (2, 3)).unbind(-2)
        z = m + log_s.exp() * eps[:, r]
        logits = perceptron(model, z, 4, torch.tanh)
        log_p = distributions.Bernoulli(logits=logits).log_prob(problem.data).sum(-1)
        q, p = distributions.Normal(m, log_s.exp()), distributions.Normal(torch.zeros_like(m), 1.0)
        if problem.closed_form is not None:
            L = log_p[0] - distributions.kl_divergence(q, p).sum(-1)
        else:
            fixed = distributions.Normal(m.detach(), log_s.exp().detach())
            log_w = log_p + (p.log_prob(z) - (fixed if held else q).log_prob(z)).sum(-1)
            L = log_w.logsumexp(0) - math.log(samples)
        wanted = torch.cat(torch.autograd.grad(L.sum(), (theta, model)))
        torch.testing.assert_close(found[r], wanted, rtol=1e-9, atol=1e-9)


def test_the_path_derivative_vanishes_where_q_is_exact_and_the_total_one_does_not() -> None:
    """A decoder that reads nothing of z has the prior for posterior; an encoder of zeros is that."""
    problem = gaussian_vae(latent=3, hidden=4, data=4, batch=0)
    assert problem.model is not None
    model = problem.model.clone()
    model[:12] = 0
    problem = replace(problem, theta=torch.zeros_like(problem.theta), model=model)
    P = problem.theta.numel()
    path, total = (gradients(prepare(e, problem), range(64))[:, :P] for e in (pathwise(), pathwise_total()))
    assert float(path.abs().max()) < 1e-12
    assert float(total.abs().max()) > 0.1


def agreement(problem: Problem, estimator: Estimator, truth: Tensor, n: int, se: float) -> tuple[float, float]:
    """z along the truth, and the squared distance from it in units of what its noise and the truth's `se` lead to expect."""
    trial = prepare(estimator, replace(problem, batch=0), 11)
    g = torch.cat([gradients(trial, range(start, start + 64)) for start in range(0, n, 64)])
    along = g @ (truth / truth.norm())
    z = float((along.mean() - truth.norm()) / torch.hypot(along.std() / n**0.5, torch.tensor(se).double()))
    return z, float((g.mean(0) - truth).square().sum() / (g.var(0).sum() / n + se**2))


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
@pytest.mark.parametrize(
    ("settings", "estimator"),
    [({}, pathwise_total()), ({"kl": "closed_form"}, pathwise()), ({"samples": 5}, iwae_pathwise())],
)
def test_another_estimator_agrees_with_the_stored_references(
    settings: dict[str, Any], estimator: Estimator, point: str
) -> None:
    problem = gaussian_vae(**settings).at(point)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "reference"
    if not settings:
        assert not read_references("gaussian_vae")[fingerprint(problem)]["estimator"].startswith(estimator.name)
    z, ratio = agreement(problem, estimator, truth.gradient, 256, float(truth.se.norm()))
    assert abs(z) < 4.5
    assert 0.4 < ratio < 2


def test_bounds_without_points_of_their_own_are_taken_at_those_of_the_elbo() -> None:
    elbo, bound, closed = gaussian_vae(), gaussian_vae(samples=5), gaussian_vae(kl="closed_form")
    assert list(elbo.points) == list(bound.points) == list(closed.points) == ["init", "mid", "converged"]
    assert torch.equal(elbo.at("mid").theta, bound.at("mid").theta)
    assert torch.equal(elbo.at("mid").theta, closed.at("mid").theta)
    assert not torch.equal(elbo.at("mid").theta, elbo.at("init").theta)


@pytest.mark.parametrize("kl", ["sampled", "closed_form"])
def test_float32_and_weights_a_hundred_times_as_large(kl: str) -> None:
    problem = gaussian_vae(**SMALL, kl=kl)
    assert problem.model is not None
    small, large = prepare(pathwise(), problem, dtype="float32"), prepare(pathwise(), problem)
    g, h = gradients(small, range(64)), gradients(large, range(64))
    assert g.dtype == torch.float32
    torch.testing.assert_close(g.double(), h, rtol=1e-3, atol=1e-3 * float(h.abs().max()))
    far = replace(problem, model=100 * problem.model)
    for dtype in ("float32", "float64"):
        assert gradients(prepare(pathwise(), far, dtype=dtype), range(64)).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"latent": 0}, r"gaussian_vae\[latent=0\]: latent must be at least 1"),
        ({"hidden": 0}, r"gaussian_vae\[hidden=0\]: hidden must be at least 1"),
        ({"samples": 0}, r"gaussian_vae\[samples=0\]: samples must be at least 1"),
        ({"data": 2000}, r"gaussian_vae\[data=2000\]: data is the number of digits, 1 to 1797"),
        ({"data": 10, "batch": 11}, r"gaussian_vae\[batch=11\]: batch is 0 \(all\) or a number of rows up to data=10"),
        ({"kl": "exact"}, r"gaussian_vae\[kl=exact\]: kl is sampled or closed_form"),
        ({"side": 5}, r"gaussian_vae\[side=5\]: side is 4 or 8"),
        (
            {"kl": "closed_form", "samples": 5},
            r"gaussian_vae\[kl=closed_form,samples=5\]: a bound of several draws has .*",
        ),
    ],
)
def test_settings_it_cannot_take(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^{sentence}$"):
        gaussian_vae(**settings)
