"""Local expectation gradients: each site summed over all its values, the others as they were drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Size, across
from estimators.replaced import replaced
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def categories(event: tuple[int, ...]) -> int:
    """C: the values of a site."""
    return event[1] if len(event) == 2 else 2


def others(q: Family, x: Tensor) -> Tensor:
    """Every site's C - 1 other values, `[C - 1, ..., *event]`: the other bit; the categories that follow, in a circle."""
    if q.event_axes == 1:
        return (1 - x)[None]
    return torch.stack([x.roll(j, -1) for j in range(1, x.shape[-1])])


def probability(q: Family, v: Tensor) -> Tensor:
    """q_d(v_d) of every site: `[..., *event] -> [..., D]`; sigmoid(+-theta) of a bit, where 1 - p would lose digits."""
    if q.event_axes == 1:
        return ((2 * v - 1) * q.theta).sigmoid()
    return (v * q.mean).sum(-1)


def local_expectation(samples: int = 1) -> Estimator:
    """Local expectation gradients (LEG) of bits and categories, f at the draw itself used again for every site.

    Nothing is assumed of f. Unbiased for Expectation and Elbo; K (1 + D (C - 1)) evaluations of f, C the values of a site, no
    gradient of f; the model's gradient is that at the K draws. It is the score function's mean over each site given the others, so
    it never has more variance; on one site, exact.
    Titsias & Lazaro-Gredilla, NeurIPS 2015, arXiv:1503.01494; for bits the marginalised score function of Tokui & Sato 2017,
    arXiv:1611.01239; for categories IndeCateR, De Smet et al. 2023, arXiv:2311.12569.
    """
    at_least("local_expectation", 1, samples=samples)

    def points(size: Size) -> list[Ask]:
        return [Ask.SAMPLE] * samples + [Ask.VALUE] * samples * size.D * (categories(size.event) - 1)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z_k ~ q, then for every other value of a site, and for every site, z_k with it; x: [K (1 + (C - 1) D), ..., *event]."""
        z = q.sample(noise)
        return torch.cat([z, replaced(z, others(q, z), -q.event_axes).flatten(0, 1)])

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = 1/K sum_k sum_v q_d(v) (f(z_k with z_kd = v) - f(z_k)) grad log q_d(v).

        sum_v q_d(v) grad log q_d(v) = 0, so that f(z_k) may be taken off, and the term of v = z_kd is nil.
        """
        z, f_z = x[:samples], fx[:samples]
        v = others(q, z)
        f_v = fx[samples:].unflatten(0, (len(v), -1, samples)).movedim(1, -1)  # [C - 1, K, ..., D]
        s = q.local(v)
        weight = probability(q, v) * (f_v - f_z[..., None]) / samples
        return (across(weight, s) * s).sum((0, 1))

    return Estimator(
        "local_expectation",
        points,
        draw,
        combine,
        ["bernoulli", "categorical"],
        noise=lambda size: [n._replace(front=(samples,)) for n in size.family.noise(size)],
        kernel="estimators.kernels.local_expectation:local_expectation",
        settings={"samples": samples},
        source="arXiv:1503.01494",
    )
