"""What is differentiated: L(theta) = E value(fx) over `samples` draws of q. The objective says what the true gradient is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING

from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

OBJECTIVES = ("elbo", "renyi", "log_marginal", "thermodynamic", "inclusive_kl")  # as settings of a problem name them
LOG_PARTITION = (0.0, 0.01, 10**-1.5, 0.1, 10**-0.5, 1.0)


def mean(fx: Tensor) -> Tensor:
    """1/K sum_k fx_k."""
    return fx.mean(0)


def log_mean_exp(fx: Tensor) -> Tensor:
    """log 1/K sum_k exp fx_k."""
    return fx.logsumexp(0) - math.log(len(fx))


@dataclass(frozen=True)
class Objective:
    """L(theta) = E value(fx) over `samples` independent draws, fx `[samples, ...]`.

    value: fx `[K, ...] -> [...]`; the weight of point k in the gradient of the model is d value / d fx_k.
    ratio: fx = f(x) - log q(x), with theta held fixed in it for the estimators; otherwise fx = f(x).
    samples: draws that L takes (1 for plain expectations).
    exact: L itself from log q and f over the whole support, `(log_q [S, ...], f [S, ...]) -> [...]`, where it is no such mean.
    moves_model: L says what the gradient of the model is.
    alpha: Renyi's order; nil for the importance-weighted bound. partition: (beta, width) of each addend of a thermodynamic bound.
    """

    name: str
    value: Callable[[Tensor], Tensor] = mean
    ratio: bool = False
    samples: int = 1
    exact: Callable[[Tensor, Tensor], Tensor] | None = None
    moves_model: bool = True
    alpha: float = 0.0
    partition: tuple[tuple[float, float], ...] = ()


def Expectation() -> Objective:
    """L = E_q f(x)."""
    return Objective("Expectation")


def Elbo() -> Objective:
    """L = E_q [f(x) - log q(x)], f(x) = log p(data, x): the evidence lower bound."""
    return Objective("Elbo", ratio=True)


def ImportanceWeighted(samples: int) -> Objective:
    """L_K = E log 1/K sum_k exp(f(x_k) - log q(x_k)). Burda et al. 2016, arXiv:1509.00519."""
    return Objective("ImportanceWeighted", log_mean_exp, ratio=True, samples=samples)


def Renyi(alpha: float, samples: int) -> Objective:
    """L_alpha^K = E 1/(1 - alpha) log 1/K sum_k exp((1 - alpha)(f - log q)), alpha != 1. Li & Turner 2016, arXiv:1602.02311.

    alpha = 0 is the importance-weighted bound, alpha -> 1 the ELBO. Raises ValueError at alpha = 1.
    """
    if alpha == 1:
        raise ValueError("Renyi's bound of alpha=1 is the ELBO: take that")

    def value(fx: Tensor) -> Tensor:
        return log_mean_exp((1 - alpha) * fx) / (1 - alpha)

    return Objective("Renyi", value, ratio=True, samples=samples, alpha=alpha)


def LogMarginal() -> Objective:
    """L = log sum_x exp f(x), the log evidence; q is the proposal only, so that its gradient is zero."""
    return Objective("LogMarginal", log_mean_exp, ratio=True, exact=lambda log_q, f: f.logsumexp(0))


def InclusiveKL() -> Objective:
    """L = -KL(p || q) up to a constant: sum_x p(x | data) log q(x)."""
    return Objective("InclusiveKL", log_mean_exp, ratio=True, exact=_posterior_mean, moves_model=False)


def Thermodynamic(betas: Sequence[float] = LOG_PARTITION, side: str = "left") -> Objective:
    """L = sum_j (b_{j+1} - b_j) E_{pi_b} log w, pi_b ~ q^(1-b) p^b, b = b_j on the left and b_{j+1} on the right.

    Riemann sums of log p(data) = int_0^1 E_{pi_b} log w db: on the left, where b_0 = 0 alone gives the ELBO, they are below it.
    betas: rising from 0 to 1; by default five parts, evenly spaced in log b from 1e-2. Masrani et al. 2019, arXiv:1907.00031.
    Raises ValueError where betas do not rise from 0 to 1.
    """
    if betas[0] != 0 or betas[-1] != 1 or any(a >= b for a, b in pairwise(betas)):
        raise ValueError(f"betas of a thermodynamic bound rise from 0 to 1, not {tuple(betas)}")
    one_of("Thermodynamic", ("left", "right"), side=side)
    partition = tuple((a if side == "left" else b, b - a) for a, b in pairwise(betas))

    def exact(log_q: Tensor, f: Tensor) -> Tensor:
        log_w = f - log_q
        return reduce(add, [w * ((log_q + beta * log_w).softmax(0) * log_w).sum(0) for beta, w in partition])

    return Objective("Thermodynamic", ratio=True, exact=exact, partition=partition)


def chosen(objective: str, samples: int, alpha: float) -> Objective:
    """What the settings of a problem say: one of OBJECTIVES; `elbo` of several samples is the importance-weighted bound."""
    if objective == "renyi":
        return Renyi(alpha, samples)
    if objective == "elbo":
        return Elbo() if samples == 1 else ImportanceWeighted(samples)
    return {"log_marginal": LogMarginal, "thermodynamic": Thermodynamic, "inclusive_kl": InclusiveKL}[objective]()


def _posterior_mean(log_q: Tensor, f: Tensor) -> Tensor:
    """sum_x p(x | data) log q(x), p held fixed."""
    return (f.softmax(0).detach() * log_q).sum(0)
