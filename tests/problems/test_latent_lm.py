"""The language model against torch's GRU cell, quadrature in numpy, plain autograd, and estimators of several kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, logsumexp
from torch import Tensor, nn

from bench.evaluate import gradients, prepare
from estimators.antithetic import antithetic_normal
from estimators.base import Estimator, Noise
from estimators.importance_weighted import dreg, iwae_score
from estimators.noise import MEASURE, addressed
from estimators.pathwise import pathwise, pathwise_total
from estimators.score_function import rloo
from problems.base import Problem
from problems.corpus import END, TOPICS, WORDS, corpus
from problems.latent_lm import EMBEDDED, V, latent_lm
from problems.truth import Truth, true_gradient

SMALL: dict[str, Any] = {"hidden": 3, "latent": 1, "data": 3, "batch": 0}


def truth_of(problem: Problem) -> Truth:
    truth = true_gradient(problem)
    assert truth is not None
    return truth


def shapes(hidden: int, latent: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Of the encoder's arrays, and of the decoder's."""
    encoder = [(hidden, V), (hidden,), (2 * latent, hidden), (2 * latent,)]
    decoder = [(hidden, latent), (hidden,), (EMBEDDED, V), (3 * hidden, EMBEDDED), (3 * hidden,)]
    return encoder, [*decoder, (3 * hidden, hidden), (3 * hidden,), (V, hidden), (V,)]


def cut(flat: np.ndarray, into: list[tuple[int, ...]]) -> list[np.ndarray]:
    """flat cut into arrays of these shapes, in order and to the end."""
    cuts = np.cumsum([int(np.prod(shape)) for shape in into])
    assert cuts[-1] == len(flat)
    return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts[:-1]), into, strict=True)]


def until_the_stop(row: np.ndarray) -> list[int]:
    """The words of a row up to and with its first full stop."""
    words = [int(word) for word in row]
    return words[: words.index(END) + 1]


def test_sentences_are_of_one_topic_and_one_tense() -> None:
    rows, behind = corpus(200)
    assert torch.equal(rows[:50], corpus(50)[0])
    assert {(int(topic), int(tense)) for topic, tense in behind} == {(i, j) for i in range(3) for j in range(2)}
    nouns = [set(topic[0].split()) for topic in TOPICS]
    verbs = [[{group.split()[tense] for group in topic[1:]} for tense in range(2)] for topic in TOPICS]
    anywhere = {"the", "a", "old", "young", "."}
    for row, (topic, tense) in zip(rows.numpy(), behind.tolist(), strict=True):
        words = {WORDS[word] for word in until_the_stop(row)}
        assert len(words & verbs[topic][tense]) == 1
        assert words <= nouns[topic] | verbs[topic][tense] | anywhere | {("now", "then")[tense]}


@pytest.mark.parametrize("inputless", [False, True])
def test_f_is_that_of_torchs_own_cell_run_word_by_word(inputless: bool) -> None:
    problem = latent_lm(hidden=5, latent=2, data=6, batch=0, inputless=inputless)
    rng = np.random.default_rng(0)
    assert problem.model is not None
    assert problem.data is not None
    model = torch.from_numpy(rng.standard_normal(len(problem.model)))
    start, b_start, embedding, *gates, out, b_out = map(torch.from_numpy, cut(model.numpy(), shapes(5, 2)[1]))
    cell = nn.GRUCell(EMBEDDED, 5).double()  # our gates r, u, n are in its order
    input_weights, input_bias, weights, bias = gates
    cell.load_state_dict({"weight_ih": input_weights, "bias_ih": input_bias, "weight_hh": weights, "bias_hh": bias})
    z = torch.from_numpy(rng.standard_normal((2, 3, 6, 2)))
    found = problem.f(z, problem.data, model)
    for k, r, b in np.ndindex(2, 3, 6):
        h, read = (start @ z[k, r, b] + b_start).tanh(), torch.zeros(EMBEDDED, dtype=torch.float64)
        wanted = float(torch.distributions.Normal(0.0, 1.0).log_prob(z[k, r, b]).sum())
        for word in until_the_stop(problem.data[b].numpy()):
            h = cell(read, h)
            wanted += (out @ h + b_out).log_softmax(0)[word].item()
            read = 0 * read if inputless else embedding[:, word]
        assert float(found[k, r, b]) == pytest.approx(wanted, rel=1e-12)


def bound_in_numpy(
    problem: Problem, theta: np.ndarray, model: np.ndarray, eps: np.ndarray, log_weight: np.ndarray
) -> float:
    """The objective by a rule for the standardised draws eps `[S, K]` of one latent variable."""
    of_encoder, of_decoder = shapes(problem.settings["hidden"], 1)
    W1, b1, W2, b2 = cut(theta, of_encoder)
    start, b_start, embedding, inward, b_in, inner, b_inner, out, b_out = cut(model, of_decoder)
    assert problem.data is not None
    total = 0.0
    for row in problem.data.numpy().astype(int):
        mu, log_sigma = W2 @ np.tanh(W1 @ np.bincount(row, minlength=V) + b1) + b2
        z = mu + np.exp(log_sigma) * eps
        log_w = -0.5 * z**2 + 0.5 * eps**2 + log_sigma
        h, read = np.tanh(z[..., None] * start[:, 0] + b_start), np.zeros(EMBEDDED)
        for word in until_the_stop(row):
            a, b = np.split(inward @ read + b_in, 3), np.split(h @ inner.T + b_inner, 3, -1)
            u = expit(a[1] + b[1])
            h = u * h + (1 - u) * np.tanh(a[2] + expit(a[0] + b[0]) * b[2])
            log_w = log_w + log_softmax(h @ out.T + b_out, -1)[..., word]
            read = embedding[:, word]
        total += float((np.exp(log_weight) * (logsumexp(log_w, 1) - math.log(log_w.shape[1]))).sum())
    return total


