"""Latent Dirichlet allocation: the topics of a document are a point of the simplex, and its words are summed out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributions
from torch.nn.functional import softplus

from problems.base import Point, Problem
from problems.families.dirichlet import Dirichlet
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import at_least, one_of, positive, rows_drawn
from problems.truth import Truth, by_datum, by_quadrature

SEED = 2003
SPARSITY = 0.3
POSTERIORS = ("amortised", "free")
NODES = 200
SPAN = 100.0


def lda(
    topics: int = 3,
    vocabulary: int = 30,
    words: int = 40,
    data: int = 40,
    batch: int = 10,
    concentration: float = 0.5,
    posterior: str = "amortised",
) -> Problem:
    """ELBO of latent Dirichlet allocation: which topics a document is of, one Dirichlet variable each, its words summed out.

    p(theta_d) = Dir(theta_d; a, ..., a), a = `concentration`; p(w | theta_d) = sum_k theta_dk beta_kw for each of `words` words,
    beta_k = softmax of row k of the model `[K, V]`; q(theta_d) = Dir(alpha_d) with alpha_d = e^b + sum_v n_dv e^{W_v}: every word
    adds to each topic's count, as in coordinate ascent, but the same share in all documents (theta: b `[K]`, W `[V, K]`).
    posterior=free: log alpha `[N, K]` itself, a row for each document, as variational Bayes has it. The `data` documents are drawn
    from the model with a fixed seed, its topics from Dir(0.3), of which every replicate draws `batch` (0: takes all).
    A Dirichlet variable is no location and scale of anything: paths are implicit, or through Gamma variables, or through rejection
    samplers, and here they part. Noise a replicate in q's parameters at `converged`: REINFORCE, of a sum over forty words, 2930;
    RLOO of four samples 16; a path 12; through a rejection sampler 55, its shapes augmented by 10, 13. The entropy in closed form
    helps at `init` (8.7 for 21) and hurts at `converged` (25 for 12), where log q and f have much in common.
    By quadrature for any number of topics: E log sum_k theta_k beta_k is an integral over one variable (`mean_log`).
    Blei, Ng & Jordan 2003, JMLR 3; Srivastava & Sutton 2017, arXiv:1703.01488; Figurnov et al. 2018, arXiv:1805.08498.
    """
    at_least("lda", 2, topics=topics, vocabulary=vocabulary)
    at_least("lda", 1, words=words, data=data)
    positive("lda", concentration=concentration)
    one_of("lda", POSTERIORS, posterior=posterior)
    rows_drawn("lda", batch, data=data)
    K, V, a = topics, vocabulary, float(concentration)
    rows, _, _ = draws(K, V, words, data, a)
    log_norm = math.lgamma(K * a) - K * math.lgamma(a)

    def f(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log Dir(theta_d; a) + sum_v n_dv log sum_k theta_dk beta_kv."""
        x = x.squeeze(-2)
        log_likelihood = (data[..., :V] * (x @ model.reshape(K, V).softmax(-1)).log()).sum(-1)
        return log_norm + (a - 1) * x.log().sum(-1) + log_likelihood

    def encode(theta: Tensor, data: Tensor) -> Tensor:
        """log alpha_d: `[(R,) B, 1, K]`."""
        if posterior == "free":
            return theta.reshape(-1, K)[data[..., V].long()][..., None, :]
        b, W = theta[:K], theta[K:].reshape(V, K)
        return (b.exp() + data[..., :V] @ W.exp()).log()[..., None, :]

    def exact(problem: Problem) -> Truth:
        return by_quadrature(lambda nodes: gradient(problem, nodes), NODES)

    init = start(K, V, data, a, posterior)
    settings: dict[str, Any] = {
        "topics": topics,
        "vocabulary": vocabulary,
        "words": words,
        "data": data,
        "batch": batch,
        "concentration": a,
        "posterior": posterior,
    }
    return Problem(
        name="lda",
        family=Dirichlet,
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        encode=encode,
        model=init.model,
        data=rows,
        batch=batch,
        exact=exact,
        points=stored_points("lda", settings, init),
        settings=settings,
        source="Blei et al. 2003, JMLR 3, with a seeded corpus",
    )


def gradient(problem: Problem, nodes: int) -> Tensor:
    """L = sum_d E log p(theta_d) + H(q_d) + sum_v n_dv E log sum_k theta_dk beta_kv, differentiated by autograd."""
    K, V, a = (problem.settings[name] for name in ("topics", "vocabulary", "concentration"))

    def L(theta: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
        assert model is not None
        assert data is not None
        alpha = problem.site_parameters(theta, data).flatten().exp()
        log_x = torch.digamma(alpha) - torch.digamma(alpha.sum())
        of_words = data[0, :V] @ mean_log(alpha, model.reshape(K, V).softmax(-1), nodes)
        return (a - 1) * log_x.sum() + distributions.Dirichlet(alpha).entropy() + of_words

    return by_datum(problem, L)


def mean_log(alpha: Tensor, beta: Tensor, nodes: int) -> Tensor:
    """E log sum_k theta_k beta_kv, theta ~ Dir(alpha): alpha `[K]`, beta `[K, V]` -> `[V]`; `nodes` to every SPAN of w = log t.

    = int_0^inf ((1 + t)^-s - prod_k (1 + t beta_k)^-alpha_k) dt / t, s = sum alpha: with y_k ~ Gamma(alpha_k, 1), sum_k y_k beta_k
    is sum_k theta_k beta_k times an independent Gamma(s, 1) variable, log y = int (e^-t - e^-ty) dt / t, and E e^-ty is known.
    In w no end is singular and the trapezium rule converges exponentially; less than e^-36 lies beyond its ends, of which the
    upper one is far off where s is small, or an entry of beta is.
    """
    s = alpha.sum()
    low, high = (-36 - s.log()).item(), (36 / s - beta.log().min()).item()
    w = torch.linspace(low, high, math.ceil(nodes * max(1, (high - low) / SPAN)), dtype=alpha.dtype)[:, None]
    of_sum = torch.einsum("k,skv->sv", alpha, softplus(w[..., None] + beta.log()))
    return (high - low) / (len(w) - 1) * ((-s * softplus(w)).exp() - (-of_sum).exp()).sum(0)


def start(topics: int, vocabulary: int, data: int, concentration: float, posterior: str) -> Point:
    """Shares of 1/K for every word, or concentrations of 1 (free), and even topics, all with some noise from the fixed seed."""
    rng = np.random.default_rng(SEED + 1)
    model = 0.5 * rng.standard_normal(topics * vocabulary)
    if posterior == "free":
        theta = 0.1 * rng.standard_normal(data * topics)
    else:
        theta = 0.1 * rng.standard_normal((vocabulary + 1) * topics) - math.log(topics)
        theta[:topics] += math.log(topics * concentration)
    return Point(torch.from_numpy(theta), torch.from_numpy(model))


def draws(topics: int, vocabulary: int, words: int, data: int, concentration: float) -> tuple[Tensor, Tensor, Tensor]:
    """Counts and place of each document `[N, V + 1]`, its theta `[N, K]`, and the topics beta `[K, V]`, from the fixed seed."""
    rng = np.random.default_rng(SEED)
    beta = rng.dirichlet([SPARSITY] * vocabulary, topics)
    theta = rng.dirichlet([concentration] * topics, data)
    p = theta @ beta
    counts = np.stack([rng.multinomial(words, row / row.sum()) for row in p])
    rows = np.concatenate([counts, np.arange(data)[:, None]], 1).astype(np.float64)
    return torch.from_numpy(rows), torch.from_numpy(theta), torch.from_numpy(beta)
