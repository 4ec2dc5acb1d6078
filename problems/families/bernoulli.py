"""Factorised Bernoulli variables with logits theta [(B,) D]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class Bernoulli(Family):
    """x_d = 1 with probability p_d = sigmoid(theta_d); x: `[..., D]` of 0. and 1."""

    name = "bernoulli"
    finite = True

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @classmethod
    def states(cls, theta: Tensor) -> int:
        return 2 ** theta.shape[-1]

    @property
    def p(self) -> Tensor:
        """sigmoid(theta)."""
        return self.theta.sigmoid()

    @property
    def mean(self) -> Tensor:
        return self.p

    def mean_pull(self, g: Tensor) -> Tensor:
        """dp/dtheta = p (1 - p)."""
        return self.p * (1 - self.p) * g

    def sample(self, noise: Tensor) -> Tensor:
        """x = 1[u < p]."""
        return (noise < self.p).to(self.theta)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d x_d theta_d - log(1 + exp theta_d)."""
        return (x * self.theta - softplus(self.theta)).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """x - p."""
        return x - self.p

    def support(self) -> Tensor:
        bit = torch.arange(2, dtype=self.theta.dtype, device=self.theta.device)
        D = self.theta.shape[-1]
        return torch.cartesian_prod(*[bit] * D).reshape(2**D, D)
