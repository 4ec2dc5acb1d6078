"""The learned function c of LAX, DLAX and RELAX: one layer of tanh units, the same of every datum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Learning, Size
from estimators.learning import BATCH, check_learning, least_variance
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor


def network(state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """c = w . tanh(W inputs + a) + c0: `[..., inputs] -> [...]`."""
    return (inputs @ state["W"].T + state["a"]).tanh() @ state["w"] + state["c0"]


def learned(name: str, hidden: int, steps: int, lr: float) -> Learning:
    """A network of so many units and as many inputs as a point has numbers, which descends the variance by Adam.

    Raises ValueError where a setting makes no sense.
    """
    at_least(name, 1, hidden=hidden)
    check_learning(name, steps, lr)

    def init(size: Size, generator: torch.Generator) -> dict[str, Tensor]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        inputs = math.prod(size.event)
        return {
            "W": normal(hidden, inputs) / math.sqrt(inputs),
            "a": torch.zeros(hidden),
            "w": normal(hidden) / math.sqrt(hidden),
            "c0": torch.zeros(()),
        }

    return Learning(init, centred(least_variance("W", "a", "w", "c0", lr=lr)), steps, BATCH)


def centred(descend: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """The first step sets c0 to the mean of f, so that the later ones, which `descend`, need not climb there at their rate."""

    def learn(state: Mapping[str, Tensor], gradient: Tensor, fx: Tensor, step: int) -> dict[str, Tensor]:
        return descend(state, gradient, step - 1) if step else {**state, "c0": fx.mean()}

    return learn
