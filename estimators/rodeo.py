"""RODEO: leave-one-out baselines corrected by a Stein operator, which makes a function of mean zero out of any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning, across
from estimators.double_cv import others as mean_of_others
from estimators.learning import BATCH, check_learning, least_variance
from estimators.local_expectation import others as other_values
from estimators.local_expectation import probability
from estimators.score_function import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

LEAK = 0.3


def network(state: Mapping[str, Tensor], f: Tensor, rise: Tensor) -> tuple[Tensor, Tensor]:
    """H = w leaky(W (f, rise) + a) + o, its two outputs apart; f and rise broadcast."""
    (of_f, of_rise), a = state["W"].unbind(-1), state["a"]
    unit = f[..., None] * of_f + a + rise[..., None] * of_rise
    return tuple((torch.maximum(unit, LEAK * unit) @ state["w"].T + state["o"]).unbind(-1))  # type: ignore[return-value]


def but(k: int) -> list[list[int]]:
    """Row k: the samples but k."""
    return [[j for j in range(k) if j != i] for i in range(k)]


def surrogates(
    q: Family, x: Tensor, v: Tensor, fx: Tensor, dfx: Tensor, state: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both h_k at x_k, `[K, ...]`, and at x_k with one site put to v, `[V, K, ..., D]`: no evaluation of f.

    h_k(y) = 1/(K-1) sum_{j != k} H(f(x_j), f'(x_j) . (y - x_j)), a function of the other samples.
    """
    j = torch.tensor(but(len(x)), device=x.device)
    f, df = fx[j], dfx[j]
    rise = (df * (x[:, None] - x[j])).flatten(-q.event_axes).sum(-1)
    step = df * (v - x)[:, :, None]
    step = step if q.event_axes == 1 else step.sum(-1)
    here = network(state, f, rise)
    moved = network(state, f[..., None], rise[..., None] + step)
    return (here[0].mean(1), here[1].mean(1)), (moved[0].mean(2), moved[1].mean(2))


def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """g = 1/K sum_k { [f_k - mean_{j != k} (f_j + alpha (A h0_j)(x_j))] s(x_k) + beta (A h1_k s)(x_k) }, s = grad log q.

    (A h)(x) = 1/D sum_d sum_v q_d(v) [h(x with x_d = v) - h(x)], a Gibbs sweep, of mean zero: h_k does not depend on x_k.
    Of h1 s, whose site d alone moves with x_d, it is (A h1)(x) s_d(x) + 1/D sum_v q_d(v) h1(x with x_d = v) [s_d(v) - s_d(x)].
    """
    alpha, beta = state["alpha"], state["beta"]
    v = other_values(q, x)
    chance, D = probability(q, v), x.shape[-q.event_axes]
    (h0, h1), (h0_v, h1_v) = surrogates(q, x, v, fx, dfx, state)
    A_h0 = (chance * (h0_v - h0[..., None])).sum(0).sum(-1) / D
    A_h1 = (chance * (h1_v - h1[..., None])).sum(0).sum(-1) / D
    baseline = mean_of_others(fx + alpha * A_h0)
    s, s_v = q.local(x), q.local(v)
    moved = across(chance * h1_v, s_v) * (s_v - s)
    A_h1_s = across(A_h1, s) * s + moved.sum(0) / D
    return q.score(x, (fx - baseline) / len(x)) + beta * A_h1_s.mean(0)


def rodeo(samples: int = 2, hidden: int = 10, steps: int = 300, lr: float = 0.01) -> Estimator:
    """RODEO: RLOO with two learned control variates, by a discrete Stein operator from f and its gradient at the other samples.

    The operator is that of Gibbs sampling, the function it acts on a network of one layer of `hidden` leaky rectified units (100 in
    the paper), at every point that differs from the sample in one site. Assumes f differentiable at the points of its support.
    Unbiased for Expectation and Elbo, whatever the network and its coefficients alpha and beta, which start at 0; all are learned
    by descending the variance (Adam). K >= 2 evaluations and K gradients of f.
    Shi, Zhou, Hwang, Titsias & Mackey 2022, arXiv:2202.09497.
    """
    at_least("rodeo", 2, samples=samples)
    at_least("rodeo", 1, hidden=hidden)
    check_learning("rodeo", steps, lr)
    learned = ("W", "a", "w", "o", "alpha", "beta")

    def init(generator: torch.Generator) -> dict[str, Tensor]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        return {
            "W": normal(hidden, 2) / math.sqrt(2),
            "a": torch.zeros(hidden),
            "w": normal(2, hidden) / math.sqrt(hidden),
            "o": torch.zeros(2),
            "alpha": torch.zeros(()),
            "beta": torch.zeros(()),
        }

    return Estimator(
        "rodeo",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        ["bernoulli", "categorical"],
        learning=Learning(init, least_variance(*learned, lr=lr), steps, BATCH),
        kernel="estimators.kernels.rodeo:rodeo",
        settings={"samples": samples, "hidden": hidden, "steps": steps, "lr": lr},
        source="arXiv:2202.09497",
    )
