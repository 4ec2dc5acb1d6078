"""Path sample-analytic estimator: what flipping a bit does to f, through all that depends on it, to first order in the flips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, Noise, Size
from estimators.replaced import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def points(size: Size) -> list[Ask]:
    """A sample, and it with each bit flipped."""
    return [Ask.SAMPLE] + [Ask.VALUE] * size.D


def draw(q: Family, noise: Tensor) -> Tensor:
    """x ~ q, then x with each bit flipped, the bits after it as they were; x: [1 + D, ..., D]."""
    x = q.sample(noise)
    return torch.cat([x, replaced(x[0], 1 - x)])


def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
    """g = sum_j dp(x_j)/dtheta d_j, d_i = f(x) - f(x with i flipped) + sum_{j after i} (p(x_j) - p(x_j | i flipped)) d_j.

    p(x_j) is the chance of the bit that was drawn, given those before it, dp(x_j)/dl_j = +-p (1 - p); d_j stands for what f loses
    where bit j is flipped and the later ones are drawn again, and is found from the last layer to the first.
    """
    s, logits = 2 * x[0] - 1, q.params(x).expand(x.shape)
    l, flipped = logits[0], logits[1:]
    loses = ((s * l).sigmoid() - (s * flipped).sigmoid()).movedim(0, -2)  # [..., i, j]
    d = (fx[0] - fx[1:]).movedim(0, -1)
    for layer in reversed(q.layers):
        d[..., layer] += (loses[..., layer, :] @ later(d, layer)[..., None])[..., 0]
    return q.pull(x[:1], (s * l.sigmoid() * (-l).sigmoid() * d)[None])


def later(d: Tensor, layer: Tensor) -> Tensor:
    """d of the layers after this one, which are done; 0 for the others."""
    return torch.where(torch.arange(d.shape[-1], device=d.device) > layer[-1], d, 0)


def psa() -> Estimator:
    """Path sample-analytic estimator (PSA) for bits in layers: flips summed over, their effects added up layer by layer.

    Nothing is assumed of f. Of independent bits it is local_expectation of one sample, without bias for Expectation and Elbo. Of
    layers it is biased, but for the last layer's weights: where several bits of a layer change together, each is counted alone,
    beside the others as they were drawn; so is what an earlier layer does to f itself, which in the paper's networks is nothing.
    1 + D evaluations of f, no gradient of f. Shekhovtsov, Yanush & Flach 2020, arXiv:2006.03143.
    """
    claim = Claim(
        "biased", unless=lambda problem: problem.family_name == "bernoulli", because="the bits are independent"
    )
    return Estimator(
        "psa",
        points,
        draw,
        combine,
        ["bernoulli", "chain of bernoulli"],
        {"Expectation": claim, "Elbo": claim},
        noise=[Noise("uniform", (1,))],
        source="arXiv:2006.03143",
    )
