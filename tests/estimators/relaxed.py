"""Two problems small enough for what relaxed estimators are unbiased for to be an integral in two dimensions."""

from __future__ import annotations

import torch

from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.objectives import Objective


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def two_bits(objective: Objective) -> Problem:
    def f(x: torch.Tensor) -> torch.Tensor:
        return (x @ tensor(1.0, -0.7).to(x) - 0.4) ** 3 + 1.5 * x[..., 0] * x[..., 1]

    return Problem("two bits", Bernoulli, tensor(-0.8, 0.6), f, objective, smooth=2, relaxed=True)


def one_of_three(objective: Objective) -> Problem:
    def f(x: torch.Tensor) -> torch.Tensor:
        return ((x * tensor([1.2, -0.5, 0.3]).to(x)).sum((-2, -1)) - 0.2) ** 3 + x[..., 0, 0] * x[..., 0, 1]

    return Problem("one of three", Categorical, tensor([0.3, -0.5, 0.8]), f, objective, smooth=2, relaxed=True)
