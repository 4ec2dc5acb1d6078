"""Sum and sample: some states summed with their probabilities, and one sample of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator
from estimators.enumeration import check_states, different, first, gumbels, listed, log_rest
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

CHOSEN = ("largest", "drawn")
STEPS = 1024  # of a unit of log q: states that are as likely but for rounding are equals


def largest_and_one(log_q: Tensor, noise: Tensor, k: int) -> Tensor:
    """Places of the k - 1 largest states, the first of equals first, and of one draw from the rest: `[..., k]`."""
    rank = (log_q * STEPS).round().sort(dim=-1, descending=True, stable=True).indices
    top = rank[..., : k - 1].expand(*noise.shape[:-1], -1)
    rest = (log_q + noise).scatter(-1, top, -torch.inf).argmax(-1, keepdim=True)
    return torch.cat([top, rest], -1)


def sum_and_sample(samples: int = 2, chosen: str = "largest", baseline: bool = False, states: int = 1024) -> Estimator:
    """Sum and sample: k - 1 states summed with their probabilities, and one sample of what is left: top-k Rao-Blackwellisation.

    For any finite family of at most `states` points. chosen: the states summed are the `largest`, or the first k - 1 `drawn`
    without replacement, and the sample is the next. baseline: the mean of f over the states summed (samples >= 2), the same
    whatever the sample. Nothing is assumed of f. Unbiased for Expectation and Elbo; k evaluations of f, no gradient of f;
    without the baseline never more variance than reinforce with one sample, which it is for k = 1, and exact where k is the
    whole support. Liang et al. 2018, arXiv:1807.02322 (MAPO); Liu et al. 2019, arXiv:1810.04777; drawn: Kool, van Hoof & Welling
    2020, arXiv:2002.06043.
    """
    at_least("sum_and_sample", 1, samples=samples)
    one_of("sum_and_sample", CHOSEN, chosen=chosen)
    check_states("sum_and_sample", samples, states)
    if baseline and samples < 2:
        raise ValueError(
            f"sum_and_sample[samples={samples}]: the baseline comes from the states summed, so samples must be at least 2"
        )
    places = largest_and_one if chosen == "largest" else first

    def draw(q: Family, noise: Tensor) -> Tensor:
        """S, k - 1 states, and z' ~ q(. | not S); x: [k, ..., *event]."""
        support, log_q = listed(q, noise.ndim - 1)
        return support[places(log_q, noise, samples).movedim(-1, 0)]

    def weights(q: Family, noise: Tensor) -> Tensor:
        """q(z) of the states summed, 1 - q(S) of the sample: [k, ...]."""
        _, log_q = listed(q, noise.ndim - 1)
        log_q = log_q.expand_as(noise)
        found = places(log_q, noise, samples)
        summed = found[..., :-1]
        return torch.cat([log_q.gather(-1, summed), log_rest(log_q, summed)[..., None]], -1).exp().movedim(-1, 0)

    def combine(q: Family, noise: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """g = sum_{z in S} q(z) (f(z) - b) grad log q(z) + (1 - q(S)) (f(z') - b) grad log q(z'), b = sum_S q f / q(S) or 0."""
        weight = weights(q, noise)
        b = (weight[:-1] * fx[:-1]).sum(0) / weight[:-1].sum(0) if baseline else 0
        return q.score(x, weight * (fx - b))

    def value(q: Family, noise: Tensor, fx: Tensor) -> Tensor:
        """L = sum_{z in S} q(z) f(z) + (1 - q(S)) f(z')."""
        return (weights(q, noise) * fx).sum(0)

    return Estimator(
        "sum_and_sample",
        different("sum_and_sample", samples),
        draw,
        combine,
        noise=gumbels,
        value=value,
        states=states,
        kernel="estimators.kernels.without_replacement:sum_and_sample",
        settings={"samples": samples, "chosen": chosen, "baseline": baseline, "states": states},
        source="arXiv:1810.04777",
    )
