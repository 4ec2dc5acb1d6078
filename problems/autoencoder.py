"""What the variational autoencoders share: digits as rows, an encoder and a decoder with one hidden layer, their first weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from problems.labelled_digits import check_rows
from problems.modules import functional
from problems.objectives import Expectation
from problems.settings import at_least, one_of
from problems.truth import true_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.truth import Truth

KL = ("sampled", "closed_form")


def check(problem: str, hidden: int, data: int, batch: int, samples: int, kl: str, side: int) -> None:
    """Raises ValueError where the settings that both autoencoders have make no sense."""
    at_least(problem, 1, hidden=hidden, samples=samples)
    one_of(problem, KL, kl=kl)
    one_of(problem, (4, 8), side=side)
    check_rows(problem, data, batch)
    if kl == "closed_form" and samples > 1:
        raise ValueError(
            f"{problem}[kl=closed_form,samples={samples}]: a bound of several draws has log q of each in its weight; "
            "its divergence is sampled"
        )


def perceptron(
    inputs: int, hidden: int, outputs: int, seed: int, bias: Tensor | None = None
) -> tuple[Tensor, Callable[..., Any]]:
    """Weights and function of W' tanh(W x + b) + b'.

    Entries of W and W' start as N(0, 1 / number of inputs) from the seed, b at zero, b' at `bias` or zero.
    """
    rng = np.random.default_rng(seed)
    module = nn.Sequential(_linear(inputs, hidden, rng), nn.Tanh(), _linear(hidden, outputs, rng, bias))
    return functional(module)


def _linear(inputs: int, outputs: int, rng: np.random.Generator, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)
    matrix = torch.from_numpy(rng.standard_normal((outputs, inputs)) / inputs**0.5)
    state = {"weight": matrix, "bias": torch.zeros(outputs) if bias is None else bias}
    layer.load_state_dict(state)
    return layer


def pixel_logits(rows: Tensor) -> Tensor:
    """Logits of the smoothed means of the pixels, where a decoder's biases start: `[V]`."""
    return ((rows.sum(0) + 1) / (len(rows) + 2)).logit()


def analytic(elbo: Problem, f: Callable[..., Tensor], divergence: Callable[..., Tensor]) -> Problem:
    """The same ELBO as E f(z), f = log p(x | z), and a term `divergence` = -KL(q || p) that needs no draw."""

    def exact(problem: Problem) -> Truth | None:
        """The gradient of the ELBO, which is the same function."""
        whole = replace(problem, f=elbo.f, objective=elbo.objective, closed_form=None, exact=elbo.exact)
        return true_gradient(replace(whole, settings=elbo.settings))

    settings = {**elbo.settings, "kl": "closed_form"}
    return replace(elbo, f=f, objective=Expectation(), closed_form=divergence, exact=exact, settings=settings)
