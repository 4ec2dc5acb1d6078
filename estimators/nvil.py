"""NVIL: REINFORCE with a baseline that a network learns to read off the datum, and in layers off the layers before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import BIASED, UNBIASED, Estimator, Learning, Size
from estimators.learning import adam, check_decay, check_learning
from estimators.local_signals import across_sites, layer_of
from estimators.score_function import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

NETWORK = ("W", "a", "w")
BATCH = 20  # replicates of a step, each with all the data


def inputs(q: Family, x: Tensor, data: Tensor | None, state: Mapping[str, Tensor]) -> Tensor:
    """What each layer's baseline may see, `[..., layers, I]`: the datum less the data's mean, and the layers before its own."""
    layers = len(state["c"])
    seen = x.new_zeros(0) if data is None else data - state["centre"]
    seen = seen[..., None, :].expand(*seen.shape[:-1], layers, seen.shape[-1])
    if layers == 1:
        return seen
    before = layer_of(q, x.shape[-q.event_axes]) < torch.arange(layers)[:, None]
    if q.event_axes == 2:
        before = before.repeat_interleave(x.shape[-1], -1)
    earlier = x.flatten(x.ndim - q.event_axes)[..., None, :] * before.to(x)
    return torch.cat([seen.expand(*earlier.shape[:-1], seen.shape[-1]), earlier], -1)


def network(state: Mapping[str, Tensor], y: Tensor) -> Tensor:
    """c_psi(y) = w . tanh(W y + a), of each layer its own: `[..., layers, I] -> [..., layers]`."""
    return ((torch.einsum("...li,lhi->...lh", y, state["W"]) + state["a"]).tanh() * state["w"]).sum(-1)


def networks(size: Size, hidden: int, generator: torch.Generator, data: Tensor | None) -> dict[str, Tensor]:
    """A network for each layer, of output 0 at first, a constant c beside it, and the mean of the data."""
    layers = max(len(size.family.layers), 1)
    width = (0 if data is None else data.shape[1]) + (math.prod(size.event) if layers > 1 else 0)
    W = torch.randn(layers, hidden, width, generator=generator, dtype=torch.float64)
    return {
        "W": W / math.sqrt(max(width, 1)),
        "a": torch.zeros(layers, hidden),
        "w": torch.zeros(layers, hidden),
        "c": torch.zeros(layers),
        "centre": torch.zeros(0) if data is None else data.mean(0),
    }


def fitted(
    state: Mapping[str, Tensor], target: Tensor, y: Tensor, decay: float, lr: float, step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """psi a step of Adam down (target - c_psi(y) - c)^2, c = rho c + (1 - rho) mean l; and l = target - c_psi(y), `[N, layers]`."""
    with torch.enable_grad():
        psi = {name: state[name].detach().requires_grad_() for name in NETWORK}
        left = (target - network(psi, y)).flatten(0, -2)
        c = decay * state["c"] + (1 - decay) * left.detach().mean(0)
        loss = (left - c).square().mean(0).sum()
        slopes = torch.autograd.grad(loss, list(psi.values()))
    return {**adam(state, dict(zip(NETWORK, slopes, strict=True)), lr, step), "c": c}, left.detach()


def nvil(
    samples: int = 1,
    hidden: int = 100,
    steps: int = 200,
    lr: float = 0.01,
    decay: float = 0.8,
    normalised: bool = False,
) -> Estimator:
    """NVIL: REINFORCE with an input-dependent baseline, a learned network of the datum, and a running mean.

    Any family, any f. The network has one layer of `hidden` tanh units on the datum, less the data's mean; in a Chain each layer
    has its own, which sees the layers before as well; without data it is a learned constant. It is fitted to f by least squares
    (Adam), and what it leaves is centred by a moving average, both on samples that the measured ones do not share: unbiased for
    Expectation and Elbo. normalised=True divides by max(1, the running standard deviation of what is left), as published: biased,
    by a positive factor for each layer. K evaluations of f, no gradient of f.
    Mnih & Gregor 2014, arXiv:1402.0030, sections 2.3.1 to 2.3.3 (all of f for each layer; with local signals, `actor_critic`).
    """
    at_least("nvil", 1, samples=samples, hidden=hidden)
    check_learning("nvil", steps, lr)
    check_decay("nvil", decay)

    def init(size: Size, generator: torch.Generator, data: Tensor | None) -> dict[str, Tensor]:
        return {**networks(size, hidden, generator, data), "v": torch.zeros(max(len(size.family.layers), 1))}

    def learn(
        state: Mapping[str, Tensor], q: Family, x: Tensor, fx: Tensor, data: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        """l = f - c_psi; v = rho v + (1 - rho) var l; psi descends (f - c_psi - c)^2."""
        new, left = fitted(state, fx[..., None], inputs(q, x, data, state), decay, lr, step)
        return {**new, "v": decay * state["v"] + (1 - decay) * left.var(0)}

    def combine(q: Family, x: Tensor, fx: Tensor, state: Mapping[str, Tensor], data: Tensor | None) -> Tensor:
        """g_l = 1/K sum_k (f_k - c_psi(y_kl) - c_l) grad log q(x_kl | y_kl), y_kl the datum and the layers before l;
        normalised, over max(1, sqrt v_l)."""
        left = fx[..., None] - network(state, inputs(q, x, data, state)) - state["c"]
        if normalised:
            left = left / state["v"].sqrt().clamp(min=1.0)
        s = q.local(x)
        weight = left[..., layer_of(q, x.shape[-q.event_axes])]
        return q.pull(x, across_sites(q, weight / samples, s) * s)

    settings = {
        "samples": samples,
        "hidden": hidden,
        "steps": steps,
        "lr": lr,
        "decay": decay,
        "normalised": normalised,
    }
    return Estimator(
        "nvil",
        samples,
        draw,
        combine,
        claims=BIASED if normalised else UNBIASED,
        learning=Learning(init, learn, steps, BATCH),
        settings=settings,
        source="arXiv:1402.0030",
    )
