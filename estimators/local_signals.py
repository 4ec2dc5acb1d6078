"""The score function with local signals: every site is credited with the addends of f that lie downstream of it, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator
from estimators.score_function import draw
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

BASELINES = ("none", "leave_one_out")


def layer_of(q: Family, sites: int) -> Tensor:
    """`[D]`: the layer of each site, 0 where there are none."""
    found = torch.zeros(sites, dtype=torch.long)
    for index, members in enumerate(q.layers):
        found[members] = index
    return found


def last_layer(q: Family, parts: Tensor) -> Tensor:
    """`[T]`: the last layer that each addend depends on; -1 where it depends on none."""
    return torch.where(parts > 0, layer_of(q, parts.shape[1]).to(parts.device), -1).amax(1)


def downstream(q: Family, parts: Tensor) -> Tensor:
    """`[T, D]`: addend t depends on site d, or on a site of a layer after d's, or of no layer, which may depend on it."""
    if not q.factorised:
        return (parts > 0).any(1, keepdim=True).expand_as(parts)
    layer = layer_of(q, parts.shape[1]).to(parts.device)
    return (parts > 0) | (last_layer(q, parts)[:, None] > layer)


def across_sites(q: Family, weight: Tensor, s: Tensor) -> Tensor:
    """`weight` `[..., D]`, one number for each site, with the axes of s, the sites' scores, that are not the sites'."""
    behind = q.event_axes - 1
    before = s.ndim - weight.ndim - behind
    return weight.reshape(*weight.shape[:-1], *[1] * before, weight.shape[-1], *[1] * behind)


def local_signals(samples: int = 1, baseline: str = "none") -> Estimator:
    """Score function with local signals: each site is weighted by the addends of f that it can change, and by no others.

    For any family, and an f that gives its addends (`parts`): in a Chain, an addend is downstream of a site if it depends on it or
    on a later layer, which makes this the reward-to-go of a policy gradient. Unbiased for Expectation: what lies upstream of a
    site, given which its score has mean 0, is left out. K evaluations of f, no gradient of f. baseline=leave_one_out takes off,
    site by site, the mean of the other samples' signals.
    Ranganath, Gerrish & Blei 2014, arXiv:1401.0118 (Rao-Blackwellised); Mnih & Gregor 2014, arXiv:1402.0030 (local signals);
    Schulman, Heess, Weber & Abbeel 2015, arXiv:1506.05254.
    """
    one_of("local_signals", BASELINES, baseline=baseline)
    at_least("local_signals", 1 if baseline == "none" else 2, samples=samples)

    def combine(q: Family, x: Tensor, fx: Tensor, parts: Tensor) -> Tensor:
        """g_i = 1/K sum_k (c_ki - b_ki) grad log q(x_ki | upstream), c_ki = sum of f_t(x_k) over the addends t downstream of i,
        b_ki = mean_{j != k} c_ji."""
        c = fx @ downstream(q, parts).to(fx)
        weight = c / samples if baseline == "none" else (c - c.mean(0)) / (samples - 1)
        s = q.local(x)
        return q.pull(x, across_sites(q, weight, s) * s)

    return Estimator(
        "local_signals",
        [Ask.SAMPLE | Ask.PARTS] * samples,
        draw,
        combine,
        claims={"Expectation": "unbiased"},
        settings={"samples": samples, "baseline": baseline},
        source="arXiv:1506.05254",
    )
