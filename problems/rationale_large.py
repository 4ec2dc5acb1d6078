"""Rationale extraction from long sentences, of more masks than can be listed, and its gradient exact all the same."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import softplus

from problems.base import Problem
from problems.rationale import extraction, log_partition, scores, tagger
from problems.truth import Truth, by_quadrature, exactly

WIDTH = 12.0  # where 1 / sinh(pi t) is rounding


def rationale_large(
    words: int = 40,
    sentences: int = 20,
    batch: int = 5,
    readers: int = 10,
    length: float = 2.0,
    coherence: float = 0.5,
    likelihood: str = "logistic",
) -> Problem:
    """ELBO of rationale extraction from sentences of 40 words: 2^40 masks, of which nothing can be enumerated.

    The model, the tagger and the corpus of `rationale` at another size; of its `sentences` every replicate draws `batch` (0: takes
    all). Under q the gates are independent: the prior and the entropy are sums over gates and their neighbours, and the sentiment
    depends on the mask through one number, s. With the Gaussian rating its square is known, so that the gradient is a closed
    form; with the logistic one it is an integral over a line of the characteristic function of s (`exact`), certified to 1e-9.
    Forty gates share one signal: at the start estimators that vary one gate at a time have less than half of RLOO's spread. Towards
    the end those that take one draw of the others for all gates (local expectations, n + 1 evaluations) have no less than RLOO,
    those that draw them for each gate (IndeCateR, 2 n) a third of it; between them lies ARMS with four.
    Lei, Barzilay & Jaakkola 2016, arXiv:1606.04155; Bastings, Aziz & Titov 2019, arXiv:1905.08160.
    """
    settings = {
        "words": words,
        "sentences": sentences,
        "batch": batch,
        "readers": readers,
        "length": float(length),
        "coherence": float(coherence),
        "likelihood": likelihood,
    }
    return extraction("rationale_large", settings, batch=batch, exact=exact)


def exact(problem: Problem) -> Truth:
    """The gradient of `elbo`: in closed form, or where a quadrature is in it with so many nodes that it has converged.

    The midpoint rule's error falls as exp(|s| - 2 pi nodes / WIDTH), |s| the largest that any mask makes it.
    """
    if problem.settings["likelihood"] == "gaussian":
        return exactly(gradient(problem, 1))
    assert problem.data is not None
    assert problem.model is not None
    largest = float(scores(problem.model, problem.data).abs().sum(-1).max())
    return by_quadrature(
        lambda nodes: gradient(problem, nodes), nodes=math.ceil(WIDTH * (largest + 40) / (2 * math.pi))
    )


def gradient(problem: Problem, nodes: int) -> torch.Tensor:
    """The gradient of `elbo` in theta and the model, by autograd."""
    assert problem.model is not None
    theta, model = (t.detach().clone().requires_grad_() for t in (problem.theta, problem.model))
    return torch.cat(torch.autograd.grad(elbo(problem, theta, model, nodes), (theta, model)))


def elbo(problem: Problem, theta: torch.Tensor, model: torch.Tensor, nodes: int) -> torch.Tensor:
    """sum over the sentences of E log p(z) + H(q) + E log p(y | z, x), gates independent with P(z_i = 1) = p_i.

    E |z_i - z_{i-1}| = p_i + p_{i-1} - 2 p_i p_{i-1}. Gaussian: E (y - s)^2 = (y - E s)^2 + var s. Logistic, y = +-1:
    log sigmoid(y s) = y s / 2 - log 2 - log cosh(s / 2).
    """
    assert problem.data is not None
    data, settings, readers = problem.data, problem.settings, problem.settings["readers"]
    logits, y, v = tagger(theta, data), data[:, -1], scores(model, data)
    p = logits.sigmoid()
    before, after = p[:, :-1], p[:, 1:]
    apart = (before + after - 2 * before * after).sum()
    log_prior = -settings["length"] * p.sum() - settings["coherence"] * apart
    log_prior = log_prior - len(data) * log_partition(settings["words"], settings["length"], settings["coherence"])
    entropy = (softplus(logits) - p * logits).sum()
    s = (p * v).sum(-1)
    if settings["likelihood"] == "gaussian":
        square = (y - s).square() + (p * (1 - p) * v * v).sum(-1)
        log_likelihood = (0.5 * math.log(readers / (2 * math.pi)) - 0.5 * readers * square).sum()
    else:
        log_likelihood = readers * (y * s / 2 - math.log(2) - log_cosh(p, v, nodes)).sum()
    return log_prior + entropy + log_likelihood


def log_cosh(p: torch.Tensor, v: torch.Tensor, nodes: int) -> torch.Tensor:
    """E log cosh(s / 2) of s = sum_i z_i v_i, z_i ~ Bernoulli(p_i): p, v `[N, n]` -> `[N]`.

    log cosh(s / 2) = int_0^inf (1 - cos(t s)) / (t sinh(pi t)) dt, so that its mean has E cos(t s) = Re prod_i (1 - p_i + p_i
    e^{itv_i}); by the midpoint rule, which converges exponentially as the integrand is even and analytic for |Im t| < 1.
    """
    step = WIDTH / nodes
    t = step * (torch.arange(nodes, dtype=p.dtype) + 0.5)
    factor = 1 - p[:, None] + p[:, None] * torch.exp(1j * t[:, None] * v[:, None])
    return step * ((1 - factor.prod(-1).real) / (t * torch.sinh(math.pi * t))).sum(-1)
