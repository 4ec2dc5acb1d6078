"""GO: the mean's derivative carried by the distribution function, one step up in each site at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Ask, Estimator, Size, across
from estimators.replaced import replaced
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def of_bits(q: Any, z: Tensor) -> Tensor:
    """p where z = 0, for F(0) = 1 - p; F(1) = 1."""
    return (1 - z) * q.p


def of_categories(q: Any, z: Tensor) -> Tensor:
    """-(1[c <= z] - F(z)) p_c / q(z): the slope of F(z) = sum_{c <= z} p_c in the logit of c. Both F and 1 - F are sums of p."""
    p = q.p
    up_to = z.flip(-1).cumsum(-1).flip(-1)  # 1[c <= z]
    F = (up_to * p).sum(-1, keepdim=True)
    above = ((1 - up_to) * p).sum(-1, keepdim=True)
    return torch.where(up_to > 0, -above, F) * p / (z * p).sum(-1, keepdim=True)


def of_counts(q: Any, z: Tensor) -> Tensor:
    """lambda: dF(z)/dlambda = -q(z)."""
    return q.rate.expand(z.shape)


def of_failures(q: Any, z: Tensor) -> Tensor:
    """-(z + 1) (1 - p): F(z) = 1 - (1 - p)^(z + 1)."""
    return -(z + 1) * (-q.theta).sigmoid()


def of_successes(q: Any, z: Tensor) -> Tensor:
    """(n - z) p: dF(z)/dp = -(n - z) q(z) / (1 - p)."""
    return (q.n - z) * q.p


WEIGHTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bernoulli": of_bits,
    "categorical": of_categories,
    "poisson": of_counts,
    "geometric": of_failures,
    "binomial": of_successes,
}


def step_up(q: Any, z: Tensor) -> Tensor:
    """z + 1 in every site; the largest value, whose weight is nil, stays."""
    if q.event_axes == 2:
        return torch.cat([torch.zeros_like(z[..., :1]), z[..., :-2], z[..., -2:].sum(-1, keepdim=True)], -1)
    largest = 1 if q.name == "bernoulli" else getattr(q, "n", math.inf)
    return (z + 1).clamp(max=largest)


def go(samples: int = 1) -> Estimator:
    """GO: the slope of each site's distribution function times f with one more in that site, less f.

    For discrete variables in an order (categories in that of their logits); nothing is assumed of f. Of continuous variables, where
    the difference is a derivative, it is `pathwise`; of Poisson variables `measure_valued_poisson`. Unbiased for Expectation and
    Elbo; K (1 + D) evaluations of f, no gradient of f. The weights of categories have q(z) below them: a category that is rare, but
    lies between others that are not, makes the variance large. Cong, Zhao, Bai & Carin, ICLR 2019, arXiv:1901.06020.
    """
    at_least("go", 1, samples=samples)

    def points(size: Size) -> list[Ask]:
        return [Ask.SAMPLE] * samples + [Ask.VALUE] * samples * size.D

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z_k ~ q, then for each site z_k with one more there; x: [K (1 + D), ..., *event]."""
        z = q.sample(noise)
        return torch.cat([z, replaced(z, step_up(q, z)[None], -q.event_axes).flatten(0, 1)])

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = 1/K sum_k -dF_d(z_kd)/dtheta / q_d(z_kd) [f(z_k with z_kd + 1) - f(z_k)]."""
        z, f_z = x[:samples], fx[:samples]
        f_up = fx[samples:].unflatten(0, (-1, samples)).movedim(0, -1)  # [K, ..., D]
        w = WEIGHTS[q.name](q, z)
        return (across(f_up - f_z[..., None], w) * w).mean(0)

    return Estimator(
        "go",
        points,
        draw,
        combine,
        list(WEIGHTS),
        noise=lambda size: [n._replace(front=(samples,)) for n in size.family.noise(size)],
        kernel="estimators.kernels.go:go",
        settings={"samples": samples},
        source="arXiv:1901.06020",
    )
