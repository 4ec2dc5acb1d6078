"""The categorical autoencoder against numpy, sums over states in another order, plain autograd, and estimators of each kind."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, logsumexp
from torch import Tensor, distributions
from torch.nn.functional import one_hot

from bench.evaluate import gradients, prepare
from bench.reference import enumerated as stored_by_enumeration
from estimators.base import Estimator, Noise
from estimators.disarm_categorical import disarm_categorical
from estimators.gumbel_softmax import gumbel_softmax
from estimators.importance_weighted import iwae_score, vimco
from estimators.indecater import indecater
from estimators.noise import MEASURE, addressed
from estimators.score_function import reinforce, rloo
from estimators.straight_through import straight_through
from problems.base import Problem
from problems.categorical_vae import categorical_vae
from problems.reference import fingerprint, read_references
from problems.truth import true_gradient

SMALL: dict[str, Any] = {"variables": 2, "categories": 3, "hidden": 2, "data": 2, "batch": 0, "side": 4}


def perceptron(flat: np.ndarray, h: np.ndarray, hidden: int) -> np.ndarray:
    """W' tanh(W h + b) + b' with the weights in the order W, b, W', b'."""
    inputs = h.shape[-1]
    outputs = (len(flat) - hidden * (inputs + 1)) // (hidden + 1)
    W, b, V, c = np.split(flat, np.cumsum([hidden * inputs, hidden, outputs * hidden]))
    return np.tanh(h @ W.reshape(hidden, inputs).T + b) @ V.reshape(outputs, hidden).T + c


def log_likelihood(z: np.ndarray, problem: Problem, model: np.ndarray) -> np.ndarray:
    """log p(x | z), z `[..., N, D C]` one-hot vectors side by side."""
    assert problem.data is not None
    p = expit(perceptron(model, z, problem.settings["hidden"]))
    data = problem.data.numpy()
    return np.log(np.where(data == 1, p, 1 - p)).sum(-1)


def test_f_is_the_log_joint_or_the_likelihood() -> None:
    sampled, closed = (
        categorical_vae(variables=3, categories=4, data=7, batch=0, kl=kl) for kl in ("sampled", "closed_form")
    )
    index = np.random.default_rng(0).integers(4, size=(2, 5, 7, 3))
    z = np.eye(4)[index]
    assert sampled.model is not None
    wanted = log_likelihood(z.reshape(2, 5, 7, 12), sampled, sampled.model.numpy())
    np.testing.assert_allclose(closed.value(torch.from_numpy(z)).numpy(), wanted, rtol=1e-10)
    np.testing.assert_allclose(sampled.value(torch.from_numpy(z)).numpy(), wanted - 3 * np.log(4), rtol=1e-10)


def test_the_closed_form_is_the_divergence() -> None:
    problem = categorical_vae(data=7, batch=0, kl="closed_form")
    assert problem.closed_form is not None
    logits = problem.site_parameters(problem.theta)
    q, p = distributions.Categorical(logits=logits), distributions.Categorical(logits=torch.zeros_like(logits))
    found = problem.closed_form(problem.theta, problem.data)
    torch.testing.assert_close(found, -distributions.kl_divergence(q, p).sum(-1), rtol=1e-12, atol=1e-12)


def bound(problem: Problem, theta: np.ndarray, model: np.ndarray) -> float:
    """The bound of one or two draws, state by state in numpy."""
    assert problem.data is not None
    D, C, hidden = (problem.settings[name] for name in ("variables", "categories", "hidden"))
    log_q_of = log_softmax(perceptron(theta, problem.data.numpy(), hidden).reshape(-1, D, C), axis=-1)
    log_q, log_w = [], []
    for state in itertools.product(range(C), repeat=D):
        z = np.eye(C)[list(state)].reshape(-1)
        log_q.append(sum(log_q_of[:, d, c] for d, c in enumerate(state)))
        log_w.append(log_likelihood(np.tile(z, (problem.rows, 1)), problem, model) - D * np.log(C) - log_q[-1])
    if problem.objective.samples == 1:
        return float(sum((np.exp(q) * w).sum() for q, w in zip(log_q, log_w, strict=True)))
    pairs = itertools.product(zip(log_q, log_w, strict=True), repeat=2)
    return float(sum((np.exp(a + b) * (logsumexp([v, w], axis=0) - np.log(2))).sum() for (a, v), (b, w) in pairs))


@pytest.mark.parametrize(
    "settings", [{}, {"samples": 2}, {"kl": "closed_form"}, {"kl": "closed_form", "data": 5, "batch": 2}]
)
def test_the_truth_is_the_slope_of_a_sum_over_states(settings: dict[str, Any]) -> None:
    """Along eight directions, by central differences; the closed form has the same."""
    problem = categorical_vae(**{**SMALL, **settings})
    assert problem.model is not None
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    at = torch.cat([problem.theta, problem.model]).numpy()
    P, h = problem.theta.numel(), 1e-5
    for direction in np.random.default_rng(1).standard_normal((8, len(at))):
        up, down = (bound(problem, *np.split(at + sign * h * direction, [P])) for sign in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(float(truth.gradient @ torch.from_numpy(direction)), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({}, reinforce()),
        ({}, rloo(4)),
        ({}, indecater()),
        ({"kl": "closed_form"}, rloo(4)),
        ({"kl": "closed_form", "data": 3, "batch": 2}, indecater()),
        ({"samples": 2}, vimco()),
        ({"samples": 2}, iwae_score()),
    ],
)
def test_estimators_reach_the_truth(settings: dict[str, Any], estimator: Estimator) -> None:
    """Beyond 5.5 standard errors in any of 114 coordinates: a chance of 4e-6."""
    problem = categorical_vae(**{**SMALL, **settings})
    truth = true_gradient(problem)
    assert truth is not None
    g = gradients(prepare(estimator, problem), range(8192))
    se = g.std(0) / len(g) ** 0.5
    assert float(((g.mean(0) - truth.gradient) / se.clamp(min=1e-12)).abs().max()) < 5.5
    assert float(((g.mean(0) - 1.2 * truth.gradient) / se.clamp(min=1e-12)).abs().max()) > 5.5


def test_a_small_bias_of_the_relaxed_estimators_is_seen() -> None:
    problem = categorical_vae(**SMALL)
    truth = true_gradient(problem)
    assert truth is not None
    for estimator in (gumbel_softmax(temperature=1.0), straight_through()):
        g = gradients(prepare(estimator, problem), range(8192))[:, : problem.theta.numel()]
        gap = g.mean(0) - truth.gradient[: problem.theta.numel()]
        assert float((gap / (g.std(0) / len(g) ** 0.5).clamp(min=1e-12)).abs().max()) > 5.5
        assert float(gap.norm() / truth.gradient.norm()) < 0.5


@pytest.mark.parametrize("kl", ["sampled", "closed_form"])
def test_rloo_is_plain_autograd_of_its_surrogate_in_both_networks(kl: str) -> None:
    problem = categorical_vae(variables=3, categories=4, hidden=5, data=6, batch=0, kl=kl)
    trial, R = prepare(rloo(2), problem, 3), 8
    gumbel = addressed(Noise("gumbel", (2,), (3, 4)), trial.key, MEASURE, 0, range(R), range(6), torch.float64)
    found = gradients(trial, range(R))
    assert problem.data is not None
    assert problem.model is not None
    for r in range(R):
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        logits = plain(theta, problem.data, 5).unflatten(-1, (3, 4))
        z = one_hot((logits + gumbel[:, r]).argmax(-1), 4).double()
        q, p = distributions.Categorical(logits=logits), distributions.Categorical(logits=torch.zeros_like(logits))
        log_q = q.log_prob(z.argmax(-1)).sum(-1)
        decoded = plain(model, z.flatten(-2), 5)
        f = distributions.Bernoulli(logits=decoded).log_prob(problem.data).sum(-1)
        f = f if kl == "closed_form" else f + p.log_prob(z.argmax(-1)).sum(-1)
        fx = f.detach() if kl == "closed_form" else (f - log_q).detach()
        surrogate = ((fx - fx.mean(0)) * log_q).sum() + f.mean(0).sum()
        if kl == "closed_form":
            surrogate = surrogate - distributions.kl_divergence(q, p).sum()
        wanted = torch.cat(torch.autograd.grad(surrogate, (theta, model)))
        torch.testing.assert_close(found[r], wanted, rtol=1e-9, atol=1e-9)


def plain(flat: Tensor, h: Tensor, hidden: int) -> Tensor:
    """The perceptron in torch, its weights cut by hand."""
    inputs = h.shape[-1]
    outputs = (len(flat) - hidden * (inputs + 1)) // (hidden + 1)
    W, b, V, c = flat.split([hidden * inputs, hidden, outputs * hidden, outputs])
    return torch.tanh(h @ W.reshape(hidden, inputs).T + b) @ V.reshape(outputs, hidden).T + c


def agreement(problem: Problem, estimator: Estimator, truth: Tensor, n: int, se: float) -> tuple[float, float]:
    """z along the truth, and the squared distance from it in units of what its noise and the truth's `se` lead to expect."""
    trial = prepare(estimator, replace(problem, batch=0), 11)
    g = torch.cat([gradients(trial, range(start, start + 64)) for start in range(0, n, 64)])
    along = g @ (truth / truth.norm())
    z = float((along.mean() - truth.norm()) / torch.hypot(along.std() / n**0.5, torch.tensor(se).double()))
    return z, float((g.mean(0) - truth).square().sum() / (g.var(0).sum() / n + se**2))


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
@pytest.mark.parametrize("size", [(8, 4), (20, 10)])
def test_another_estimator_agrees_with_the_stored_references(size: tuple[int, int], point: str) -> None:
    problem = categorical_vae(*size).at(point)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "reference"
    entry = read_references("categorical_vae")[fingerprint(problem)]
    assert (entry["estimator"] == "enumeration") == (size == (8, 4))
    estimator = disarm_categorical()
    assert entry["estimator"].split("[")[0] != estimator.name
    z, ratio = agreement(problem, estimator, truth.gradient, 256, float(truth.se.norm()))
    assert abs(z) < 4.5
    assert 0.4 < ratio < 2


