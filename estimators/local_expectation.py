"""Local expectation gradients: each site summed over all its values, the others as they were drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size, across
from estimators.intervention import sites
from estimators.replaced import replaced
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FAMILIES = ("bernoulli", "categorical")


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


def draws_and_others(samples: int, size: Size) -> list[Ask]:
    """K draws, and K points for every other value of every site."""
    return [Ask.SAMPLE] * samples + [Ask.VALUE] * samples * size.D * (categories(size.event) - 1)


def noise_of_draws(samples: int, size: Size) -> list[Noise]:
    """The noise of K draws."""
    return [n._replace(front=(samples,)) for n in size.family.noise(size)]


def split(fx: Tensor, samples: int, values: int) -> tuple[Tensor, Tensor]:
    """f at the draws, `[K, ...]`, and with every site at each of its other values, `[C - 1, K, ..., D]`."""
    return fx[:samples], fx[samples:].unflatten(0, (values, -1, samples)).movedim(1, -1)


def over_values(at: Family, z: Tensor, fx: Tensor) -> Tensor:
    """1/K sum_v q_d(v) (f(z_k with z_kd = v) - f(z_k)) grad log q_d(v), of each draw z_k and site: `[K, ..., *site]`.

    sum_v q_d(v) grad log q_d(v) = 0, so that f(z_k) may be taken off, and the term of v = z_kd is nil. at: q_d of every site.
    """
    v = others(at, z)
    f_z, f_v = split(fx, len(z), len(v))
    s = at.local(v)
    weight = probability(at, v) * (f_v - f_z[..., None]) / len(z)
    return (across(weight, s) * s).sum(0)


def over_values_given_the_rest(q: Family, x: Tensor, fx: Tensor, samples: int) -> Tensor:
    """1/K sum_v q(v | z_k without z_kd) f(z_k with z_kd = v) grad log q_d(v), of each draw z_k and site: `[K, ..., *site]`.

    The other sites stay as they were drawn, those that follow too, so that v has the weight that they give it. These weights do
    not take the score's mean away: nothing may be taken off f.
    """
    z = x[:samples]
    v = others(q, z)
    f_z, f_v = split(fx, samples, len(v))
    log_z, log_v = split(q.log_prob(x), samples, len(v))
    both = [torch.cat([of_z[None, ..., None].expand_as(of_v[:1]), of_v]) for of_z, of_v in ((log_z, log_v), (f_z, f_v))]
    s = sites(q, z).local(torch.cat([z[None], v]))
    weight = both[0].softmax(0) * both[1] / samples
    return (across(weight, s) * s).sum(0)


def local_expectation(samples: int = 1) -> Estimator:
    """Local expectation gradients (LEG) of bits and categories, f at the draw itself used again for every site.

    Nothing is assumed of f. Unbiased for Expectation and Elbo; K (1 + D (C - 1)) evaluations of f, C the values of a site, no
    gradient of f; the model's gradient is that at the K draws. It is the score function's mean over each site given the others, so
    it never has more variance in a parameter that belongs to one site (in one that several share it may); on one site, exact. In a
    Chain too the others stay as they were drawn, and a site's values have their probability given them all (`ram` runs what follows
    again instead).
    Titsias & Lazaro-Gredilla, NeurIPS 2015, arXiv:1503.01494; for independent bits RAM, Tokui & Sato 2017, arXiv:1611.01239.
    IndeCateR's code (De Smet et al. 2023, arXiv:2311.12569) gives the same numbers for K D C evaluations; see `indecater`.
    """
    at_least("local_expectation", 1, samples=samples)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z_k ~ q, then for every other value of a site, and for every site, z_k with it; x: [K (1 + (C - 1) D), ..., *event]."""
        z = q.sample(noise)
        return torch.cat([z, replaced(z, others(q, z), -q.event_axes).flatten(0, 1)])

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = 1/K sum_k sum_v q(v | z_k without z_kd) f(z_k with z_kd = v) grad log q_d(v).

        Of independent sites q(v | ...) = q_d(v), and f(z_k) is taken off; see `over_values`.
        """
        z = x[:samples]
        return q.pull(z, over_values_given_the_rest(q, x, fx, samples) if q.layers else over_values(q, z, fx))

    return Estimator(
        "local_expectation",
        lambda size: draws_and_others(samples, size),
        draw,
        combine,
        [*FAMILIES, *(f"chain of {name}" for name in FAMILIES)],
        noise=lambda size: noise_of_draws(samples, size),
        kernel="estimators.kernels.local_expectation:local_expectation",
        settings={"samples": samples},
        source="arXiv:1503.01494",
    )
