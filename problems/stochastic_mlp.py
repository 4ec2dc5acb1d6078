"""A classifier whose hidden units are bits drawn at random: where straight-through gradients came from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import softplus

from problems.base import Point, Problem
from problems.belief_network import affine, affine_count, encoders, initial_encoder
from problems.belief_network_sums import states
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.labelled_digits import CLASSES, PIXELS, check_rows, labelled_digits
from problems.points import stored_points
from problems.settings import at_least, one_of
from problems.truth import Truth, exactly

if TYPE_CHECKING:
    from torch import Tensor

MOST_BITS = {1: 16, 2: 14}  # in a layer: the exact gradient takes seconds
CHUNK = 2**22


def stochastic_mlp(layers: int = 1, hidden: int = 12, data: int = 500, batch: int = 20) -> Problem:
    """E log p(y | h) of a classifier of 8 x 8 digits whose hidden layers h are bits drawn at random.

    h_1 ~ Bernoulli(sigmoid(A_1 x + c_1)), with layers=2 h_2 ~ Bernoulli(sigmoid(A_2 h_1 + c_2)), and log p(y | h) is softmax
    regression on the last layer; `hidden` bits a layer. theta: the maps of the hidden layers; model: W, b of the softmax. Nothing
    is inferred: q is the network's own forward pass, and L a lower bound of its log likelihood log E p(y | h). `data` digits (ten
    is one of each), of which every replicate draws `batch` (0: takes all). Points: `init`, `mid`, `converged` of a training run.
    The loss bends where a class is decided, so that straight-through is biased: by 8% of the gradient in theta at `init`, where it
    points the right way, 29% at `mid` and 88% at `converged`; ReinMax by 2%, 6% and 69%, with more variance. On rows of 20, summing
    out one bit at a time (local_expectation) has straight-through's variance in theta and no bias; RLOO of two samples has 10 to 14
    times as much. With layers=2 the first layer is felt through the draw of the second only: what flips a bit and draws the layers
    after it again (RAM) has a tenth to a twentieth of the variance of summing out bits whose successors stay.
    Exact for up to 16 bits, or 14 in each of two layers: the table of log p(y | h) is shared by all data.
    Bengio, Leonard & Courville 2013, arXiv:1308.3432; Raiko et al. 2015, arXiv:1406.2989; Tang & Salakhutdinov, NeurIPS 2013.
    """
    one_of("stochastic_mlp", (1, 2), layers=layers)
    at_least("stochastic_mlp", 1, hidden=hidden)
    check_rows("stochastic_mlp", data, batch)
    widths = (PIXELS, *[hidden] * layers)
    upward = encoders(widths)
    rows = labelled_digits(data)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(y | h) = log softmax(h W + b)_y, h the last layer."""
        return (affine(model, x[..., -hidden:]).log_softmax(-1) * data[..., PIXELS:]).sum(-1)

    def of_pixels(encoder: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def logits(theta: torch.Tensor, earlier: list[torch.Tensor], data: torch.Tensor) -> torch.Tensor:
            return encoder(theta, earlier, data[..., :PIXELS])

        return logits

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return upward[0](theta, [], data[..., :PIXELS])

    def exact(problem: Problem) -> Truth:
        return exactly(gradient(problem, widths), "enumeration")

    init = Point(initial_encoder(widths), initial_softmax(hidden))
    settings: dict[str, Any] = {"layers": layers, "hidden": hidden, "data": data, "batch": batch}
    return Problem(
        name="stochastic_mlp",
        family=Bernoulli if layers == 1 else Chain(Bernoulli, [of_pixels(e) for e in upward], widths[1:], data=True),
        theta=init.theta,
        f=f,
        smooth=2,
        relaxed=True,
        encode=encode if layers == 1 else None,
        model=init.model,
        data=rows,
        batch=batch,
        exact=exact if hidden <= MOST_BITS[layers] else None,
        points=stored_points("stochastic_mlp", settings, init),
        settings=settings,
        source="Bengio et al. 2013, arXiv:1308.3432; Raiko et al. 2015, arXiv:1406.2989",
    )


def initial_softmax(hidden: int) -> Tensor:
    """W `[H, 10]` of entries N(0, 1 / H) and then b = 0, as the maps of the hidden layers start."""
    return initial_encoder((hidden, CLASSES), seed=1)


def gradient(problem: Problem, widths: tuple[int, ...]) -> Tensor:
    """The gradient in theta and the model, a chunk of the first layer's states h at a time.

    L = sum_h sum_i q(h | x_i) T(h, y_i), T(h, y) = log p(y | h) or its expectation over a second layer.
    """
    assert problem.data is not None
    assert problem.model is not None
    x, y = problem.data.split([PIXELS, CLASSES], -1)
    leaves = [t.detach().clone().requires_grad_() for t in (problem.theta, problem.model)]
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for h in states(widths[1]).split(max(CHUNK // (len(x) + CLASSES * 2 ** (widths[1] // 2)), 1)):
        theta, model = leaves
        maps = theta.split([affine_count(below, above) for below, above in pairwise(widths)])
        table = second_layer(h, maps[1], model) if len(maps) == 2 else affine(model, h).log_softmax(-1)
        L = (probabilities(affine(maps[0], x), h) * (y @ table.T)).sum()
        for sum_, g in zip(total, torch.autograd.grad(L, leaves), strict=True):
            sum_ += g
    return torch.cat(total)


def second_layer(h: Tensor, upward: Tensor, model: Tensor) -> Tensor:
    """E log p(y | h_2) over q(h_2 | h) for states h `[S, H]` and every y: `[S, 10]`.

    The table of log p over the states of h_2 is contracted with q in two halves of the bits: a matrix product.
    """
    logits = affine(upward, h)
    H = logits.shape[-1]
    first, last = states(H - H // 2), states(H // 2)
    table = affine(model, states(H)).log_softmax(-1).reshape(len(first), -1)
    inner = (probabilities(logits[:, : H - H // 2], first) @ table).reshape(len(h), len(last), CLASSES)
    return (inner * probabilities(logits[:, H - H // 2 :], last)[..., None]).sum(1)


def probabilities(logits: Tensor, bits: Tensor) -> Tensor:
    """Of every row of bits `[S, H]` under every row of logits `[R, H]`: `[R, S]`."""
    return (logits @ bits.T - softplus(logits).sum(-1)[:, None]).exp()
