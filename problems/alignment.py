"""Lexical alignment, IBM model 1: which word of the source each word of the target translates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import at_least

SEED = 11
FAITHFUL = 0.8


def alignment(words: int = 4, vocabulary: int = 8, sentences: int = 6) -> Problem:
    """ELBO of IBM model 1: target word x_j translates source word y_{a_j}, the alignment a_j uniform over the sentence.

    p(x, a | y) = prod_j (1/I) t(x_j | y_{a_j}), t(. | y) = softmax of row y of the model `[V, V]`; q(a_j = i) = softmax over i of
    s[x_j, y_i], a table theta `[V, V]` shared by all sentences. `words` words on both sides, drawn by the model itself from a
    one-to-one dictionary that is followed with probability 0.8 (fixed seed). log p is a sum over the positions: a score function
    pays for the noise of every other position, estimators that vary one site at a time do not; and it is linear in the one-hot
    vectors, so that straight-through has no bias here. Exact position by position (sum-product), for any number of words.
    Brown et al. 1993, Computational Linguistics 19(2).
    """
    at_least("alignment", 1, words=words, sentences=sentences)
    at_least("alignment", 2, vocabulary=vocabulary)
    rows, _ = corpus(words, vocabulary, sentences)

    def pairs(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Target and source word of every (j, i): `[(R,) B, J, 1]` and `[(R,) B, 1, I]`."""
        x, y = data.long().split(words, -1)
        return x[..., :, None], y[..., None, :]

    def log_joint(model: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """log (1/I) t(x_j | y_i): `[(R,) B, J, I]`."""
        x, y = pairs(data)
        return model.reshape(vocabulary, vocabulary).log_softmax(-1)[y, x] - math.log(words)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        return (x * log_joint(model, data)).sum((-2, -1))

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        x, y = pairs(data)
        return theta.reshape(vocabulary, vocabulary)[x, y]

    def exact(problem: Problem) -> torch.Tensor:
        """The ELBO factorises: sum over sentences, j and i of q_ji (log (1/I) t(x_j | y_i) - log q_ji)."""
        theta = problem.theta.detach().requires_grad_()
        assert problem.model is not None
        model = problem.model.detach().requires_grad_()
        log_q = encode(theta, rows).log_softmax(-1)
        L = (log_q.exp() * (log_joint(model, rows) - log_q)).sum()
        return torch.cat(torch.autograd.grad(L, (theta, model)))

    rng = np.random.default_rng(SEED + 1)
    start = torch.from_numpy(0.5 * rng.standard_normal((2, vocabulary**2)))
    init = Point(start[0], start[1])
    settings: dict[str, Any] = {"words": words, "vocabulary": vocabulary, "sentences": sentences}
    return Problem(
        name="alignment",
        family=Categorical,
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        degree=1,
        encode=encode,
        model=init.model,
        data=rows,
        exact=exact,
        points=stored_points("alignment", settings, init),
        settings=settings,
        source="Brown et al. 1993, with a seeded corpus",
    )


def corpus(words: int, vocabulary: int, sentences: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentence pairs `[N, J + I]`, target words first, and the dictionary: translation `[V]` of each source word."""
    rng = np.random.default_rng(SEED)
    dictionary = rng.permutation(vocabulary)
    y = rng.integers(vocabulary, size=(sentences, words))
    a = rng.integers(words, size=(sentences, words))
    faithful = rng.random((sentences, words)) < FAITHFUL
    x = np.where(faithful, dictionary[np.take_along_axis(y, a, 1)], rng.integers(vocabulary, size=(sentences, words)))
    return torch.from_numpy(np.concatenate([x, y], 1).astype(np.float64)), torch.from_numpy(dictionary)
