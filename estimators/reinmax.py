"""ReinMax: straight-through of second order, from Heun's method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Claim, Estimator
from estimators.relaxation import FAMILIES, check_temperature, jacobian, soft

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family


def draw(q: Family, noise: Tensor) -> Tensor:
    """x ~ q; x: [1, ..., *event]."""
    return q.sample(noise)


def reinmax(temperature: float = 1.0) -> Estimator:
    """ReinMax: the trapezoid rule in place of straight-through's one-sided slope.

    Assumes f differentiable at the points of its support. At temperature 1 its mean replaces f(a) - f(b), two values of one
    site with the other sites as drawn, by 1/2 (grad f(a) + grad f(b)) . (a - b): exact where f is quadratic in each site
    given the others, however the sites are coupled, and so wherever f is quadratic. Biased otherwise, for Expectation and
    Elbo; log q, linear in the points, changes none of this. For bits g = [2 pi (1 - pi) - 1/2 p (1 - p)] f'(b), where
    pi = 1/2 (p + b). One evaluation and gradient of f. Liu, Dong, Liu, Yu & Gao 2023, arXiv:2304.08612.
    """
    check_temperature("reinmax", temperature)

    def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 2 J(pi) grad f(x) - 1/2 J(p) grad f(x), pi = 1/2 (softmax(theta / tau) + x), p = softmax(theta)."""
        pi = 0.5 * (soft(q, q.theta / temperature) + x[0])
        return 2 * jacobian(q, pi, dfx[0]) - 0.5 * jacobian(q, q.mean, dfx[0])

    def quadratic(problem: Problem) -> bool:
        return temperature == 1 and problem.degree is not None and problem.degree <= 2

    claim = Claim("biased", unless=quadratic, because="f is quadratic and the temperature 1")
    claims = {"Expectation": claim, "Elbo": claim}
    points = [Ask.SAMPLE | Ask.GRADIENT]
    return Estimator(
        "reinmax",
        points,
        draw,
        combine,
        FAMILIES,
        claims,
        kernel="estimators.kernels.straight_through:reinmax",
        settings={"temperature": temperature},
        source="arXiv:2304.08612",
    )
