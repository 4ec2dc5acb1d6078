"""DisARM for multi-sample bounds: each sample of the bound is turned to its antithetic partner, the others held."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from estimators import disarm
from estimators.base import Ask, Estimator, Noise, Size
from estimators.importance_weighted import of_the_others
from problems.objectives import log_mean_exp
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def turned(log_w: Tensor, log_w_tilde: Tensor) -> Tensor:
    """L(b_k -> b~_k) = log 1/K (sum_{j != k} w_j + w~_k) for each k: `[K, ...] -> [K, ...]`."""
    K = len(log_w)
    if K == 1:
        return log_w_tilde
    return torch.logaddexp(of_the_others(torch.logaddexp, log_w), log_w_tilde) - math.log(K)


def value(fx: Tensor) -> Tensor:
    """The mean of the bounds of the two halves, each K independent samples: 1/2 (L(b_1, ..., b_K) + L(b~_1, ..., b~_K))."""
    half, half_tilde = fx.chunk(2)
    return 0.5 * (log_mean_exp(half) + log_mean_exp(half_tilde))


def vimco_disarm(weights: str = "paired") -> Estimator:
    """Local DisARM for importance-weighted bounds: the bound with each sample, less the bound with its antithetic partner.

    For factorised Bernoulli variables with logits theta. Unbiased for ImportanceWeighted; 2 K evaluations of f, no gradient of f.
    The bound moves with theta through log q in its weights as well, by -sum_k v_k grad log q(b_k). weights=paired: DisARM takes it
    together with the bound, so that it is DisARM for one sample; apart: it stays as it is, as automatic differentiation gives it.
    Dong, Mnih & Tucker, NeurIPS 2020, arXiv:2006.10680.
    """
    one_of("vimco_disarm", ("paired", "apart"), weights=weights)

    def points(size: Size) -> list[Ask]:
        return [Ask.SAMPLE] * 2 * size.samples

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = sum_k 1/2 (h_k - h_k(b_k -> b~_k)) (-1)^{b~_kd} 1[b_kd != b~_kd] sigmoid(|theta_d|), h_k = L - v_k.

        Given the other samples, E L moves with theta through b_k as the score function says of L - v_k, v_k = dL / d log w_k, for
        log w_k has -log q(b_k) in it. With weights=apart h_k = L, and sum_k v_k grad log q(b_k) is taken off.
        """
        (b, b_tilde), (log_w, log_w_tilde) = x.chunk(2), fx.chunk(2)
        L, L_tilde, v = log_mean_exp(log_w), turned(log_w, log_w_tilde), log_w.softmax(0)
        signal = 0.5 * (L - L_tilde)
        if weights == "paired":
            signal = signal - 0.5 * (v - (log_w_tilde - math.log(len(log_w)) - L_tilde).exp())
        g = (signal[..., None] * (b - b_tilde)).sum(0) * q.theta.abs().sigmoid()
        return g if weights == "paired" else g - q.score(b, v)

    return Estimator(
        "vimco_disarm",
        points,
        disarm.draw,
        combine,
        ["bernoulli"],
        {"ImportanceWeighted": "unbiased"},
        noise=lambda size: [Noise("uniform", (size.samples,))],
        value=value,
        kernel="estimators.kernels.vimco_disarm:vimco_disarm",
        settings={"weights": weights},
        source="arXiv:2006.10680",
    )
