"""Double control variates: leave-one-out baselines on f plus a linear term, from gradients of f at the other samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning
from estimators.learning import BATCH, check_learning, least_variance
from estimators.muprop import FAMILIES
from estimators.score_function import draw

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def others(a: Tensor) -> Tensor:
    """Mean over the other samples: [K, ...] -> [K, ...]."""
    return (a.sum(0) - a) / (len(a) - 1)


def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """g = 1/K sum_k [f_k + c_k - mean_{j != k} (f_j + c_j)] grad log q(x_k) - alpha (d mu / d theta)' mean_k f'(x_k),
    c_k = alpha mean_{j != k} f'(x_j) . (x_k - mu)."""
    alpha = state["alpha"]
    c = alpha * (others(dfx) * (x - q.mean)).flatten(-q.event_axes).sum(-1)
    return q.score(x, (fx + c - others(fx + c)) / len(fx)) - alpha * q.mean_pull(dfx.mean(0))


def double_cv(samples: int = 2, steps: int = 300, lr: float = 0.01) -> Estimator:
    """Double CV: RLOO with a second, linear control variate from the gradients of f at the other samples.

    Assumes f differentiable at the points of its support; q any that has a mean with a derivative, in the paper bits. Unbiased
    for Expectation and Elbo, whatever the coefficient alpha, which starts at 0 and is learned by descending the variance (by Adam
    ahead of the measurement; in the paper by RMSprop during training); K >= 2 evaluations and K gradients of f.
    Titsias & Shi 2022, arXiv:2111.05300.
    """
    if samples < 2:
        raise ValueError(
            f"double_cv[samples={samples}]: each sample's control variates come from the others, so samples must be at least 2"
        )
    check_learning("double_cv", steps, lr)

    def init() -> dict[str, Tensor]:
        return {"alpha": torch.zeros(())}

    return Estimator(
        "double_cv",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        FAMILIES,
        learning=Learning(init, least_variance("alpha", lr=lr), steps, BATCH),
        kernel="estimators.kernels.control_variates:double_cv",
        settings={"samples": samples, "steps": steps, "lr": lr},
        source="arXiv:2111.05300",
    )
