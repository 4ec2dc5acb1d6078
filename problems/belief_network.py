"""The sigmoid belief network and its encoder, as pure functions of flat weights: the text that every such problem shares.

`widths` = (V, H_1, ..., H_L): the pixels and then the hidden layers, bottom to top. Layer l's bits are Bernoulli given the layer
above, p(h_l | h_{l+1}) = sigmoid(h_{l+1} W_l + b_l), with h_0 = the pixels and free logits at the top; the encoder runs upwards,
q(h_{l+1} | h_l) = sigmoid(h_l A_l + c_l). A draw z holds h_1, ..., h_L side by side: z `[..., B, H_1 + ... + H_L]`.
Neal 1992; as amortised inference, Mnih & Gregor 2014, arXiv:1402.0030.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from torch import Tensor

Encoder = Callable[..., "Tensor"]


def affine_count(inputs: int, outputs: int) -> int:
    """Entries of a matrix [inputs, outputs] and of its bias [outputs]."""
    return (inputs + 1) * outputs


def encoder_count(widths: Sequence[int]) -> int:
    """Entries of theta: one affine map upwards for each hidden layer."""
    return sum(affine_count(below, above) for below, above in pairwise(widths))


def model_count(widths: Sequence[int]) -> int:
    """Entries of the model: one affine map downwards for each hidden layer, and the logits of the top."""
    return widths[-1] + sum(affine_count(above, below) for below, above in pairwise(widths))


def affine(weights: Tensor, h: Tensor) -> Tensor:
    """h W + b; weights `[(I + 1) O]` hold W row by row and then b, h `[..., I]`, the result `[..., O]`."""
    table = weights.reshape(h.shape[-1] + 1, -1)
    return h @ table[:-1] + table[-1]


def encoders(widths: Sequence[int]) -> list[Encoder]:
    """The encoder of each hidden layer as `Chain` takes it: (theta, earlier layers, data) -> logits `[..., B, H_l]`."""

    def encoder(first: int, last: int) -> Encoder:
        def logits(theta: Tensor, earlier: list[Tensor], data: Tensor) -> Tensor:
            return affine(theta[first:last], earlier[-1] if earlier else data)

        return logits

    cuts = np.cumsum([0] + [affine_count(below, above) for below, above in pairwise(widths)]).tolist()
    return [encoder(first, last) for first, last in pairwise(cuts)]


def log_bernoulli(bits: Tensor, logits: Tensor) -> Tensor:
    """sum over the last axis of b l - log(1 + exp l)."""
    return (bits * logits - softplus(logits)).sum(-1)


def log_joint(z: Tensor, data: Tensor, model: Tensor, widths: Sequence[int]) -> Tensor:
    """log p(data, z): z `[..., B, sum H]`, data `[(R,) B, V]` -> `[..., B]`; model `[M]`: maps bottom to top, then top logits."""
    hidden = z.split(list(widths[1:]), -1)
    maps = [affine_count(above, below) for below, above in pairwise(widths)]
    *downward, top = model.split([*maps, widths[-1]])
    total = log_bernoulli(hidden[-1], top)
    for below, above, weights in zip((data, *hidden), hidden, downward, strict=False):
        total = total + log_bernoulli(below, affine(weights, above))
    return total


def initial_encoder(widths: Sequence[int], seed: int = 0) -> Tensor:
    """theta at the start: entries of the matrices N(0, 1 / inputs), biases zero; `[P]`."""
    rng = np.random.default_rng(seed)
    return torch.cat([_affine_start(below, np.zeros(above), rng) for below, above in pairwise(widths)])


def initial_model(widths: Sequence[int], data: Tensor, seed: int = 1) -> Tensor:
    """The model at the start: matrices as the encoder's; the pixels' biases are the logits of their smoothed means; `[M]`."""
    rng = np.random.default_rng(seed)
    mean = (data.double().sum(0) + 1) / (len(data) + 2)
    biases = [mean.logit().numpy(), *[np.zeros(width) for width in widths[1:-1]]]
    maps = [_affine_start(above, bias, rng) for above, bias in zip(widths[1:], biases, strict=True)]
    return torch.cat([*maps, torch.zeros(widths[-1], dtype=torch.float64)])


def _affine_start(inputs: int, bias: np.ndarray, rng: np.random.Generator) -> Tensor:
    matrix = rng.standard_normal((inputs, len(bias))) / np.sqrt(inputs)
    return torch.from_numpy(np.concatenate([matrix.reshape(-1), bias]))


def digits(rows: int, side: int = 8) -> Tensor:
    """The first `rows` of scikit-learn's handwritten digits as bits `[rows, side^2]`; side is 8, or 4 (means of 2 x 2 pixels).

    A pixel is 1 where its grey is at least half of the largest, 8 of 16. The first ten are one of each digit.
    """
    from sklearn.datasets import load_digits

    grey = load_digits().images[:rows]
    block = 8 // side
    pooled = grey.reshape(len(grey), side, block, side, block).mean((2, 4))
    return torch.from_numpy((pooled >= 8).astype(np.float64).reshape(len(grey), -1))
