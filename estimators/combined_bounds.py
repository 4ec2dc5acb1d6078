"""Gradients of importance-weighted bounds put together: means over groups, mixtures with the ELBO, the jackknife."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, across
from estimators.importance_weighted import PATHS, draw, of_the_others, without_arithmetic
from problems.objectives import ImportanceWeighted, log_mean_exp
from problems.settings import at_least, one_of
from problems.truth import true_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size

GRADIENTS = ("pathwise", "dreg", "score")
OfWeights = Callable[["Tensor"], "Tensor"]


def combined(gradient: str, credit: OfWeights, weight: OfWeights, doubly: OfWeights) -> Callable[..., Tensor]:
    """How the gradient is taken, from log w `[K, ...]`: of what each sample is credited with, of v, and of v's doubly form a."""

    def pathwise(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = sum_k v_k [(dx_k/dtheta)' grad log w_k - grad_theta log q(x_k)], v_k = d L / d log w_k."""
        v = weight(fx)
        return q.path(x, across(v, dfx) * dfx) - q.score(x, v)

    def dreg(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k with the weights of each bound squared."""
        return q.path(x, across(doubly(fx), dfx) * dfx)

    def score(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = sum_k (L - v_k) grad log q(x_k), L what of the whole the sample has a part in."""
        return q.score(x, credit(fx) - weight(fx))

    ways: dict[str, Callable[..., Tensor]] = {"pathwise": pathwise, "dreg": dreg, "score": score}
    return ways[gradient]


def ask(gradient: str) -> Ask:
    """A sample, and f's gradient there unless the score does."""
    return Ask.SAMPLE if gradient == "score" else Ask.SAMPLE | Ask.GRADIENT


def families(gradient: str) -> list[str] | None:
    """Any family has a score."""
    return None if gradient == "score" else PATHS


def of_bound(problem: Problem, samples: int) -> Tensor | None:
    """The gradient `[P]` of the importance-weighted bound of so many samples, by enumeration; None where that is too large."""
    truth = true_gradient(replace(problem, objective=ImportanceWeighted(samples), exact=None))
    return None if truth is None or truth.se.any() else truth.gradient


def mixed(problem: Problem, shares: dict[int, float]) -> Tensor | None:
    """sum_K share_K times the gradient of the bound of K samples."""
    found = [(share, of_bound(problem, samples)) for samples, share in shares.items()]
    total = torch.zeros(problem.dim, dtype=torch.float64)
    for share, g in found:
        if g is None:
            return None
        total += share * g
    return total


def in_groups(gradient: str, groups: int) -> Callable[..., Tensor]:
    """The gradient of 1/M sum_m of the bound of group m; a sample has no part in the other groups' bounds."""

    def credit(fx: Tensor) -> Tensor:
        log_w = fx.unflatten(0, (groups, -1)).movedim(1, 0)
        return log_mean_exp(log_w).repeat_interleave(len(log_w), 0) / groups

    def weight(fx: Tensor) -> Tensor:
        return fx.unflatten(0, (groups, -1)).softmax(1).flatten(0, 1) / groups

    def doubly(fx: Tensor) -> Tensor:
        return groups * weight(fx) ** 2

    return combined(gradient, credit, weight, doubly)


def miwae(groups: int = 2, gradient: str = "pathwise") -> Estimator:
    """MIWAE: the mean of M independent importance-weighted bounds of K samples each, K the objective's.

    gradient=pathwise or dreg: assumes f continuous and differentiable almost everywhere; gradient=score: any q that has a score.
    Unbiased for ImportanceWeighted; M K evaluations of f, and of its gradient but for score.
    Rainforth et al. 2018, arXiv:1802.04537.
    """
    at_least("miwae", 1, groups=groups)
    one_of("miwae", GRADIENTS, gradient=gradient)

    def value(fx: Tensor) -> Tensor:
        return log_mean_exp(fx.unflatten(0, (groups, -1)).movedim(1, 0)).mean(0)

    return Estimator(
        "miwae",
        lambda size: [ask(gradient)] * (groups * size.samples),
        draw,
        in_groups(gradient, groups),
        families(gradient),
        {"ImportanceWeighted": "unbiased"},
        value=value,
        settings={"groups": groups, "gradient": gradient},
        source="arXiv:1802.04537",
    )


def piwae(groups: int = 2, gradient: str = "pathwise") -> Estimator:
    """PIWAE: the model by the bound of all samples, the proposal by the mean of the bounds of M groups of them.

    As the samples of a bound grow, the signal of the proposal's gradient vanishes faster than its noise, and the model's does not.
    gradient as in `miwae`. Biased for ImportanceWeighted unless M = 1: in theta it is unbiased for the bound of K / M samples. K
    evaluations of f, and of its gradient but for score. Rainforth et al. 2018, arXiv:1802.04537.
    """
    at_least("piwae", 1, groups=groups)
    one_of("piwae", GRADIENTS, gradient=gradient)

    def points(size: Size) -> list[Ask]:
        if size.samples % groups:
            raise ValueError(f"piwae puts its samples in {groups} groups: the bound's {size.samples} do not divide")
        return [ask(gradient)] * size.samples

    def target(problem: Problem) -> Tensor | None:
        samples, P = problem.objective.samples, problem.theta.numel()
        of_theta, of_model = of_bound(problem, samples // groups), of_bound(problem, samples)
        return None if of_theta is None or of_model is None else torch.cat([of_theta[:P], of_model[P:]])

    claim = Claim("biased", target=target, of="the bound of a group's samples in theta, and of all in the model")
    return Estimator(
        "piwae",
        points,
        draw,
        in_groups(gradient, groups),
        families(gradient),
        {"ImportanceWeighted": claim if groups > 1 else "unbiased"},
        settings={"groups": groups, "gradient": gradient},
        source="arXiv:1802.04537",
    )


def ciwae(beta: float = 0.5, gradient: str = "pathwise") -> Estimator:
    """CIWAE: beta times the ELBO and 1 - beta times the importance-weighted bound, of the same samples.

    gradient as in `miwae`; dreg is STL for the ELBO. Biased for ImportanceWeighted unless beta = 0: unbiased for that mixture. K
    evaluations of f, and of its gradient but for score. Rainforth et al. 2018, arXiv:1802.04537.
    """
    at_least("ciwae", 0, beta=beta)
    one_of("ciwae", GRADIENTS, gradient=gradient)
    if beta > 1:
        raise ValueError(f"ciwae[beta={beta}]: beta goes from 0 to 1")

    def value(fx: Tensor) -> Tensor:
        return beta * fx.mean(0) + (1 - beta) * log_mean_exp(fx)

    def credit(fx: Tensor) -> Tensor:
        """Of the ELBO, a sample's own addend."""
        return beta / len(fx) * fx + (1 - beta) * log_mean_exp(fx)

    def weight(fx: Tensor) -> Tensor:
        return beta / len(fx) + (1 - beta) * fx.softmax(0)

    def doubly(fx: Tensor) -> Tensor:
        return beta / len(fx) + (1 - beta) * fx.softmax(0) ** 2

    def target(problem: Problem) -> Tensor | None:
        K = problem.objective.samples
        return of_bound(problem, 1) if K == 1 else mixed(problem, {1: beta, K: 1 - beta})

    claim = Claim("biased", target=target, of="beta ELBO + (1 - beta) of the bound")
    return Estimator(
        "ciwae",
        lambda size: [ask(gradient)] * size.samples,
        draw,
        combined(gradient, credit, weight, doubly),
        families(gradient),
        {"ImportanceWeighted": claim if beta else "unbiased"},
        value=value,
        settings={"beta": beta, "gradient": gradient},
        source="arXiv:1802.04537",
    )


def jvi(samples: int = 5, gradient: str = "pathwise") -> Estimator:
    """JVI, the jackknife of first order: the log evidence, from which the bound's bias of 1/K is taken away.

    gradient as in `miwae`. Consistent for LogMarginal, with a bias of O(1/K^2): its mean is the gradient of K L_K - (K - 1)
    L_{K-1}, which is no bound, and whose gradient in q, of which the evidence has none, is of that order too. K >= 2 evaluations of
    f, and of its gradient but for score. Nowozin 2018, "Debiasing evidence approximations"; dreg as in the code of Tucker et al.
    2019.
    """
    at_least("jvi", 2, samples=samples)
    one_of("jvi", GRADIENTS, gradient=gradient)
    K = samples

    def value(fx: Tensor) -> Tensor:
        """K L_K - (K - 1) 1/K sum_i L_{K-1}^(-i), L^(-i) the bound without sample i."""
        return K * log_mean_exp(fx) - (K - 1) * without_arithmetic(fx).mean(0)

    def without(fx: Tensor) -> Tensor:
        """v_k^(-i), the weight of sample k in the bound without sample i, nil for k = i: `[k, i, ...]`."""
        v = (fx[:, None] - of_the_others(torch.logaddexp, fx)).exp()
        own = torch.eye(K, dtype=torch.bool, device=fx.device)
        return v.masked_fill(across(own, v), 0)

    def weight(fx: Tensor) -> Tensor:
        return K * fx.softmax(0) - (K - 1) * without(fx).mean(1)

    def doubly(fx: Tensor) -> Tensor:
        return K * fx.softmax(0) ** 2 - (K - 1) * (without(fx) ** 2).mean(1)

    def target(problem: Problem) -> Tensor | None:
        return mixed(problem, {K: K, K - 1: -(K - 1)})

    return Estimator(
        "jvi",
        [ask(gradient)] * samples,
        draw,
        combined(gradient, value, weight, doubly),
        families(gradient),
        {"LogMarginal": Claim("consistent", target=target, of="K L_K - (K - 1) L_{K-1}")},
        value=value,
        settings={"samples": samples, "gradient": gradient},
        source="Nowozin 2018",
    )
