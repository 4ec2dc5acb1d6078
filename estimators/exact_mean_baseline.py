"""The score function with the mean of f itself, summed over the support, as its baseline: what a perfect constant baseline buys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size
from estimators.enumeration import spread
from estimators.exact import every_state
from estimators.exact import value as mean
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw_and_list(q: Family, noise: Tensor) -> Tensor:
    """x_k ~ q, then every point of the support; x: [K + S, ..., *event]."""
    samples, support = q.sample(noise), q.support()
    every = spread(support, samples.ndim - support.ndim)
    return torch.cat([samples, every.expand(-1, *samples.shape[1:])])


def exact_mean_baseline(samples: int = 1, states: int = 128) -> Estimator:
    """REINFORCE with the exact mean of f as its baseline: the oracle that learned and sampled baselines approach.

    For any finite family of at most `states` points; nothing is assumed of f. Unbiased for Expectation and Elbo; K + S evaluations
    of f, S the points of the support, no gradient of f: for so many `exact` has the gradient itself, so that this is a yardstick.
    The mean is not the constant of least variance (`optimal_baseline`). As R* in the code of Titsias & Shi 2022,
    arXiv:2111.05300.
    """
    at_least("exact_mean_baseline", 1, samples=samples, states=states)

    def points(size: Size) -> list[Ask]:
        return [Ask.SAMPLE] * samples + every_state(size)

    def noise(size: Size) -> list[Noise]:
        return [n._replace(front=(samples,)) for n in size.family.noise(size)]

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_k (f_k - E f) grad log q(x_k), E f = sum_x q(x) f(x)."""
        return q.score(x[:samples], (fx[:samples] - mean(q, x[samples:], fx[samples:])) / samples)

    return Estimator(
        "exact_mean_baseline",
        points,
        draw_and_list,
        combine,
        noise=noise,
        states=states,
        settings={"samples": samples, "states": states},
        source="arXiv:2111.05300",
    )
