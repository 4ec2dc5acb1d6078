"""Factorised Normal variables; theta [(B,) 2, D] holds the means and the log scales."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class Normal(Family):
    """x_d ~ N(mu_d, sigma_d^2) with theta = (mu, log sigma); x: `[..., D]`."""

    name = "normal"

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("normal", (), size.event)]

    @property
    def mu(self) -> Tensor:
        """The means `[(B,) D]`."""
        return self.theta[..., 0, :]

    @property
    def sigma(self) -> Tensor:
        """The scales `[(B,) D]`."""
        return self.theta[..., 1, :].exp()

    @property
    def mean(self) -> Tensor:
        return self.mu

    def mean_pull(self, g: Tensor) -> Tensor:
        """The mean is mu itself; it does not depend on log sigma."""
        return torch.stack([g, torch.zeros_like(g)], -2)

    def sample(self, noise: Tensor) -> Tensor:
        """x = mu + sigma eps."""
        return self.mu + self.sigma * noise

    def noise_at(self, x: Tensor) -> Tensor:
        """eps = (x - mu) / sigma, of which x is the sample."""
        return (x - self.mu) / self.sigma

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d -1/2 eps_d^2 - log sigma_d - 1/2 log 2 pi, eps = (x - mu) / sigma."""
        eps = (x - self.mu) / self.sigma
        return (-0.5 * eps * eps - self.theta[..., 1, :] - 0.5 * math.log(2 * math.pi)).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """(eps / sigma, eps^2 - 1)."""
        eps = (x - self.mu) / self.sigma
        return torch.stack([eps / self.sigma, eps * eps - 1], -2)

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """dx/dmu = 1, dx/dlog sigma = x - mu."""
        return torch.stack([cotangent, cotangent * (x - self.mu)], -2).sum(0)
