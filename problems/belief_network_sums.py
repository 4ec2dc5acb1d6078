"""The ELBO of a sigmoid belief network of one or two layers with all hidden states summed out, in 2^H terms a layer.

A plain enumeration of two layers takes 2^2H terms for each datum. Here the data share the tables of the states, the second layer is
summed out for each state of the first, and what depends on both layers at once is a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from problems.belief_network import affine, affine_count

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem

CHUNK = 2**20


def elbo_gradient(problem: Problem, widths: Sequence[int]) -> Tensor:
    """The gradient in the encoder's weights and then the model's, a chunk of the first layer's states h at a time.

    L = sum_x sum_h q(h | x) [log p(x | h) + G(h) - log q(h | x)], G(h) = log p(h), or with a second layer its own ELBO given h.
    """
    assert problem.data is not None
    assert problem.model is not None
    theta, model = (t.detach().clone().requires_grad_() for t in (problem.theta, problem.model))
    total = [torch.zeros_like(theta), torch.zeros_like(model)]
    for h in states(widths[1]).split(max(CHUNK // len(problem.data), 1)):
        L = _elbo_of_states(h, problem.data, theta, model, widths)
        for sum_, g in zip(total, torch.autograd.grad(L, (theta, model)), strict=True):
            sum_ += g
    return torch.cat(total)


def _elbo_of_states(h: Tensor, data: Tensor, theta: Tensor, model: Tensor, widths: Sequence[int]) -> Tensor:
    """The terms of L that belong to the states h `[S, H]` of the first layer."""
    upward = theta.split([affine_count(below, above) for below, above in pairwise(widths)])
    maps = [affine_count(above, below) for below, above in pairwise(widths)]
    *downward, top = model.split([*maps, widths[-1]])
    pixels, encoded = affine(downward[0], h), affine(upward[0], data)
    log_p = pixels @ data.T - softplus(pixels).sum(-1)[:, None]
    log_q = h @ encoded.T - softplus(encoded).sum(-1)
    above = second_layer(h, upward[1], downward[1], top) if len(widths) == 3 else h @ top - softplus(top).sum()
    return (log_q.exp() * (log_p + above[:, None] - log_q)).sum()


def second_layer(h: Tensor, upward: Tensor, downward: Tensor, top: Tensor) -> Tensor:
    """G(h) = E_q(z | h) [log p(h | z) + log p(z) - log q(z | h)] for first layers h `[S, H]`, z the second: `[S]`.

    log p(h | z) = h.l(z) - c(z), l affine and c(z) = sum_d log(1 + exp l_d(z)). All but E c needs only the mean of z. The table
    of c over the states of z is contracted with q in two halves of the bits: a matrix product.
    """
    a = affine(upward, h)
    m = a.sigmoid()
    H = a.shape[-1]
    first, last = states(H - H // 2), states(H // 2)
    table = softplus(affine(downward, states(H))).sum(-1).reshape(len(first), len(last))
    q_first, q_last = (
        _probabilities(a[:, part], half) for part, half in ((slice(0, H - H // 2), first), (slice(H - H // 2, H), last))
    )
    expected_c = ((q_first @ table) * q_last).sum(-1)
    entropy = (softplus(a) - a * m).sum(-1)
    return (h * affine(downward, m)).sum(-1) - expected_c + m @ top - softplus(top).sum() + entropy


def _probabilities(logits: Tensor, bits: Tensor) -> Tensor:
    """q(z) of every row of bits `[S, H]` under every row of logits `[R, H]`: `[R, S]`."""
    return (logits @ bits.T - softplus(logits).sum(-1)[:, None]).exp()


def states(bits: int) -> Tensor:
    """Every state of so many bits, the first bit slowest: `[2^bits, bits]`."""
    index = torch.arange(2**bits)[:, None]
    return (index >> torch.arange(bits - 1, -1, -1) & 1).double()
