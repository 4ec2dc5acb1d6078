"""A sigmoid belief network small enough to be summed out: up to 12 hidden bits under 4 x 4 digits."""

from __future__ import annotations

from typing import Any

import torch

from problems.base import Point, Problem
from problems.belief_network import digits, encoders, initial_encoder, initial_model, log_joint
from problems.belief_network_lanes import network_lanes
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.objectives import Elbo, ImportanceWeighted
from problems.points import stored_points
from problems.settings import at_least, one_of

MOST_BITS = 12


def tiny_sbn(hidden: int = 6, data: int = 8, layers: int = 1, samples: int = 1) -> Problem:
    """ELBO of a sigmoid belief network on 4 x 4 digits, amortised, with the model's gradient, exact by enumeration.

    `layers` layers of `hidden` bits (12 in all at most) under 16 pixels, an affine encoder upwards (theta) and affine maps
    downwards (model); the first `data` of scikit-learn's digits. The real thing in small: what a paper shows on MNIST without a
    truth is tested here against one. With layers=2 the second layer's logits depend on the first layer's draw. samples > 1: the
    importance-weighted bound of so many draws (VIMCO's task), at the ELBO's points where none of its own are stored.
    Mnih & Gregor 2014, arXiv:1402.0030; Mnih & Rezende 2016, arXiv:1602.06725.
    """
    one_of("tiny_sbn", (1, 2), layers=layers)
    at_least("tiny_sbn", 1, hidden=hidden, data=data, samples=samples)
    if layers * hidden > MOST_BITS:
        raise ValueError(
            f"tiny_sbn[hidden={hidden},layers={layers}]: the truth sums over every hidden state, at most {MOST_BITS} bits in all"
        )
    widths = (16, *[hidden] * layers)
    upward = encoders(widths)
    rows = digits(data, side=4)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(h_L) + sum_l log p(h_l | h_{l+1}), h_0 the pixels, p(h_l | h_{l+1}) = Bernoulli(sigmoid(h_{l+1} W_l + b_l))."""
        return log_joint(x, data, model, widths)

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return upward[0](theta, [], data)

    init = Point(initial_encoder(widths), initial_model(widths, rows))
    settings: dict[str, Any] = {"hidden": hidden, "data": data, "layers": layers, "samples": samples}
    points = stored_points("tiny_sbn", settings | {"samples": 1}, init) | stored_points("tiny_sbn", settings, init)
    return Problem(
        name="tiny_sbn",
        family=Bernoulli if layers == 1 else Chain(Bernoulli, upward, widths[1:], data=True),
        theta=init.theta,
        f=f,
        objective=Elbo() if samples == 1 else ImportanceWeighted(samples),
        smooth=2,
        relaxed=True,
        encode=encode if layers == 1 else None,
        model=init.model,
        data=rows,
        lanes=network_lanes(widths[0], hidden) if layers == 1 else None,
        points=points,
        settings=settings,
        source="Mnih & Gregor 2014, arXiv:1402.0030",
    )
