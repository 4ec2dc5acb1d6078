"""Straight-through: f's gradient at the sample, passed back as if the sample were its mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Claim, Estimator

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family


def draw(q: Family, noise: Tensor) -> Tensor:
    """x ~ q; x: [1, ..., *event]."""
    return q.sample(noise)


def combine(q: Family, dfx: Tensor) -> Tensor:
    """g = (d mean / d theta)' grad f(x)."""
    return q.mean_pull(dfx[0])


def linear(problem: Problem) -> bool:
    """f is affine in x."""
    return problem.degree is not None and problem.degree <= 1


def straight_through() -> Estimator:
    """Straight-through with the derivative of the mean: p (1 - p) for bits, that of the softmax for categories.

    Assumes f differentiable at the points of its support. Biased for Expectation and Elbo, unless f is linear: log q, which
    is linear in the points, does not spoil that. Bits with every p = 1/2, where training often starts, hide the bias of a
    quadratic f: there it is ReinMax. One evaluation and gradient of f.
    Bengio, Leonard & Courville 2013, arXiv:1308.3432.
    """
    claim = Claim("biased", unless=linear, because="f is linear")
    claims = {"Expectation": claim, "Elbo": claim}
    points = [Ask.SAMPLE | Ask.GRADIENT]
    families = ["bernoulli", "categorical"]
    return Estimator(
        "straight_through",
        points,
        draw,
        combine,
        families,
        claims,
        kernel="estimators.kernels.straight_through:straight_through",
        source="arXiv:1308.3432",
    )
