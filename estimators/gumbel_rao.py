"""Gumbel-Rao: straight-through Gumbel-Softmax with the noise behind the sample integrated out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import BIASED, Ask, Estimator, Noise, Size
from estimators.conditional_relaxation import conditioned
from estimators.relaxation import FAMILIES, check_temperature, jacobian, soft
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
    """x ~ q; x: [1, ..., *event]."""
    return q.sample(noise[0])


def gumbel_rao(temperature: float = 1.0, samples: int = 10) -> Estimator:
    """Gumbel-Rao: gumbel_straight_through averaged over the noise that gives the same sample.

    Assumes f differentiable at the points of its support. The mean over `samples` = M draws of the soft point given the hard one
    estimates E[g | x] of gumbel_straight_through: its mean, and so its bias for Expectation and Elbo, is the same, its variance
    never more, and as small as can be without another f as M grows. One evaluation and gradient of f whatever M, the cost of
    which is noise. The soft point's derivative is taken with its noise held fixed, as public code does; the paper's text
    would have it run through the conditional noise too, and that has another mean.
    Paulus, Maddison & Krause 2021, arXiv:2010.04838.
    """
    check_temperature("gumbel_rao", temperature)
    at_least("gumbel_rao", 1, samples=samples)

    def noise(size: Size) -> list[Noise]:
        """That of x, and M fresh draws for the soft points."""
        (own,) = size.family.noise(size)
        return [own._replace(front=(1,)), own._replace(front=(samples,))]

    def combine(q: Family, noise: tuple[Tensor, Tensor], x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/M sum_m 1/tau J(y_m) grad f(x), y_m = softmax(z_m / tau), z_m ~ theta + G given argmax(theta + G) = x."""
        z, _ = conditioned(q, x[0], noise[1])
        return (1 / temperature * jacobian(q, soft(q, z / temperature), dfx[0])).mean(0)

    return Estimator(
        "gumbel_rao",
        [Ask.SAMPLE | Ask.GRADIENT],
        draw,
        combine,
        FAMILIES,
        BIASED,
        noise=noise,
        kernel="estimators.kernels.gumbel_softmax:gumbel_rao",
        settings={"temperature": temperature, "samples": samples},
        source="arXiv:2010.04838",
    )
