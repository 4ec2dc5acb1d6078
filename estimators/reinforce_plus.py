"""REINFORCE+: the score function with f at an independent draw as the baseline of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Estimator
from estimators.score_function import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def reinforce_plus(samples: int = 1) -> Estimator:
    """REINFORCE+: every sample's baseline is f at another draw, made for it alone.

    Any family, any f. Unbiased for Expectation and Elbo; 2 K evaluations of f, no gradient of f; the model's gradient is that at
    the K samples. Its variance is the exact-mean baseline's and Var f E[s_i^2] / K more; with K = 1 it is twice that of
    rloo[samples=2], which takes the same two evaluations, less the square of the gradient.
    Liu, Regier, Tripuraneni, Jordan & McAuliffe 2019, arXiv:1810.04777.
    """
    at_least("reinforce_plus", 1, samples=samples)

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_k (f(x_k) - f(x'_k)) grad log q(x_k); x: [2 K, ..., *event], the x'_k last."""
        return q.score(x[:samples], (fx[:samples] - fx[samples:]) / samples)

    return Estimator(
        "reinforce_plus",
        [Ask.SAMPLE] * samples + [Ask.VALUE] * samples,
        draw,
        combine,
        kernel="estimators.kernels.score_function:reinforce_plus",
        settings={"samples": samples},
        source="arXiv:1810.04777",
    )
