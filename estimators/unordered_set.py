"""The unordered set estimator: samples without replacement, weighed as if their order had been forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator
from estimators.enumeration import check_states, different, first, gumbels, listed, log_rest
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

Indices = frozenset[int]


def log_drawing(log_q: Tensor, log_left: Tensor) -> Mapping[Indices, Tensor]:
    """For each A within S: log P(A), the chance that A is drawn next, in any order, when the rest of S is gone already.

    P(A) = sum_{a in A} q_a / W(A) P(A - a), where W(A) = q(A) + q(not S) is what is left to draw from; P(nothing) = 1. All terms
    are positive, so that no digits are lost where a few points hold nearly all of the mass. log_q: [k, ...], log_left: [...].
    """
    k = len(log_q)
    found = {frozenset[int](): torch.zeros_like(log_left)}
    for size in range(1, k + 1):
        for A in map(frozenset, combinations(range(k), size)):
            log_W = torch.logaddexp(log_q[list(A)].logsumexp(0), log_left)
            found[A] = torch.stack([log_q[a] + found[A - {a}] for a in A]).logsumexp(0) - log_W
    return found


def chances(q: Family, noise: Tensor, k: int) -> tuple[Tensor, Mapping[Indices, Tensor]]:
    """log q of the k points drawn, `[k, ...]`, and their `log_drawing`."""
    _, log_q = listed(q, noise.ndim - 1)
    log_q = log_q.expand_as(noise)
    places = first(log_q, noise, k)
    chosen = log_q.gather(-1, places).movedim(-1, 0)
    return chosen, log_drawing(chosen, log_rest(log_q, places))


def unordered_set(samples: int = 2, baseline: bool = True, states: int = 1024) -> Estimator:
    """Unordered set estimator: samples without replacement, Rao-Blackwellised over their order, with the built-in baseline.

    For any finite family of at most `states` points (the exact weights take a sum over the support and over 2^K subsets).
    Unbiased for Expectation and Elbo; K evaluations of f, no gradient of f; exact where K is the whole support. The baseline
    comes from the rest of the set, so that K must be 2 at least; without it, it is the mean of `sum_and_sample`'s drawn form over
    the order, and reinforce where K = 1. Kool, van Hoof & Welling 2020, arXiv:2002.06043.
    """
    at_least("unordered_set", 1, samples=samples)
    if baseline and samples < 2:
        raise ValueError(
            f"unordered_set[samples={samples}]: the baseline comes from the rest of the set, so samples must be at least 2"
        )
    check_states("unordered_set", samples, states)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """S, K points drawn without replacement; x: [K, ..., *event]."""
        support, log_q = listed(q, noise.ndim - 1)
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
            built_in = ((log_q + torch.stack(inner)).exp() * fx).sum(0) if baseline else 0
            weight.append((log_q[i] + log_P_i - log_P[S]).exp() * (fx[i] - built_in))
        return q.score(x, torch.stack(weight))

    def value(q: Family, noise: Tensor, fx: Tensor) -> Tensor:
        """L = sum_{i in S} q_i R(S, i) f_i."""
        log_q, log_P = chances(q, noise, samples)
        S = frozenset(range(samples))
        return sum(((log_q[i] + log_P[S - {i}] - log_P[S]).exp() * fx[i] for i in S), torch.zeros_like(fx[0]))

    return Estimator(
        "unordered_set",
        different("unordered_set", samples),
        draw,
        combine,
        noise=gumbels,
        value=value,
        states=states,
        kernel="estimators.kernels.without_replacement:unordered_set",
        settings={"samples": samples, "baseline": baseline, "states": states},
        source="arXiv:2002.06043",
    )
