"""Straight-through: f's gradient at the sample, passed back as if the sample were its mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from estimators.base import Ask, Claim, Estimator
from estimators.relaxation import FAMILIES, check_temperature, jacobian, soft
from problems.truth import enumerated, terms

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


def fair(problem: Problem) -> bool:
    """Every site takes one of two values, each with probability 1/2."""
    theta = problem.site_parameters(problem.theta)
    if problem.family_name == "bernoulli":
        return not theta.any()
    return theta.shape[-1] == 2 and bool((theta[..., 0] == theta[..., 1]).all())


def exact(problem: Problem) -> bool:
    """One slope is as good as two: f is linear, or it is quadratic and this is ReinMax."""
    return linear(problem) or (problem.degree == 2 and fair(problem))


CLAIM = Claim("biased", unless=exact, because="f is linear, or quadratic with every bit fair")


def straight_through() -> Estimator:
    """Straight-through with the derivative of the mean: p (1 - p) for bits, that of the softmax for categories.

    Assumes f differentiable at the points of its support. Biased for Expectation and Elbo, unless f is linear: log q, which
    is linear in the points, does not spoil that. Bits with every p = 1/2, where training often starts, hide the bias of a
    quadratic f: there it is ReinMax. One evaluation and gradient of f.
    Bengio, Leonard & Courville 2013, arXiv:1308.3432.
    """
    points = [Ask.SAMPLE | Ask.GRADIENT]
    return Estimator(
        "straight_through",
        points,
        draw,
        combine,
        FAMILIES,
        {"Expectation": CLAIM, "Elbo": CLAIM},
        kernel="estimators.kernels.straight_through:straight_through",
        source="arXiv:1308.3432",
    )


def simple() -> Estimator:
    """SIMPLE, straight-through for subsets: the derivative of the exact marginals in place of the sample's.

    Assumes f differentiable at the points of its support. The subset is drawn exactly, and d mu / d theta is the covariance of its
    sites given that k of them are chosen; for k = 1 that is the softmax's, and this straight_through. Biased for Expectation and
    Elbo, unless f is linear. One evaluation and gradient of f. Ahmed, Zeng, Niepert & Van den Broeck 2023, arXiv:2210.01941.
    """
    claim = Claim("biased", unless=linear, because="f is linear")
    return Estimator(
        "simple",
        [Ask.SAMPLE | Ask.GRADIENT],
        draw,
        combine,
        ["subset"],
        {"Expectation": claim, "Elbo": claim},
        source="arXiv:2210.01941",
    )


def decoupled_straight_through(forward: float = 1.0, backward: float = 1.0) -> Estimator:
    """Decoupled straight-through: drawn at one temperature, passed back through the softmax of another.

    Assumes f differentiable at the points of its support. Forward temperature 1 draws from q, and backward temperature 1 is then
    straight_through. Another forward temperature draws from another distribution than q, softmax(theta / tau_f): it is scored on
    the objective of q all the same, as biased. Where the two are equal and f is linear its mean is the gradient of
    E f under the distribution that it draws from. One evaluation and gradient of f.
    Shah, Yan, Mozer & Liu 2024, arXiv:2410.13331 (its second version; the first does the same to the Gumbel-Softmax).
    """
    check_temperature("decoupled_straight_through", forward, "forward")
    check_temperature("decoupled_straight_through", backward, "backward")

    def draw(q: Family, noise: Tensor) -> Tensor:
        """x ~ softmax(theta / tau_f); x: [1, ..., *event]."""
        return q.at(q.theta / forward).sample(noise)

    def combine(q: Family, dfx: Tensor) -> Tensor:
        """g = 1/tau_b J(y) grad f(x), y = softmax(theta / tau_b)."""
        return 1 / backward * jacobian(q, soft(q, q.theta / backward), dfx[0])

    def value(fx: Tensor) -> Tensor:
        """L is estimated at the point drawn."""
        return fx[0]

    def tempered(problem: Problem) -> Tensor | None:
        """The gradient of E f under softmax(theta / tau_f)."""
        if forward != backward or not linear(problem) or terms(problem) is None:
            return None
        return enumerated(replace(problem, encode=lambda w, data: problem.site_parameters(w, data) / forward)).gradient

    claims = {
        "Expectation": Claim("biased", target=tempered, of="E f under the distribution drawn from, where f is linear"),
        "Elbo": Claim("biased"),
    }
    return Estimator(
        "decoupled_straight_through",
        [(Ask.SAMPLE if forward == 1 else Ask.VALUE) | Ask.GRADIENT],
        draw,
        combine,
        FAMILIES,
        claims if (forward, backward) != (1, 1) else {"Expectation": CLAIM, "Elbo": CLAIM},
        value=value,
        kernel="estimators.kernels.straight_through:decoupled_straight_through",
        settings={"forward": forward, "backward": backward},
        source="arXiv:2410.13331",
    )
