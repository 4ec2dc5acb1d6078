"""Gumbel-Softmax: f at a soft point, or its straight-through form with f at the hard point of the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import BIASED, Ask, Claim, Estimator
from estimators.relaxation import FAMILIES, check_temperature, jacobian, perturbed, soft
from estimators.relaxed_objective import relaxed_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family


def gumbel_softmax(temperature: float = 1.0) -> Estimator:
    """Gumbel-Softmax (the Concrete relaxation; for bits binary Concrete): pathwise through a softened sample.

    Assumes f differentiable and defined between the points of its support. For Elbo the integrand is f - log q with log q
    continued linearly between the points, not with the density of the Concrete distribution. Biased: the gradient of the
    relaxed objective E f(y), unbiased for that; the model's gradient is that of f(y) as well. One evaluation and gradient of f.
    Jang, Gu & Poole 2017, arXiv:1611.01144; Maddison, Mnih & Teh 2017, arXiv:1611.00712.
    """
    check_temperature("gumbel_softmax", temperature)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """y = softmax((theta + G) / tau); sigmoid((theta - logit u) / tau) for a bit; y: [1, ..., *event]."""
        return soft(q, perturbed(q, noise) / temperature)

    def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/tau J(y) grad f(y)."""
        return 1 / temperature * jacobian(q, x[0], dfx[0])

    def value(fx: Tensor) -> Tensor:
        """L is estimated by the relaxed objective."""
        return fx[0]

    def target(problem: Problem) -> Tensor | None:
        if problem.family_name == "bernoulli":
            return relaxed_gradient(problem, lambda z: (z / temperature).sigmoid())
        return relaxed_gradient(problem, lambda z: (z / temperature).softmax(-1))

    claim = Claim("biased", target=target, of="the relaxed objective E f(y)")
    points = [Ask.RELAXED | Ask.GRADIENT]
    return Estimator(
        "gumbel_softmax",
        points,
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        value=value,
        kernel="estimators.kernels.gumbel_softmax:gumbel_softmax",
        settings={"temperature": temperature},
        source="arXiv:1611.01144",
    )


def gumbel_straight_through(temperature: float = 1.0) -> Estimator:
    """Straight-through Gumbel-Softmax: the gradient of f at the hard sample, passed back through the soft point of its noise.

    Assumes f differentiable at the points of its support. Biased for Expectation and Elbo, for linear f too; one evaluation and
    gradient of f. Jang, Gu & Poole 2017, arXiv:1611.01144, section 2.2.
    """
    check_temperature("gumbel_straight_through", temperature)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """x = onehot(argmax(theta + G)), a sample of q; x: [1, ..., *event]."""
        return q.sample(noise)

    def combine(q: Family, noise: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/tau J(y) grad f(x), y = softmax((theta + G) / tau)."""
        y = soft(q, perturbed(q, noise[0]) / temperature)
        return 1 / temperature * jacobian(q, y, dfx[0])

    points = [Ask.SAMPLE | Ask.GRADIENT]
    return Estimator(
        "gumbel_straight_through",
        points,
        draw,
        combine,
        FAMILIES,
        BIASED,
        kernel="estimators.kernels.gumbel_softmax:gumbel_straight_through",
        settings={"temperature": temperature},
        source="arXiv:1611.01144, section 2.2",
    )
