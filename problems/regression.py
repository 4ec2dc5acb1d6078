"""A regression task and a network of one hidden layer for it: what the Bayesian networks of the catalogue share."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

SEED = 1991
MOST_ROWS, MOST_INPUTS, RELEVANT = 512, 16, 5
NOISE = 0.3  # standard deviation of the likelihood; that of y is 1


class Layers(NamedTuple):
    """Weights of a network of I inputs and H hidden units, each with the axes of the points before: W `[..., H, I]`, b and v
    `[..., H]`, c `[...]`.
    """

    W: torch.Tensor
    b: torch.Tensor
    v: torch.Tensor
    c: torch.Tensor


def size(inputs: int, hidden: int) -> int:
    """Number of weights: H I + H + H + 1."""
    return hidden * (inputs + 2) + 1


def layers(w: torch.Tensor, inputs: int, hidden: int) -> Layers:
    """w `[..., H I + 2 H + 1]` cut into its layers."""
    W, b, v, c = torch.split(w, [hidden * inputs, hidden, hidden, 1], -1)
    return Layers(W.unflatten(-1, (hidden, inputs)), b, v, c[..., 0])


def log_likelihood(y: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """log N(y; output, NOISE^2)."""
    return -0.5 * ((y - output) / NOISE) ** 2 - math.log(NOISE) - 0.5 * math.log(2 * math.pi)


def expected_log_likelihood(y: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """E log N(y; o, NOISE^2) of an output o of that mean and variance, whatever its law."""
    return log_likelihood(y, mean) - 0.5 * variance / NOISE**2


def initial_weights(inputs: int, hidden: int) -> torch.Tensor:
    """Weights of variance 1 over the units that they come from, drawn from the fixed seed, and biases of nil: `[H I + 2 H + 1]`."""
    rng = np.random.default_rng(SEED + 1)
    W = rng.standard_normal((hidden, inputs)) / math.sqrt(inputs)
    v = rng.standard_normal(hidden) / math.sqrt(hidden)
    return torch.from_numpy(np.concatenate([W.reshape(-1), np.zeros(hidden), v, np.zeros(1)]))


@lru_cache(maxsize=4)
def friedman(data: int, inputs: int) -> torch.Tensor:
    """Rows `[N, I + 1]` of Friedman's first function: inputs uniform on the unit cube, and y, all of mean 0 and variance 1.

    y = 10 sin(pi u_1 u_2) + 20 (u_3 - 1/2)^2 + 10 u_4 + 5 u_5 + N(0, 1), drawn from the fixed seed; of fewer inputs than five the
    others stay unseen, and of more the rest are of no use. Friedman, Grosse & Stuetzle 1983, SIAM J. Sci. Stat. Comput. 4(2); with
    ten inputs, of which five are of no use, Friedman 1991, Annals of Statistics 19(1).
    """
    rng = np.random.default_rng(SEED)
    u = rng.uniform(size=(MOST_ROWS, MOST_INPUTS))
    y = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4]
    y = y + rng.standard_normal(MOST_ROWS)
    columns = [math.sqrt(12) * (u[:data, :inputs] - 0.5), ((y - y.mean()) / y.std())[:data, None]]
    return torch.from_numpy(np.concatenate(columns, 1))
