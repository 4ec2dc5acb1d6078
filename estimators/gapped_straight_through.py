"""Gapped straight-through: the soft point that stands for a sample is made from it, without noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from estimators.base import BIASED, Ask, Estimator
from estimators.relaxation import FAMILIES, check_temperature, jacobian, soft
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw(q: Family, noise: Tensor) -> Tensor:
    """x ~ q; x: [1, ..., *event]."""
    return q.sample(noise)


def gapped_straight_through(temperature: float = 1.0, gap: float = 1.0, adaptive: bool = False) -> Estimator:
    """Gapped straight-through (GST): the sample's logit lifted to the largest, the others pushed a gap below it.

    Assumes f differentiable at the points of its support. Where gumbel_straight_through has noise decide how far the sample's
    logit is ahead, here it is moved, and the others are, only as far as puts it first by `gap`: nothing is random given the
    sample. `adaptive` puts -log(1 - pi) / pi, pi the sample's probability, for the gap. Biased for Expectation and Elbo, for
    linear f too; one evaluation and gradient of f. Fan, Chi, Rudnicky & Ramadge 2022, arXiv:2206.07235.
    """
    check_temperature("gapped_straight_through", temperature)
    at_least("gapped_straight_through", 0, gap=gap)

    def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/tau J(y) grad f(x), y = softmax(l' / tau), l' = l + m1 - m2.

        m1 = (max l - l) x, m2 = (1 - x) max(0, l - max l + gap). A bit has logits (l, 0), and the difference of its two l' is
        s max(s l, gap), s = +-1.
        """
        if q.name == "bernoulli":
            s = 2 * x[0] - 1
            moved = s * torch.maximum(s * q.theta, width(q, x[0]))
        else:
            most = q.theta.amax(-1, keepdim=True)
            m1 = (most - q.theta) * x[0]
            m2 = (1 - x[0]) * (q.theta - most + width(q, x[0])).clamp(min=0)
            moved = q.theta + m1 - m2
        return 1 / temperature * jacobian(q, soft(q, moved / temperature), dfx[0])

    def width(q: Family, x: Tensor) -> Tensor:
        """The gap, for every site."""
        return surprise(q, x) if adaptive else torch.full_like(q.theta, gap)

    return Estimator(
        "gapped_straight_through",
        [Ask.SAMPLE | Ask.GRADIENT],
        draw,
        combine,
        FAMILIES,
        BIASED,
        kernel="estimators.kernels.straight_through:gapped_straight_through",
        settings={"temperature": temperature, "gap": gap, "adaptive": adaptive},
        source="arXiv:2206.07235",
    )


def surprise(q: Family, x: Tensor) -> Tensor:
    """-log(1 - pi) / pi of the probability pi of each site's sample: `[..., D]`, or `[..., D, 1]` of categories.

    log(1 - pi) is that of the other values together, of which nothing is lost where pi rounds to 1.
    """
    if q.name == "bernoulli":
        s = (2 * x - 1) * q.theta
        return softplus(s) / s.sigmoid()
    log_p = q.theta.log_softmax(-1)
    other = torch.where(x > 0, -torch.inf, log_p).logsumexp(-1, keepdim=True)
    return -other / (x * log_p).sum(-1, keepdim=True).exp()
