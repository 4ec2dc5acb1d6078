"""Flipout: data that could each have a draw of the weights share its size, and each has signs of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Estimator, Noise
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.normal import Normal


def draw(q: Normal, noise: tuple[Tensor, Tensor]) -> Tensor:
    """x_ki = mu + sigma (eps_k * s_ki), eps_k ~ N(0, I) for all data, signs s_ki of datum i at every site; x: [K, ..., D]."""
    eps, sign = noise
    return q.sample(eps * sign)


def flipout(samples: int = 1) -> Estimator:
    """Pathwise gradient of perturbations that the data share but for their signs.

    For Normal variables: eps * s_i is as Normal as eps, for each datum alone, and uncorrelated between two of them, so that the
    gradients of data that have the same parameters are nearly as independent as of draws of their own (`pathwise`), at the price
    of one draw and of signs. Here every site has a sign of its own; the paper's s_i = r_i t_i', a sign for each input and each
    output of a layer, spares the product with a matrix for each datum and leaves x_ki its law. Where all data of a problem must
    share one x the signs are common too, and it is `pathwise`; so it is without data. Assumes f continuous and differentiable
    almost everywhere. Unbiased for Expectation and Elbo (the path derivative of f - log q); K evaluations and gradients of f for
    each datum.
    Wen, Vicol, Ba, Tran & Grosse, ICLR 2018, arXiv:1803.04386.
    """
    at_least("flipout", 1, samples=samples)

    def combine(q: Normal, x: Tensor, dfx: Tensor) -> Tensor:
        """g_i = 1/K sum_k (dx_ki/dtheta)' grad f_i(x_ki)."""
        return q.path(x, dfx / samples)

    return Estimator(
        "flipout",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        ["normal"],
        noise=[Noise("normal", (samples,), per_datum=False), Noise("sign", (samples,))],
        settings={"samples": samples},
        source="arXiv:1803.04386",
    )
