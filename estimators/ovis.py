"""OVIS: control variates of the importance-weighted bound's score function that are optimal where the samples are many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator
from estimators.importance_weighted import HOME, at_least_two, draw, of_the_others, without_arithmetic
from problems.objectives import log_mean_exp
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family, Size


def ovis(gamma: float = 0.0) -> Estimator:
    """OVIS~, with its control variate from the other weights of the bound.

    Any q that has a score; K >= 2. gamma=0 is for an effective sample size near one, and unbiased for ImportanceWeighted; gamma=1,
    of the paper's main runs, is for a large one, and biased by gamma E sum_k v_k grad log q(x_k), as c_k moves with x_k. K
    evaluations of f, no gradient of f. Lievin et al. 2020, arXiv:2008.01998, equation 17.
    """
    at_least("ovis", 0, gamma=gamma)
    if gamma > 1:
        raise ValueError(f"ovis[gamma={gamma}]: gamma goes from 0 to 1")

    def points(size: Size) -> list[Ask]:
        return at_least_two("ovis compares a weight with the others", size)

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = sum_k (d_k - c_k) grad log q(x_k), d_k = log Z - v_k, c_k = log Z_-k - gamma v_k + (1 - gamma) log(1 - 1/K).

        Z = 1/K sum_j w_j, Z_-k = 1/(K-1) sum_{j != k} w_j.
        """
        v = fx.softmax(0)
        c = without_arithmetic(fx) - gamma * v + (1 - gamma) * math.log(1 - 1 / len(fx))
        return q.score(x, log_mean_exp(fx) - v - c)

    return Estimator(
        "ovis",
        points,
        draw,
        combine,
        claims={"ImportanceWeighted": "biased" if gamma else "unbiased"},
        kernel=HOME + "ovis",
        settings={"gamma": gamma},
        source="arXiv:2008.01998",
    )


def ovis_mc(auxiliary: int = 1) -> Estimator:
    """OVIS-MC: each sample's baseline is the mean of its own factor with the sample replaced by each of S auxiliary ones.

    Any q that has a score; K >= 2. Unbiased for ImportanceWeighted; K + S evaluations of f, no gradient of f. The paper takes
    S = 1, 10 and 50. Lievin et al. 2020, arXiv:2008.01998, equation 12.
    """
    at_least("ovis_mc", 1, auxiliary=auxiliary)

    def points(size: Size) -> list[Ask]:
        return at_least_two("ovis_mc compares a weight with the others", size) + [Ask.VALUE] * auxiliary

    def combine(q: Family, x: Tensor, fx: Tensor, size: Size) -> Tensor:
        """g = sum_k (d_k - c_k) grad log q(x_k), d_k = log 1/K sum_j w_j - v_k, c_k = 1/S sum_s d_k(z^(s), x_-k)."""
        K = size.samples
        log_w, log_w_s = fx[:K], fx[K:]
        total = torch.logaddexp(of_the_others(torch.logaddexp, log_w)[:, None], log_w_s)
        c = (total - math.log(K) - (log_w_s - total).exp()).mean(1)
        return q.score(x[:K], log_mean_exp(log_w) - log_w.softmax(0) - c)

    return Estimator(
        "ovis_mc",
        points,
        draw,
        combine,
        claims={"ImportanceWeighted": "unbiased"},
        kernel=HOME + "ovis_mc",
        settings={"auxiliary": auxiliary},
        source="arXiv:2008.01998",
    )
