"""Factorised categorical variables with logits theta [(B,) D, C]; a point is one-hot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import one_hot

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


def jacobian(p: Tensor, g: Tensor) -> Tensor:
    """(diag p - p p') g, the derivative of the softmax p applied to g: `[..., C]`."""
    return p * (g - (p * g).sum(-1, keepdim=True))


def onehot_argmax(logits: Tensor) -> Tensor:
    """One-hot vector of the largest of the last axis, in the dtype of `logits`."""
    return one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)


class Categorical(Family):
    """x_d is the one-hot vector of category c with probability p_dc = softmax(theta_d)_c; x: `[..., D, C]`."""

    name = "categorical"
    finite = True
    event_axes = 2

    @staticmethod
    def event(theta: Tensor) -> tuple[int, ...]:
        return tuple(theta.shape[-2:])

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("gumbel", (), size.event)]

    @classmethod
    def states(cls, theta: Tensor) -> int:
        D, C = theta.shape[-2:]
        return int(C) ** int(D)

    @property
    def p(self) -> Tensor:
        """softmax(theta)."""
        return self.theta.softmax(-1)

    @property
    def mean(self) -> Tensor:
        return self.p

    def mean_pull(self, g: Tensor) -> Tensor:
        """(diag p - p p') g."""
        return jacobian(self.p, g)

    def sample(self, noise: Tensor) -> Tensor:
        """The Gumbel-max trick: argmax_c theta_c + G_c."""
        return onehot_argmax(self.theta + noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d x_d . log softmax(theta_d)."""
        return (x * self.theta.log_softmax(-1)).sum((-2, -1))

    def local(self, x: Tensor) -> Tensor:
        """x - p."""
        return x - self.p

    def support(self) -> Tensor:
        D, C = self.theta.shape[-2:]
        index = torch.cartesian_prod(*[torch.arange(C, device=self.theta.device)] * D).reshape(-1, D)
        return one_hot(index, C).to(self.theta)
