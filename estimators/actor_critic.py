"""Actor-critic: rewards to go, less what a learned critic of the steps before expects of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Ask, Claim, Estimator, Learning, Size
from estimators.learning import check_decay, check_learning
from estimators.local_signals import across_sites, last_layer, layer_of
from estimators.nvil import BATCH, fitted, inputs, network, networks
from estimators.score_function import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family


def rewards(q: Family, fx: Tensor, parts: Tensor) -> Tensor:
    """r_l, the addends of f whose last layer is l: `[..., T] -> [..., layers]`."""
    layers = torch.arange(len(q.layers), device=fx.device)
    return fx @ (last_layer(q, parts)[:, None] == layers).to(fx)


def discounted(r: Tensor, factor: float) -> Tensor:
    """sum_{m >= l} factor^(m - l) r_m: `[..., layers] -> [..., layers]`."""
    found = [r[..., -1]]
    for before in r[..., :-1].flip(-1).unbind(-1):
        found.append(before + factor * found[-1])
    return torch.stack(found[::-1], -1)


def advantage(r: Tensor, V: Tensor, discount: float, trace: float) -> Tensor:
    """A_l = sum_{m >= l} (gamma lambda)^(m - l) (r_m + gamma V_{m + 1} - V_m), V = 0 after the last layer."""
    following = torch.cat([V[..., 1:], torch.zeros_like(V[..., :1])], -1)
    return discounted(r + discount * following - V, discount * trace)


def one_step(problem: Problem) -> bool:
    """No reward comes later, to be discounted or stood for."""
    family: Any = problem.family
    return len(family.layers) == 1


def actor_critic(
    samples: int = 1,
    discount: float = 1.0,
    trace: float = 1.0,
    hidden: int = 32,
    steps: int = 200,
    lr: float = 0.01,
    decay: float = 0.8,
) -> Estimator:
    """Actor-critic: the rewards to go after each layer of a Chain, less a learned critic; with trace < 1, as GAE.

    For a Chain whose f gives its addends (`parts`): layers are steps, and the reward of a step the addends that depend on no later
    one. The critic, a network for each step of the datum and of the layers before (NVIL's), is fitted to the rewards to go by least
    squares, on samples that the measured ones do not share. Unbiased for Expectation with trace=1 (lambda) and discount=1 (gamma),
    whatever the critic; with trace < 1 the critic stands for rewards that were drawn, which is biased where it is wrong, with
    discount < 1 later rewards count less, which is biased; of one step neither is. K evaluations of f, no gradient of f.
    Sutton, McAllester, Singh & Mansour 2000; Schulman et al. 2016, arXiv:1506.02438 (GAE).
    """
    at_least("actor_critic", 1, samples=samples, hidden=hidden)
    check_learning("actor_critic", steps, lr)
    for setting, number in (("discount", discount), ("trace", trace)):
        if not 0 <= number <= 1:
            raise ValueError(f"actor_critic[{setting}={number}]: {setting} must lie between 0 and 1")
    check_decay("actor_critic", decay)

    def init(size: Size, generator: torch.Generator, data: Tensor | None) -> dict[str, Tensor]:
        return networks(size, hidden, generator, data)

    def learn(
        state: Mapping[str, Tensor], q: Family, x: Tensor, fx: Tensor, parts: Tensor, data: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        """V_l = c_psi + c fitted to G_l, the rewards to go; c a moving average of G_l - c_psi."""
        G = discounted(rewards(q, fx, parts), discount)
        return fitted(state, G, inputs(q, x, data, state), decay, lr, step)[0]

    def combine(
        q: Family, x: Tensor, fx: Tensor, parts: Tensor, state: Mapping[str, Tensor], data: Tensor | None
    ) -> Tensor:
        """g = 1/K sum_k sum_l A_kl grad log q(x_kl | layers before), A_l = G_l - V_l where lambda = gamma = 1."""
        V = network(state, inputs(q, x, data, state)) + state["c"]
        A = advantage(rewards(q, fx, parts), V, discount, trace)
        s = q.local(x)
        weight = A[..., layer_of(q, x.shape[-q.event_axes])]
        return q.pull(x, across_sites(q, weight / samples, s) * s)

    settings = {
        "samples": samples,
        "discount": discount,
        "trace": trace,
        "hidden": hidden,
        "steps": steps,
        "lr": lr,
        "decay": decay,
    }
    return Estimator(
        "actor_critic",
        [Ask.SAMPLE | Ask.PARTS] * samples,
        draw,
        combine,
        ["chain of bernoulli", "chain of categorical"],
        claims={
            "Expectation": "unbiased" if discount == trace == 1 else Claim("biased", one_step, "there is one step")
        },
        learning=Learning(init, learn, steps, BATCH),
        settings=settings,
        source="arXiv:1506.02438",
    )
