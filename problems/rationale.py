"""Rationale extraction: which words of a sentence its sentiment can be told from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from problems.base import Point, Problem
from problems.families.bernoulli import Bernoulli
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import at_least, finite, one_of, rows_drawn
from problems.truth import Truth

SEED = 1606
LIKELIHOODS = ("logistic", "gaussian")
MOST_WORDS = 12
VOCABULARY = 20  # words 0..3 praise, 4..7 blame, the others say neither
OPINIONS = 4  # words of each polarity
FEATURES = 4
NOISE = 0.3  # standard deviation of what an embedding holds besides its word's polarity and opinion
STRAY = 0.1


def rationale(
    words: int = 10,
    sentences: int = 8,
    readers: int = 10,
    length: float = 2.0,
    coherence: float = 0.5,
    likelihood: str = "logistic",
) -> Problem:
    """ELBO of rationale extraction: a gate z_i for each word, and a sentiment that is told from the selected words alone.

    p(z) = exp(-length |z| - coherence sum_{i>1} |z_i - z_{i-1}|) / Z, short and in one piece, Z known (a chain's). With
    s = sum_i z_i u.e(x_i), e a fixed table of word embeddings, each of the `readers` of a sentence says y = +-1 with
    probability sigmoid(y s), and all say the same; or their ratings, N(s, 1) each, have the mean y (likelihood=gaussian).
    q(z_i = 1 | x, y) = sigmoid(a.e(x_i) + y a'.e(x_i) + c), a linear tagger. theta: a, a', c; model: u. The sentences are drawn
    from a fixed seed: neutral words around a span of words of y's own polarity, and a tenth of stray ones. Exact by enumeration of
    the 2^words masks (at most 12 words; `rationale_large` has more).
    Gates touch each other through the prior, and all at once through s, which saturates, so that rankings turn round along
    training. At the start control variates from f's gradient are worth much (Double CV has half of RLOO's spread); at the end one
    gate decides and f bends where it matters: MuProp spreads twice as much as RLOO, straight-through's bias is a multiple of the
    gradient, and antithetic masks (ARMS) lead. With ratings f is quadratic, and ReinMax has no bias.
    Lei, Barzilay & Jaakkola 2016, arXiv:1606.04155 (the penalties); Bastings, Aziz & Titov 2019, arXiv:1905.08160.
    """
    if words > MOST_WORDS:
        raise ValueError(
            f"rationale[words={words}]: the truth sums over every mask, of at most {MOST_WORDS} words; rationale_large takes more"
        )
    settings = {
        "words": words,
        "sentences": sentences,
        "readers": readers,
        "length": float(length),
        "coherence": float(coherence),
        "likelihood": likelihood,
    }
    return extraction("rationale", settings)


def extraction(
    name: str, settings: Mapping[str, Any], batch: int = 0, exact: Callable[[Problem], Truth] | None = None
) -> Problem:
    """The problem of these settings, under either of its names; batch and exact as a Problem has them."""
    words, sentences, likelihood = settings["words"], settings["sentences"], settings["likelihood"]
    readers, length, coherence = settings["readers"], settings["length"], settings["coherence"]
    at_least(name, 2, words=words)
    at_least(name, 1, sentences=sentences, readers=readers)
    at_least(name, 0, length=length, coherence=coherence)
    finite(name, readers=readers, length=length, coherence=coherence)
    rows_drawn(name, batch, sentences=sentences)
    one_of(name, LIKELIHOODS, likelihood=likelihood)
    log_Z = log_partition(words, length, coherence)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(z, y | x) = -length |z| - coherence sum_{i>1} (z_i - z_{i-1})^2 - log Z + log p(y | s), s = sum_i z_i u.e(x_i);
        log p(y | s) = readers log sigmoid(y s), or log N(y; s, 1/readers). The gates z are `[..., B, n]`.
        """
        y, s = data[..., -1], (x * scores(model, data)).sum(-1)
        apart = (x[..., 1:] - x[..., :-1]).square().sum(-1)
        log_prior = -length * x.sum(-1) - coherence * apart - log_Z
        if likelihood == "gaussian":
            return log_prior - 0.5 * readers * (y - s).square() + 0.5 * math.log(readers / (2 * math.pi))
        return log_prior + readers * logsigmoid(y * s)

    rng = np.random.default_rng(SEED + 1)
    init = Point(*(torch.from_numpy(0.5 * rng.standard_normal(size)) for size in (2 * FEATURES + 1, FEATURES)))
    return Problem(
        name=name,
        family=Bernoulli,
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        degree=2 if likelihood == "gaussian" else None,
        encode=tagger,
        model=init.model,
        data=corpus(words, sentences, readers, likelihood)[0],
        batch=batch,
        exact=exact,
        points=stored_points(name, settings, init),
        settings=settings,
        source="Lei, Barzilay & Jaakkola 2016, arXiv:1606.04155, with a seeded corpus",
    )


def tagger(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Logits a.e(x_i) + y a'.e(x_i) + c of the gates: theta `[2 F + 1]`, data `[(R,) B, n + 1]` -> `[(R,) B, n]`."""
    e, y = embedded(data), data[..., -1:]
    return e @ theta[:FEATURES] + y * (e @ theta[FEATURES:-1]) + theta[-1]


def scores(model: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """What each word adds to s if it is selected, u.e(x_i): `[(R,) B, n]`."""
    return embedded(data) @ model


def embedded(data: torch.Tensor) -> torch.Tensor:
    """e(x_i): `[(R,) B, n, F]`; the last number of a row of data is y."""
    return embeddings().to(data)[data[..., :-1].long()]


@lru_cache(maxsize=1)
def embeddings() -> torch.Tensor:
    """`[V, F]`: polarity (+1, -1, 0) and opinion (1 or 0) in the first two numbers, and N(0, NOISE^2) in all."""
    table = NOISE * np.random.default_rng(SEED + 2).standard_normal((VOCABULARY, FEATURES))
    table[:OPINIONS, 0] += 1
    table[OPINIONS : 2 * OPINIONS, 0] -= 1
    table[: 2 * OPINIONS, 1] += 1
    return torch.from_numpy(table)


def log_partition(words: int, length: float, coherence: float) -> float:
    """log Z = log sum_z exp(-length |z| - coherence sum_{i>1} |z_i - z_{i-1}|), gate by gate."""
    off, on = 0.0, -length
    for _ in range(words - 1):
        off, on = float(np.logaddexp(off, on - coherence)), float(np.logaddexp(off - coherence, on)) - length
    return float(np.logaddexp(off, on))


def corpus(words: int, sentences: int, readers: int, likelihood: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences `[N, n + 1]`, their words and then y; and which words are the span of y's polarity, `[N, n]`.

    The span is a quarter of the words; every other word is a stray opinion with probability STRAY. y is the polarity, or for
    the Gaussian likelihood N(2 x polarity, 1 / readers).
    """
    rng = np.random.default_rng(SEED)
    label = rng.choice([-1.0, 1.0], size=(sentences, 1))
    span = max(words // 4, 1)
    start = rng.integers(words - span + 1, size=(sentences, 1))
    inside = (np.arange(words) >= start) & (np.arange(words) < start + span)
    opinion = rng.integers(OPINIONS, size=(sentences, words))
    stray = rng.random((sentences, words)) < STRAY
    polarity = np.where(inside, label, rng.choice([-1.0, 1.0], size=(sentences, words)))
    neutral = rng.integers(2 * OPINIONS, VOCABULARY, size=(sentences, words))
    x = np.where(inside | stray, np.where(polarity > 0, opinion, opinion + OPINIONS), neutral)
    y = label if likelihood == "logistic" else 2 * label + rng.standard_normal((sentences, 1)) / math.sqrt(readers)
    return torch.from_numpy(np.concatenate([x, y], 1)), torch.from_numpy(inside)
