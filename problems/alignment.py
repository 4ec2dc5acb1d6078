"""Lexical alignment, IBM model 1: which word of the source each word of the target translates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.lanes import Kit, LaneModel
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
        """sum_j log (1/I) t(x_j | y_{a_j}), a_j one-hot."""
        return (x * log_joint(model, data)).sum((-2, -1))

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        x, y = pairs(data)
        return theta.reshape(vocabulary, vocabulary)[x, y]

    def exact(problem: Problem) -> torch.Tensor:
        """The ELBO factorises: sum over sentences, j and i of q_ji (log (1/I) t(x_j | y_i) - log q_ji)."""
        theta = problem.theta.detach().requires_grad_()
        assert problem.model is not None
        assert problem.data is not None
        model = problem.model.detach().requires_grad_()
        log_q = encode(theta, problem.data).log_softmax(-1)
        L = (log_q.exp() * (log_joint(model, problem.data) - log_q)).sum()
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
        lanes=in_lanes(words, vocabulary),
        points=stored_points("alignment", settings, init),
        settings=settings,
        source="Brown et al. 1993, with a seeded corpus",
    )


def in_lanes(words: int, vocabulary: int) -> Callable[[Kit], LaneModel]:
    """f over lanes; df/dx_ji = log (1/I) t(x_j | y_i), df/dm_yv = sum_ji x_ji 1[y_i = y] (1[x_j = v] - t(v | y)).

    What does not depend on the draw is made once for a row of data: once for all lanes where they share it.
    """

    def lanes(kit: Kit) -> LaneModel:
        I, V, L, S, R, exp, log = words, vocabulary, kit.L, kit.S, kit.real, kit.exp, kit.log
        ROWS, SHARING = (L, 1) if S else (1, L)
        LOG_T, NORM = 0, words * words  # rows of c.room
        ZERO, LOG_WORDS = R(0), R(math.log(words))

        @kit.jit
        def log_sum(c, y):  # type: ignore[no-untyped-def]
            """log sum_v e^{m_yv}."""
            most, total = c.model[y * V], ZERO
            for v in range(1, V):
                most = max(most, c.model[y * V + v])
            for v in range(V):
                total += exp(c.model[y * V + v] - most)
            return most + log(total)

        @kit.jit
        def log_joint(c):  # type: ignore[no-untyped-def]
            """log (1/I) t(x_j | y_i), and the log of t's sum, to c.room."""
            for q in range(ROWS):
                for i in range(I):
                    y = np.int64(c.row[I + i, q])
                    norm = log_sum(c, y)
                    c.room[NORM + i, q] = norm
                    for j in range(I):
                        c.room[LOG_T + j * I + i, q] = c.model[y * V + np.int64(c.row[j, q])] - norm - LOG_WORDS

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            log_joint(c)
            out[:] = ZERO
            for j in range(I):
                for i in range(I):
                    for l in range(L):
                        out[l] += x[j, i, l] * c.room[LOG_T + j * I + i, S * l]

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            log_joint(c)
            for j in range(I):
                for i in range(I):
                    for l in range(L):
                        out[j, i, l] = c.room[LOG_T + j * I + i, S * l]

        @kit.jit
        def credit(m, x, w, c):  # type: ignore[no-untyped-def]
            log_joint(c)
            total = c.room[LOG_T]
            for i in range(I):
                total[:] = ZERO
                for j in range(I):
                    for l in range(L):
                        total[l] += w[l] * x[j, i, l]
                for q in range(ROWS):
                    y = np.int64(c.row[I + i, q])
                    for j in range(I):
                        target = m[y * V + np.int64(c.row[j, q])]
                        for l in range(q * SHARING, (q + 1) * SHARING):
                            target[l] += w[l] * x[j, i, l]
                    for v in range(V):
                        t = exp(c.model[y * V + v] - c.room[NORM + i, q])
                        for l in range(q * SHARING, (q + 1) * SHARING):
                            m[y * V + v, l] -= t * total[l]

        return LaneModel(f, df, credit, rooms=words * words + words)

    return lanes


def corpus(words: int, vocabulary: int, sentences: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentence pairs `[N, J + I]`, target words first, and the dictionary: translation `[V]` of each source word."""
    rng = np.random.default_rng(SEED)
    dictionary = rng.permutation(vocabulary)
    y = rng.integers(vocabulary, size=(sentences, words))
    a = rng.integers(words, size=(sentences, words))
    faithful = rng.random((sentences, words)) < FAITHFUL
    x = np.where(faithful, dictionary[np.take_along_axis(y, a, 1)], rng.integers(vocabulary, size=(sentences, words)))
    return torch.from_numpy(np.concatenate([x, y], 1).astype(np.float64)), torch.from_numpy(dictionary)
