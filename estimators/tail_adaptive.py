"""Tail-adaptive f-divergence: the path derivative with the ranks of the weights in the place of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Estimator, across
from estimators.importance_weighted import HOME, PATHS, draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def descending_rank(a: Tensor) -> Tensor:
    """1 for the largest of the first axis, K for the least. argsort alone gives the places of the ordered, not their ranks."""
    return a.argsort(0, descending=True).argsort(0) + 1


def tail_adaptive(samples: int = 5, beta: float = -1.0) -> Estimator:
    """Tail-adaptive f-divergence: STL of the ELBO with samples weighted by the ranks of their importance weights.

    Assumes f continuous and differentiable almost everywhere. The coefficient of a sample is P(w >= w_k)^beta, the tail of its
    weight, estimated by rank_k / K: bounded, whatever that tail is. No fixed objective has this gradient in theta: biased for Elbo
    unless beta = 0 (or K = 1), where it is STL; -1 leans to the inclusive divergence. In the model it is the ELBO's. K evaluations
    and gradients of f. Wang, Liu & Liu 2018, arXiv:1810.11943; a published code takes argsort for the rank.
    """
    at_least("tail_adaptive", 1, samples=samples)
    at_least("tail_adaptive", -1, beta=beta)
    if beta > 0:
        raise ValueError(f"tail_adaptive[beta={beta}]: beta goes from -1 to 0")

    def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = sum_k gamma_k (dx_k/dtheta)' grad log w_k / sum_j gamma_j, gamma_k = rank_k^beta, 1 the rank of the largest."""
        gamma = descending_rank(fx).to(fx) ** beta
        return q.path(x, across(gamma / gamma.sum(0), dfx) * dfx)

    return Estimator(
        "tail_adaptive",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        PATHS,
        claims={"Elbo": "biased" if beta and samples > 1 else "unbiased"},
        kernel=HOME + "tail_adaptive",
        settings={"samples": samples, "beta": beta},
        source="arXiv:1810.11943",
    )