@pytest.mark.parametrize("samples", [1, 2])
def test_truth_is_the_slope_of_a_gauss_hermite_rule(samples: int, differences: Callable[..., Tensor]) -> None:
    """In numpy, by central differences along directions drawn at random."""
    problem = latent_lm(**SMALL | {"data": 2}, samples=samples)
    truth = truth_of(problem)
    assert truth.tier == "quadrature"
    assert problem.model is not None
    x, w = np.polynomial.hermite_e.hermegauss(120 if samples == 1 else 80)
    eps = np.stack(np.meshgrid(*[x] * samples), -1).reshape(-1, samples)
    log_weight = np.log(np.stack(np.meshgrid(*[w / w.sum()] * samples), -1)).reshape(-1, samples).sum(-1)
    at, directions = (
        torch.cat([problem.theta, problem.model]).numpy(),
        np.random.default_rng(1).standard_normal((8, problem.dim)),
    )

    def L(steps: list[float]) -> float:
        moved = at + np.array(steps) @ directions
        return bound_in_numpy(problem, *np.split(moved, [problem.theta.numel()]), eps, log_weight)

    wanted = differences(L, [0.0] * 8)
    torch.testing.assert_close(torch.from_numpy(directions) @ truth.gradient, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("total", [False, True])
def test_pathwise_is_plain_autograd_through_encoder_and_decoder(total: bool) -> None:
    """On the same noise; the path alone, log q's parameters held, and the total derivative of f - log q."""
    problem = latent_lm(hidden=6, latent=3, data=5, batch=0)
    trial = prepare((pathwise_total if total else pathwise)(), problem, 3)
    noise = addressed(Noise("normal", (1,), (3,)), trial.key, MEASURE, 0, range(4), range(5), torch.float64)
    assert problem.model is not None
    wanted = []
    for eps in noise[0]:
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        mu, log_sigma = problem.site_parameters(theta).unbind(-2)
        z = mu + log_sigma.exp() * eps
        q = (
            torch.distributions.Normal(mu, log_sigma.exp())
            if total
            else torch.distributions.Normal(mu.detach(), log_sigma.exp().detach())
        )
        L = problem.value(z, model) - q.log_prob(z).sum(-1)
        wanted.append(torch.cat(torch.autograd.grad(L.sum(), (theta, model))))
    torch.testing.assert_close(gradients(trial, range(4)), torch.stack(wanted), rtol=1e-10, atol=1e-11)


def largest_z(problem: Problem, estimator: Estimator, truth: Truth, n: int, chunk: int = 512) -> tuple[float, float]:
    """Largest |mean - truth| in standard errors of both, and what it passes with probability 1e-5 where there is no bias."""
    trial = prepare(estimator, problem, 11)
    g = torch.cat([gradients(trial, range(start, start + chunk)) for start in range(0, n, chunk)])
    se = torch.hypot(g.std(0) / n**0.5, truth.se).clamp(min=1e-12 * float(truth.gradient.norm()))
    return float(((g.mean(0) - truth.gradient).abs() / se).max()), NormalDist().inv_cdf(1 - 0.5e-5 / problem.dim)


@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({}, pathwise()),
        ({}, rloo(4)),
        ({}, antithetic_normal(2)),
        ({"batch": 2}, pathwise()),
        ({"inputless": True}, pathwise_total()),
        ({"samples": 2}, dreg()),
        ({"samples": 2}, iwae_score()),
    ],
)
def test_estimators_agree_with_the_quadrature(settings: dict[str, Any], estimator: Estimator) -> None:
    problem = latent_lm(**SMALL | settings)
    truth = truth_of(problem)
    z, allowed = largest_z(problem, estimator, truth, 4096)
    assert z < allowed
    assert largest_z(problem, estimator, replace(truth, gradient=1.2 * truth.gradient), 4096)[0] > allowed


def divergence(problem: Problem) -> float:
    """KL(q || N(0, I)) of a sentence, on average."""
    mu, log_sigma = problem.site_parameters(problem.theta).unbind(-2)
    return float(0.5 * (mu.square() + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(-1).mean())


def test_the_posterior_collapses_unless_the_decoder_is_inputless() -> None:
    """In nats; topic and tense are log 6 = 1.79."""
    assert divergence(latent_lm().at("init")) > 0.2
    assert divergence(latent_lm().at("converged")) < 0.05
    assert 1 < divergence(latent_lm(inputless=True).at("converged")) < 3


def test_bounds_of_several_draws_are_taken_at_the_points_of_the_elbo() -> None:
    elbo, bound = latent_lm(), latent_lm(samples=5)
    assert bound.objective.name == "ImportanceWeighted"
    assert list(bound.points) == list(elbo.points) == ["init", "mid", "converged"]
    assert torch.equal(bound.points["mid"].theta, elbo.points["mid"].theta)


def test_larger_problems_have_no_quadrature() -> None:
    assert latent_lm(**SMALL).exact is not None
    assert latent_lm(**SMALL | {"data": 100}).exact is None
    assert latent_lm(**SMALL, samples=3).exact is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden": 0}, r"latent_lm\[hidden=0\]: hidden must be at least 1"),
        ({"latent": 0}, r"latent_lm\[latent=0\]: latent must be at least 1"),
        ({"samples": 0}, r"latent_lm\[samples=0\]: samples must be at least 1"),
        ({"data": 10}, r"latent_lm\[batch=20\]: batch is 0 \(all\) or a number of rows up to data=10"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        latent_lm(**settings)
