"""Variational dropout against numpy, plain enumeration of all masks, differences of its ELBO, and estimators of several kinds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import entr, expit
from scipy.stats import norm
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators.arm import arm
from estimators.base import Estimator, Noise
from estimators.disarm import disarm
from estimators.gumbel_softmax import gumbel_softmax
from estimators.local_expectation import local_expectation
from estimators.noise import MEASURE, addressed, rows_without_replacement
from estimators.rebar import rebar
from estimators.score_function import rloo
from problems.base import Problem
from problems.dropout_bnn import dropout_bnn
from problems.regression import friedman, layers, size
from problems.truth import enumerated, true_gradient


def anywhere(problem: Problem, seed: int) -> Problem:
    """The same at logits and weights of variance 1."""
    generator = torch.Generator().manual_seed(seed)
    assert problem.model is not None
    theta, model = (
        torch.randn(len(t), generator=generator, dtype=torch.float64) for t in (problem.theta, problem.model)
    )
    return replace(problem, theta=theta, model=model)


def log_joint(z: np.ndarray, row: np.ndarray, w: np.ndarray, inputs: int, hidden: int, rows: int) -> float:
    """f of one datum in plain numpy."""
    W, b, v, c = np.split(w, [hidden * inputs, hidden * (inputs + 1), hidden * (inputs + 2)])
    W = W.reshape(hidden, inputs)
    output = v @ (z[inputs:] * np.tanh(W @ (z[:inputs] * row[:-1]) + b)) + c[0]
    left = sum(z[i] * W[:, i] @ W[:, i] for i in range(inputs)) + sum(z[inputs + j] * v[j] ** 2 for j in range(hidden))
    return float(norm.logpdf(row[-1], output, 0.3) - 0.5 * (left + b @ b + c[0] ** 2) / rows)


def test_f_is_the_likelihood_under_a_mask_and_a_share_of_the_prior_of_what_it_keeps() -> None:
    problem = anywhere(dropout_bnn(hidden=4, inputs=3, data=5, batch=0), 1)
    rng = np.random.default_rng(0)
    assert problem.data is not None
    assert problem.model is not None
    z = rng.integers(2, size=(3, 2, 5, 7)).astype(float)
    wanted = [
        [
            [log_joint(z[k, r, n], problem.data[n].numpy(), problem.model.numpy(), 3, 4, 5) for n in range(5)]
            for r in range(2)
        ]
        for k in range(3)
    ]
    np.testing.assert_allclose(problem.value(torch.from_numpy(z)), wanted, rtol=1e-10)


@pytest.mark.parametrize(("hidden", "inputs"), [(1, 1), (3, 2), (2, 4)])
def test_the_exact_gradient_is_the_plain_enumeration(hidden: int, inputs: int) -> None:
    problem = anywhere(dropout_bnn(hidden=hidden, inputs=inputs, data=5, batch=2), hidden)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    torch.testing.assert_close(truth.gradient, enumerated(problem).gradient, rtol=1e-9, atol=1e-9)


def test_the_exact_gradient_is_the_slope_of_the_elbo(differences: Callable[..., Tensor]) -> None:
    """The ELBO in plain numpy, by all sixteen masks of two inputs and two hidden units, differenced."""
    problem = anywhere(dropout_bnn(hidden=2, inputs=2, data=3, batch=0), 4)
    rows = friedman(3, 2).numpy()
    assert problem.model is not None

    def elbo(at: list[float]) -> float:
        theta, w = np.array(at[:4]), np.array(at[4:])
        p, total = expit(theta), 0.0
        for z in itertools.product((0.0, 1.0), repeat=4):
            chance = np.prod(np.where(z, p, 1 - p))
            total += chance * sum(log_joint(np.array(z), row, w, 2, 2, 3) for row in rows)
        return float(total + (entr(p) + entr(1 - p)).sum())

    truth = true_gradient(problem)
    assert truth is not None
    wanted = differences(elbo, [*problem.theta.tolist(), *problem.model.tolist()])
    torch.testing.assert_close(truth.gradient, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("estimator", [rloo(3), arm(), disarm(), rebar(), local_expectation()])
def test_estimators_of_many_kinds_agree_with_it(estimator: Estimator) -> None:
    """A false alarm in 1e-5 of such tests."""
    problem = anywhere(dropout_bnn(hidden=2, inputs=2, data=3, batch=2), 5)
    findings = check(estimator, [replace(problem, points={})], seed=1, replicates=8192, level=1e-5)
    assert len(findings) > 3
    assert failures(findings) == []


def test_concrete_dropout_is_biased() -> None:
    problem = replace(anywhere(dropout_bnn(hidden=2, inputs=2, data=3, batch=0), 5), points={})
    truth = true_gradient(problem)
    assert truth is not None
    g = gradients(prepare(gumbel_softmax(temperature=0.5), problem, 1), range(16_384))[:, :4]
    z = (g.mean(0) - truth.gradient[:4]) / (g.std(0) / len(g) ** 0.5)
    assert float(z.abs().max()) > 10


def test_the_gradient_of_a_minibatch_is_plain_autograd_of_a_surrogate() -> None:
    """RLOO of two masks a datum, in the logits and the weights, of three rows of six."""
    problem = anywhere(dropout_bnn(hidden=4, inputs=3, data=6, batch=3), 6)
    assert problem.data is not None
    assert problem.model is not None
    trial = prepare(rloo(2), problem, 2)
    rows = rows_without_replacement(trial.key, MEASURE, range(5), 6, 3)
    u = addressed(Noise("uniform", (2,), (7,)), trial.key, MEASURE, 0, range(5), rows, torch.float64)
    found = gradients(trial, range(5))
    for r in range(5):
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        q, w = torch.distributions.Bernoulli(logits=theta), layers(model, 3, 4)
        z = (u[:, r] < q.probs).double()
        x, y = problem.data[rows[r]].split([3, 1], -1)
        output = (z[..., 3:] * ((z[..., :3] * x) @ w.W.T + w.b).tanh()) @ w.v + w.c
        kept = z @ torch.cat([(w.W**2).sum(0), w.v**2]) + (w.b**2).sum() + w.c**2
        f = torch.distributions.Normal(output, 0.3).log_prob(y[:, 0]) - 0.5 * kept / 6
        gap = (f[0] - f[1]).detach()
        log_q = q.log_prob(z).sum(-1)
        surrogate = (0.5 * gap * (log_q[0] - log_q[1]) + f.mean(0)).sum()
        (2 * surrogate + q.entropy().sum()).backward()
        assert theta.grad is not None
        assert model.grad is not None
        torch.testing.assert_close(found[r], torch.cat([theta.grad, model.grad]), rtol=1e-10, atol=1e-10)


def test_extreme_logits_and_single_precision() -> None:
    problem = dropout_bnn(hidden=2, inputs=2, data=3, batch=2)
    for logit in (30.0, -30.0):
        there = replace(problem, theta=torch.full_like(problem.theta, logit), points={})
        truth = true_gradient(there)
        assert truth is not None
        assert truth.gradient.isfinite().all()
        found = gradients(prepare(disarm(), there, 1, dtype="float32"), range(64))
        assert found.dtype == torch.float32
        assert found.isfinite().all()


def test_training_keeps_what_is_of_use() -> None:
    problem = dropout_bnn()
    assert problem.point_names() == ["init", "mid", "converged"]
    assert problem.dim == 24 + size(8, 16)
    keep = problem.at("converged").theta.sigmoid()[:8]
    assert float(keep[:5].min()) > 0.9
    assert torch.equal(dropout_bnn(batch=0).points["converged"].theta, problem.points["converged"].theta)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"inputs": 11}, r"dropout_bnn\[inputs=11\]: the exact gradient sums over their masks, of 10 at most"),
        ({"data": 513}, r"dropout_bnn\[data=513\]: there are 512"),
        ({"batch": 129}, r"dropout_bnn\[batch=129\]: batch is 0 \(all\) or a number of rows up to data=128"),
        ({"hidden": 0}, r"dropout_bnn\[hidden=0\]: hidden must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        dropout_bnn(**settings)
