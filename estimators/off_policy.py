"""The score function off policy: samples of a flatter q, reweighted by importance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from estimators.base import UNBIASED, Ask, Estimator
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

CONSISTENT = dict.fromkeys(UNBIASED, "consistent")
BASELINES = ("none", "leave_one_out")


def flattened(q: Family, temperature: float) -> Family:
    """r, proportional to q^(1 / T): logits over T, or the scale of a Normal variable times sqrt T."""
    if q.name == "normal":
        mu, log_sigma = q.theta.unbind(-2)
        return q.at(torch.stack([mu, log_sigma + 0.5 * math.log(temperature)], -2))
    return q.at(q.theta / temperature)


def mean_of_the_others(log_w: Tensor, fx: Tensor) -> Tensor:
    """b_k = sum_{j != k} w_j f_j / sum_{j != k} w_j: [K, ...] -> [K, ...]."""
    K = len(log_w)
    own = torch.eye(K, dtype=torch.bool, device=log_w.device).reshape(K, K, *[1] * (log_w.ndim - 1))
    return (log_w.expand(K, *log_w.shape).masked_fill(own, -torch.inf).softmax(1) * fx).sum(1)


def off_policy(
    samples: int = 2, temperature: float = 1.5, baseline: str = "none", self_normalised: bool = False
) -> Estimator:
    """Overdispersed score function: samples of r, proportional to q^(1/T), weighted by q / r.

    For Bernoulli, categorical and Normal variables, any f. `temperature` T > 1 flattens: logits over T, Normal scales times sqrt T,
    of which no weight exceeds T^(D/2); with T = 1 it is `reinforce`. Unbiased for Expectation and Elbo, also with
    baseline=leave_one_out, where each sample's baseline is the others' weighted mean, and `rloo` at T = 1. self_normalised divides
    the weights by their sum: biased, but consistent. K evaluations of f, no gradient of f; the model's gradient is weighted
    as f is. Ruiz, Titsias & Blei 2016, arXiv:1603.01140, with one temperature that is set, not adapted.
    """
    least = 2 if self_normalised or baseline != "none" else 1
    at_least("off_policy", least, samples=samples)
    at_least("off_policy", 1, temperature=temperature)
    one_of("off_policy", BASELINES, baseline=baseline)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """x_k ~ r, independent; x: [K, ..., *event]."""
        return flattened(q, temperature).sample(noise)

    def log_weights(q: Family, x: Tensor) -> Tensor:
        return q.log_prob(x) - flattened(q, temperature).log_prob(x)

    def share(log_w: Tensor) -> Tensor:
        """v_k = w_k / K, or w_k / sum_j w_j."""
        return log_w.softmax(0) if self_normalised else log_w.exp() / samples

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = sum_k v_k (f_k - b_k) grad log q(x_k), v_k = 1/K q(x_k) / r(x_k)."""
        log_w = log_weights(q, x)
        b = mean_of_the_others(log_w, fx) if baseline != "none" else 0.0
        return q.score(x, share(log_w) * (fx - b))

    def value(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """L = sum_k v_k f_k."""
        return (share(log_weights(q, x)) * fx).sum(0)

    settings = {
        "samples": samples,
        "temperature": temperature,
        "baseline": baseline,
        "self_normalised": self_normalised,
    }
    return Estimator(
        "off_policy",
        [Ask.VALUE] * samples,
        draw,
        combine,
        ["bernoulli", "categorical", "normal"],
        CONSISTENT if self_normalised else UNBIASED,
        value=value,
        kernel="estimators.kernels.off_policy:off_policy",
        settings=settings,
        source="arXiv:1603.01140",
    )