def test_the_enumeration_that_is_stored_is_that_of_the_truth() -> None:
    problem = categorical_vae(**SMALL)
    truth = true_gradient(problem)
    entry = stored_by_enumeration(problem, 10, lambda text: None)
    assert truth is not None
    assert entry is not None
    assert entry["gradient"] == pytest.approx(truth.gradient.tolist(), rel=1e-9)


def test_variants_share_points_and_truth() -> None:
    elbo, bound, closed = categorical_vae(), categorical_vae(samples=5), categorical_vae(kl="closed_form")
    assert list(elbo.points) == list(bound.points) == list(closed.points) == ["init", "mid", "converged"]
    assert torch.equal(elbo.at("mid").theta, bound.at("mid").theta)
    assert not torch.equal(elbo.at("mid").theta, elbo.at("init").theta)
    first, second = true_gradient(elbo.at("mid")), true_gradient(closed.at("mid"))
    assert first is not None
    assert second is not None
    assert torch.equal(first.gradient, second.gradient)


def test_float32_and_weights_a_hundred_times_as_large() -> None:
    problem = categorical_vae(**SMALL)
    assert problem.model is not None
    far = replace(problem, theta=100 * problem.theta, model=100 * problem.model)
    for estimator in (rloo(2), gumbel_softmax()):
        for there in (problem, far):
            g, h = (gradients(prepare(estimator, there, dtype=kind), range(64)) for kind in ("float32", "float64"))
            assert g.dtype == torch.float32
            assert g.isfinite().all()
            assert h.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"variables": 0}, r"categorical_vae\[variables=0\]: variables must be at least 1"),
        ({"categories": 1}, r"categorical_vae\[categories=1\]: categories must be at least 2"),
        ({"hidden": 0}, r"categorical_vae\[hidden=0\]: hidden must be at least 1"),
        (
            {"data": 10, "batch": 11},
            r"categorical_vae\[batch=11\]: batch is 0 \(all\) or a number of rows up to data=10",
        ),
        (
            {"kl": "closed_form", "samples": 5},
            r"categorical_vae\[kl=closed_form,samples=5\]: a bound of several draws .*",
        ),
    ],
)
def test_settings_it_cannot_take(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^{sentence}$"):
        categorical_vae(**settings)
