"""REINFORCE with a moving average of f as its baseline, learned from samples that the measured ones do not share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator, Learning
from estimators.learning import check_decay
from estimators.score_function import draw

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def moving_average_baseline(samples: int = 1, decay: float = 0.95, steps: int = 200) -> Estimator:
    """REINFORCE with a moving average of f over past samples as its baseline.

    Unbiased for Expectation and Elbo, because the average is over past samples only; K evaluations of f, no gradient of f.
    Where the average is updated before it is used, the gradient shrinks by the factor 1 - (1 - decay) / K.
    One baseline serves all data. Williams 1992; Mnih & Gregor 2014, arXiv:1402.0030.
    """
    if samples < 1:
        raise ValueError(f"moving_average_baseline[samples={samples}]: at least one sample is needed")
    check_decay("moving_average_baseline", decay)
    if steps < 0:
        raise ValueError(f"moving_average_baseline[steps={steps}]: the number of past steps cannot be negative")

    def init() -> dict[str, Tensor]:
        return {"b": torch.zeros(())}

    def learn(state: Mapping[str, Tensor], fx: Tensor) -> dict[str, Tensor]:
        """b = rho b + (1 - rho) mean_k f_k."""
        return {"b": decay * state["b"] + (1 - decay) * fx.mean()}

    def combine(q: Family, x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """g = 1/K sum_k (f_k - b) grad log q(x_k)."""
        return q.score(x, (fx - state["b"]) / samples)

    return Estimator(
        "moving_average_baseline",
        samples,
        draw,
        combine,
        learning=Learning(init, learn, steps),
        kernel="estimators.kernels.learned_baseline:moving_average_baseline",
        settings={"samples": samples, "decay": decay, "steps": steps},
        source="Williams 1992",
    )
