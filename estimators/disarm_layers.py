"""DisARM on stochastic layers, of which each depends on those before: one antithetic pair a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def one_and_layers(size: Size) -> int:
    """A sample, and one more for each layer."""
    return 1 + len(size.family.layers)


def draw(q: Family, noise: Tensor) -> Tensor:
    """b(u), then b~_l = b(u with 1 - u in layer l): the layers before l are the same, those after re-run; x: [1 + L, ..., D]."""
    layers = [layer.to(noise.device) for layer in q.layers]
    turned = [noise.index_copy(-1, layer, 1 - noise[..., layer]) for layer in layers]
    return q.sample(torch.stack([noise, *turned]))


def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
    """g_l = 1/2 (f(b) - f(b~_l)) (b_l - b~_l) sigmoid(|logits_l|), pulled back to the weights that gave the logits."""
    b, logits = x[:1], q.params(x[:1])
    g = torch.zeros_like(b)
    for layer, b_tilde, f_tilde in zip(q.layers, x[1:], fx[1:], strict=True):
        pair = 0.5 * (fx[0] - f_tilde)[..., None] * (b - b_tilde) * logits.abs().sigmoid()
        g[..., layer] = pair[..., layer]
    return q.pull(b, g)


def disarm_layers() -> Estimator:
    """DisARM for layers of Bernoulli variables: each layer's uniforms are turned round, and what follows is run again.

    Unbiased for Expectation and Elbo; 1 + L evaluations of f for L layers, no gradient of f.
    Dong, Mnih & Tucker, NeurIPS 2020, arXiv:2006.10680.
    """
    return Estimator(
        "disarm_layers",
        one_and_layers,
        draw,
        combine,
        ["chain of bernoulli"],
        noise=[Noise("uniform")],
        source="arXiv:2006.10680",
    )
