"""What is differentiated: L(theta) = E value(fx) over `samples` draws of q. The objective says what the true gradient is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
    """

    name: str
    value: Callable[[Tensor], Tensor] = mean
    ratio: bool = False
    samples: int = 1
    exact: Callable[[Tensor, Tensor], Tensor] | None = None
    moves_model: bool = True


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
    """L_alpha^K = E 1/(1 - alpha) log 1/K sum_k exp((1 - alpha)(f - log q)), alpha != 1. Li & Turner 2016, arXiv:1602.02311."""
    return Objective("Renyi", lambda fx: log_mean_exp((1 - alpha) * fx) / (1 - alpha), ratio=True, samples=samples)


def LogMarginal() -> Objective:
    """L = log sum_x exp f(x), the log evidence; q is the proposal only, so that its gradient is zero."""
    return Objective("LogMarginal", log_mean_exp, ratio=True, exact=lambda log_q, f: f.logsumexp(0))


def InclusiveKL() -> Objective:
    """L = -KL(p || q) up to a constant: sum_x p(x | data) log q(x)."""
    return Objective("InclusiveKL", log_mean_exp, ratio=True, exact=_posterior_mean, moves_model=False)


def _posterior_mean(log_q: Tensor, f: Tensor) -> Tensor:
    """sum_x p(x | data) log q(x), p held fixed."""
    return (f.softmax(0).detach() * log_q).sum(0)
