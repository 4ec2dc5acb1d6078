"""Learning a control variate: descend the variance of the gradient in what its mean does not depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
BATCH = 100


def adam(state: Mapping[str, Tensor], gradients: Mapping[str, Tensor], lr: float, step: int) -> dict[str, Tensor]:
    """One step of Adam down `gradients`, its moments kept in the state beside what they are moments of.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), t = step + 1.
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    """
    new, t = dict(state), step + 1
    for name, g in gradients.items():
        m = BETA1 * state.get(f"{name}.m", torch.zeros_like(g)) + (1 - BETA1) * g
        v = BETA2 * state.get(f"{name}.v", torch.zeros_like(g)) + (1 - BETA2) * g * g
        new[f"{name}.m"], new[f"{name}.v"] = m, v
        new[name] = state[name] - lr * (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPSILON)
    return new


def least_variance(*names: str, lr: float) -> Callable[..., dict[str, Tensor]]:
    """A `learn` that descends E |g|^2 in the named parts of the state by Adam with rate `lr`.

    Right only where E g does not depend on them: then E |g|^2 is the total variance up to a constant.
    Tucker et al. 2017, arXiv:1703.07370.
    """

    def learn(state: Mapping[str, Tensor], gradient: Tensor, step: int) -> dict[str, Tensor]:
        loss = gradient.square().sum(-1).mean()
        slopes = torch.autograd.grad(loss, [state[name] for name in names])
        return adam(state, dict(zip(names, slopes, strict=True)), lr, step)

    return learn


def slope(c: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """c(z) and dc/dz of a learned function c, `[..., *event] -> [...]`; differentiable in its weights while they are learned."""
    learning = torch.is_grad_enabled()
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        c_z = c(z)
        (dc,) = torch.autograd.grad(c_z.sum(), z, create_graph=learning)
    return (c_z, dc) if learning else (c_z.detach(), dc)


def check_learning(name: str, steps: int, lr: float) -> None:
    """Raises ValueError where the number of steps or their rate makes no sense."""
    if steps < 0:
        raise ValueError(f"{name}[steps={steps}]: the number of learning steps cannot be negative")
    if not lr > 0:
        raise ValueError(f"{name}[lr={lr}]: the learning rate must be positive")


def check_decay(name: str, decay: float) -> None:
    """Raises ValueError where a moving average would not move, or would swing."""
    if not 0 <= decay < 1:
        raise ValueError(f"{name}[decay={decay}]: the decay must be at least 0 and less than 1")
