"""The unordered set estimator: samples without replacement, weighed as if their order had been forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

Indices = frozenset[int]


def log_probabilities(q: Family, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The support, and log q of its S points in the last axis: `[S, *event]`, `[(B,) S]`."""
    support = q.support()
    spread = support.reshape(len(support), *[1] * (noise.ndim - 1), *support.shape[1:])
    return support, q.log_prob(spread).movedim(0, -1)


def first(log_q: Tensor, noise: Tensor, k: int) -> Tensor:
    """The Gumbel-top-k trick: places in the support of k points drawn without replacement, `[..., k]`."""
    return (log_q + noise).topk(k, -1).indices


def log_drawing(log_q: Tensor, log_rest: Tensor) -> Mapping[Indices, Tensor]:
    """For each A within S: log P(A), the chance that A is drawn next, in any order, when the rest of S is gone already.

    P(A) = sum_{a in A} q_a / W(A) P(A - a), where W(A) = q(A) + q(not S) is what is left to draw from; P(nothing) = 1. All terms
    are positive, so that no digits are lost where a few points hold nearly all of the mass. log_q: [k, ...], log_rest: [...].
    """
    k = len(log_q)
    found = {frozenset[int](): torch.zeros_like(log_rest)}
    for size in range(1, k + 1):
        for A in map(frozenset, combinations(range(k), size)):
            log_W = torch.logaddexp(log_q[list(A)].logsumexp(0), log_rest)
            found[A] = torch.stack([log_q[a] + found[A - {a}] for a in A]).logsumexp(0) - log_W
    return found


def chances(q: Family, noise: Tensor, k: int) -> tuple[Tensor, Mapping[Indices, Tensor]]:
    """log q of the k points drawn, `[k, ...]`, and their `log_drawing`."""
    _, log_q = log_probabilities(q, noise)
    log_q = log_q.expand_as(noise)
    places = first(log_q, noise, k)
    log_rest = log_q.scatter(-1, places, -torch.inf).logsumexp(-1)
    chosen = log_q.gather(-1, places).movedim(-1, 0)
    return chosen, log_drawing(chosen, log_rest)


def unordered_set(samples: int = 2, states: int = 1024) -> Estimator:
    """Unordered set estimator: samples without replacement, Rao-Blackwellised over their order, with the built-in baseline.

    For any finite family of at most `states` points (the exact weights take a sum over the support and over 2^K subsets).
    Unbiased for Expectation and Elbo; K >= 2 evaluations of f, no gradient of f; exact where K is the whole support.
    Kool, van Hoof & Welling 2020, arXiv:2002.06043.
    """
    if samples < 2:
        raise ValueError(
            f"unordered_set[samples={samples}]: the baseline comes from the rest of the set, so samples must be at least 2"
        )
    if states < samples:
        raise ValueError(f"unordered_set[states={states}]: fewer states than the {samples} samples to be drawn of them")

    def draw(q: Family, noise: Tensor) -> Tensor:
        """S, K points drawn without replacement; x: [K, ..., *event]."""
        support, log_q = log_probabilities(q, noise)
        return support[first(log_q, noise, samples).movedim(-1, 0)]

    def combine(q: Family, noise: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """g = sum_{i in S} q_i R(S, i) [f_i - sum_{j in S} q_j R^{D - i}(S, j) f_j] grad log q_i,
        R(S, i) = P^{D - i}(S - i) / P(S), R^{D - i}(S, j) = P^{D - i, j}(S - i, j) / P^{D - i}(S - i), R^{D - i}(S, i) = 1."""
        log_q, log_P = chances(q, noise, samples)
        S = frozenset(range(samples))
        weight = []
        for i in S:
            log_P_i = log_P[S - {i}]
            inner = [log_P[S - {i, j}] - log_P_i if j != i else torch.zeros_like(log_P_i) for j in S]
            baseline = ((log_q + torch.stack(inner)).exp() * fx).sum(0)
            weight.append((log_q[i] + log_P_i - log_P[S]).exp() * (fx[i] - baseline))
        return q.score(x, torch.stack(weight))

    def value(q: Family, noise: Tensor, fx: Tensor) -> Tensor:
        """L = sum_{i in S} q_i R(S, i) f_i."""
        log_q, log_P = chances(q, noise, samples)
        S = frozenset(range(samples))
        return sum(((log_q[i] + log_P[S - {i}] - log_P[S]).exp() * fx[i] for i in S), torch.zeros_like(fx[0]))

    def points(size: Size) -> list[Ask]:
        if size.states is not None and size.states < samples:
            raise ValueError(f"unordered_set draws {samples} different states; there are {size.states}")
        return [Ask.VALUE] * samples

    def gumbels(size: Size) -> list[Noise]:
        assert size.states is not None
        return [Noise("gumbel", (), (size.states,))]

    return Estimator(
        "unordered_set",
        points,
        draw,
        combine,
        noise=gumbels,
        value=value,
        states=states,
        settings={"samples": samples, "states": states},
        source="arXiv:2002.06043",
    )
