"""Gradients of importance-weighted bounds, from the log weights.

fx is log w_k = f(x_k) - log q(x_k), dfx its gradient in x_k with theta held fixed; v = softmax(log w).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, across
from problems.objectives import log_mean_exp
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size
    from problems.objectives import Objective

PATHS = ["normal", "gamma"]
HOME = "estimators.kernels.importance_weighted:"


def draw(q: Family, noise: Tensor) -> Tensor:
    """x_k ~ q, independent, K the bound's samples; x: [K, ..., *event]."""
    return q.sample(noise)


def values(size: Size) -> list[Ask]:
    """f at the bound's samples."""
    return [Ask.SAMPLE] * size.samples


def at_least_two(why: str, size: Size) -> list[Ask]:
    """f at the bound's samples. Raises ValueError where it takes one only."""
    if size.samples < 2:
        raise ValueError(f"{why}: the bound must take 2 samples, not {size.samples}")
    return values(size)


def slopes(size: Size) -> list[Ask]:
    """f and its gradient at the bound's samples."""
    return [Ask.SAMPLE | Ask.GRADIENT] * size.samples


def iwae_pathwise() -> Estimator:
    """The total derivative of a bound, IWAE's or Renyi's, by reparameterisation, as plain autograd gives it.

    Assumes f continuous and differentiable almost everywhere. Unbiased for Elbo (K = 1: `pathwise_total`), ImportanceWeighted and
    Renyi; K evaluations and gradients of f. Its signal-to-noise ratio falls as 1 / sqrt(K).
    Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519; Li & Turner 2016, arXiv:1602.02311.
    """

    def combine(q: Family, x: Tensor, dfx: Tensor, weight: Tensor, share: float) -> Tensor:
        """g = sum_k v_k [(dx_k/dtheta)' grad log w_k - grad_theta log q(x_k)], v_k = d bound / d log w_k."""
        return q.path(x, across(weight, dfx) * dfx) - q.score(x, share * weight)

    claims = dict.fromkeys(["Elbo", "ImportanceWeighted", "Renyi"], "unbiased")
    return Estimator(
        "iwae_pathwise", slopes, draw, combine, PATHS, claims, kernel=HOME + "iwae_pathwise", source="arXiv:1509.00519"
    )


def iwae_score() -> Estimator:
    """The score function of a bound, IWAE's or Renyi's: every sample is credited with all of it, and with its own weight.

    Any q that has a score. Unbiased for ImportanceWeighted and Renyi; K evaluations of f, no gradient of f. The model's gradient,
    sum_k v_k grad log p(x, z_k), is wake-theta of reweighted wake-sleep.
    Mnih & Rezende 2016, arXiv:1602.06725; Li & Turner 2016, arXiv:1602.02311.
    """

    def combine(q: Family, x: Tensor, fx: Tensor, weight: Tensor, objective: Objective) -> Tensor:
        """g = sum_k (L - v_k) grad log q(x_k), L the bound of the samples, v_k = d L / d log w_k."""
        return q.score(x, objective.value(fx) - weight)

    claims = dict.fromkeys(["ImportanceWeighted", "Renyi"], "unbiased")
    return Estimator(
        "iwae_score", values, draw, combine, claims=claims, kernel=HOME + "iwae_score", source="arXiv:1602.06725"
    )


def dreg(alpha: float = 0.0, normalised: bool = False) -> Estimator:
    """DReG, the doubly reparameterised gradient: the score in the bound's pathwise gradient is reparameterised too.

    Assumes f continuous and differentiable almost everywhere. Unbiased for ImportanceWeighted; K evaluations and gradients of f.
    alpha > 0 is DReG(alpha), (1 - alpha) DReG + alpha RWS-DReG: biased towards the inclusive divergence, of which `rws_dreg` has
    the gradient; at 1/2 it is half of `stl`. normalised (alpha = 0 only): the coefficients divided by their sum, biased.
    Tucker, Lawson, Gu & Maddison 2019, arXiv:1810.04152; normalised in its code only.
    """
    at_least("dreg", 0, alpha=alpha)
    if alpha > 1:
        raise ValueError(f"dreg[alpha={alpha}]: alpha goes from 0 to 1")
    if alpha and normalised:
        raise ValueError(f"dreg[alpha={alpha},normalised=True]: only alpha=0 is normalised; or take rws_dreg")

    def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k = (1 - alpha) v_k^2 + alpha (v_k - v_k^2), or v_k^2 / sum_j v_j^2."""
        v = fx.softmax(0)
        a = (2 * fx).softmax(0) if normalised else (1 - alpha) * v**2 + alpha * (v - v**2)
        return q.path(x, across(a, dfx) * dfx)

    return Estimator(
        "dreg",
        slopes,
        draw,
        combine,
        PATHS,
        claims={"ImportanceWeighted": "biased" if alpha or normalised else "unbiased"},
        kernel=HOME + "dreg",
        settings={"alpha": alpha, "normalised": normalised},
        source="arXiv:1810.04152",
    )


def rws_dreg(samples: int = 5, normalised: bool = False) -> Estimator:
    """RWS-DReG: wake-phi of reweighted wake-sleep, with its score reparameterised.

    Assumes f continuous and differentiable almost everywhere. Consistent for InclusiveKL: its mean is that of `wake_phi`, biased by
    O(1/K) at K samples and nil at K = 1; nil without variance where q is the posterior. K evaluations and gradients of f.
    normalised: the coefficients divided by their sum, 1 - sum_k v_k^2, which is within O(1/K) of one.
    Tucker, Lawson, Gu & Maddison 2019, arXiv:1810.04152; normalised in its code only.
    """
    at_least("rws_dreg", 2 if normalised else 1, samples=samples)

    def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k = v_k - v_k^2; normalised: a_k / sum_j a_j, with log (1 - v_k) summed."""
        v = fx.softmax(0)
        a = (fx + of_the_others(torch.logaddexp, fx)).softmax(0) if normalised else v - v**2
        return q.path(x, across(a, dfx) * dfx)

    return Estimator(
        "rws_dreg",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        PATHS,
        claims={"InclusiveKL": "consistent"},
        kernel=HOME + "rws_dreg",
        settings={"samples": samples, "normalised": normalised},
        source="arXiv:1810.04152",
    )


