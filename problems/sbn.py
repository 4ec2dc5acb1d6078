"""Sigmoid belief network on handwritten digits, with an amortised encoder."""

from __future__ import annotations

from typing import Any

import torch

from problems.base import Point, Problem
from problems.belief_network import digits, encoders, initial_encoder, initial_model, log_joint
from problems.belief_network_lanes import network_lanes
from problems.belief_network_sums import elbo_gradient
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.labelled_digits import check_rows
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import at_least, one_of
from problems.truth import Truth, exactly

MOST_BITS = 16


def sbn(layers: int = 1, hidden: int = 16, data: int = 100, batch: int = 20) -> Problem:
    """ELBO of a sigmoid belief network on 8 x 8 binarised digits: binary latents, amortised, with the model's gradient.

    `layers` layers of `hidden` bits under 64 pixels, an affine encoder upwards; `data` digits (ten is one of each), of which
    every replicate draws `batch` (0: takes all). The task of every paper on discrete gradients since NVIL: the gradient is pulled
    back to an encoder's weights and comes with the model's own. With layers=2 the second layer's logits depend on the first
    layer's draw, which only estimators that know of layers, or of nothing but log q, survive. Exact for up to 16 hidden bits: the
    sums over both layers factorise, and take seconds; for more there is a stored reference, or none.
    Mnih & Gregor 2014, arXiv:1402.0030; Tucker et al. 2017, arXiv:1703.07370; Dong et al. 2020, arXiv:2006.10680.
    """
    one_of("sbn", (1, 2), layers=layers)
    at_least("sbn", 1, hidden=hidden)
    check_rows("sbn", data, batch)
    widths = (64, *[hidden] * layers)
    upward = encoders(widths)
    rows = digits(data)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(h_L) + sum_l log p(h_l | h_{l+1}), h_0 the pixels, p(h_l | h_{l+1}) = Bernoulli(sigmoid(h_{l+1} W_l + b_l))."""
        return log_joint(x, data, model, widths)

    def exact(problem: Problem) -> Truth:
        return exactly(elbo_gradient(problem, widths), "enumeration")

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return upward[0](theta, [], data)

    init = Point(initial_encoder(widths), initial_model(widths, rows))
    settings: dict[str, Any] = {"layers": layers, "hidden": hidden, "data": data, "batch": batch}
    return Problem(
        name="sbn",
        family=Bernoulli if layers == 1 else Chain(Bernoulli, upward, widths[1:], data=True),
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        encode=encode if layers == 1 else None,
        model=init.model,
        data=rows,
        batch=batch,
        lanes=network_lanes(widths[0], hidden) if layers == 1 else None,
        exact=exact if hidden <= MOST_BITS else None,
        points=stored_points("sbn", settings, init),
        settings=settings,
        source="Mnih & Gregor 2014, arXiv:1402.0030",
    )