def one_sample(problem: Problem) -> bool:
    """The bound is of one sample."""
    return problem.objective.samples == 1


def stl() -> Estimator:
    """STL, sticking the landing: the bound's pathwise gradient without its score.

    Assumes f continuous and differentiable almost everywhere. Unbiased for Elbo, where the score has mean zero; biased for
    ImportanceWeighted with K > 1, where sum_k v_k grad_theta log q(x_k) has not; the bias does not vanish as K grows. K evaluations
    and gradients of f. Roeder, Wu & Duvenaud 2017, arXiv:1703.09194; its bias: Tucker et al. 2019, arXiv:1810.04152.
    """

    def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = sum_k v_k (dx_k/dtheta)' grad log w_k."""
        v = fx.softmax(0)
        return q.path(x, across(v, dfx) * dfx)

    bound = Claim("biased", unless=one_sample, because="the bound has one sample, so that it is the ELBO")
    claims: dict[str, str | Claim] = {"Elbo": "unbiased", "ImportanceWeighted": bound}
    return Estimator("stl", slopes, draw, combine, PATHS, claims, kernel=HOME + "stl", source="arXiv:1703.09194")


def vimco(mean: str = "geometric") -> Estimator:
    """VIMCO: each sample's baseline is the bound, IWAE's or Renyi's, with its weight replaced by a mean of the others.

    Any q that has a score; K >= 2. Unbiased for ImportanceWeighted and Renyi with either mean of the other weights,
    mean=geometric or arithmetic (the bound of the others: leave-one-out); K evaluations of f, no gradient of f.
    Mnih & Rezende 2016, arXiv:1602.06725; Renyi's bound is that of w^(1 - alpha), but for a factor.
    """
    one_of("vimco", ("geometric", "arithmetic"), mean=mean)
    without = without_geometric if mean == "geometric" else without_arithmetic

    def points(size: Size) -> list[Ask]:
        return at_least_two("vimco replaces a weight by a mean of the others", size)

    def combine(q: Family, x: Tensor, fx: Tensor, objective: Objective) -> Tensor:
        """g = sum_k (L - L^(-k)) grad log q(x_k) - sum_k v_k grad log q(x_k), L = 1/(1 - alpha) log 1/K sum_j w_j^(1 - alpha)."""
        tilt = 1 - objective.alpha
        log_w = tilt * fx
        v = log_w.softmax(0)
        return q.score(x, (log_mean_exp(log_w) - without(log_w)) / tilt - v)

    claims = dict.fromkeys(["ImportanceWeighted", "Renyi"], "unbiased")
    return Estimator(
        "vimco",
        points,
        draw,
        combine,
        claims=claims,
        kernel=HOME + "vimco",
        settings={"mean": mean},
        source="arXiv:1602.06725",
    )


def without_geometric(log_w: Tensor) -> Tensor:
    """L^(-k) = log 1/K (sum_{j != k} w_j + w^_k), log w^_k the mean of log w_j, j != k: `[K, ...] -> [K, ...]`."""
    K = len(log_w)
    log_w_hat = of_the_others(torch.add, log_w) / (K - 1)
    return torch.logaddexp(of_the_others(torch.logaddexp, log_w), log_w_hat) - math.log(K)


def without_arithmetic(log_w: Tensor) -> Tensor:
    """L^(-k) = log 1/(K-1) sum_{j != k} w_j, as w^_k is that mean itself: `[K, ...] -> [K, ...]`."""
    return of_the_others(torch.logaddexp, log_w) - math.log(len(log_w) - 1)


def of_the_others(add: Callable[[Tensor, Tensor], Tensor], a: Tensor) -> Tensor:
    """sum_{j != k} a_j as the sum before k plus the sum after it, so that nothing is subtracted: `[K, ...] -> [K, ...]`."""
    before = list(accumulate(a[:-1], add))
    after = list(accumulate(a[1:].flip(0), add))[::-1]
    return torch.stack([after[0], *map(add, before[:-1], after[1:]), before[-1]])


def wake_phi(samples: int = 5) -> Estimator:
    """Wake-phi of reweighted wake-sleep: the inclusive divergence, by self-normalised importance sampling from q.

    Any q that has a score. Consistent for InclusiveKL: biased by O(1/K) at K samples, and with K = 1 its mean is nil. K evaluations
    of f, no gradient of f. Bornschein & Bengio 2015, arXiv:1406.2751; Le et al. 2019, arXiv:1805.10469.
    """
    at_least("wake_phi", 1, samples=samples)

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = sum_k v_k grad log q(x_k)."""
        v = fx.softmax(0)
        return q.score(x, v)

    claims = {"InclusiveKL": "consistent"}
    return Estimator(
        "wake_phi",
        samples,
        draw,
        combine,
        claims=claims,
        kernel=HOME + "wake_phi",
        settings={"samples": samples},
        source="arXiv:1406.2751",
    )
