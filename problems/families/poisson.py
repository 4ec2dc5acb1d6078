"""Factorised Poisson variables with log rates theta [(B,) D]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class Poisson(Family):
    """x_d ~ Poisson(lambda_d), lambda = exp(theta); x: `[..., D]` of whole numbers.

    Sampled by inverting the distribution function, so that one uniform gives one variable.
    """

    name = "poisson"

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @property
    def rate(self) -> Tensor:
        """lambda = exp(theta)."""
        return self.theta.exp()

    @property
    def mean(self) -> Tensor:
        return self.rate

    def mean_pull(self, g: Tensor) -> Tensor:
        """dlambda/dtheta = lambda."""
        return self.rate * g

    def sample(self, noise: Tensor) -> Tensor:
        """The smallest x with F(x) >= u: the terms q(x) are added until they pass u."""
        rate = self.rate.detach().expand(noise.shape)
        x, term = torch.zeros_like(noise), (-rate).exp()
        cumulative = term.clone()
        beyond = noise > cumulative
        while beyond.any():
            x = x + beyond
            term = torch.where(beyond, term * rate / x.clamp(min=1), term)
            larger = torch.where(beyond, cumulative + term, cumulative)
            beyond = (noise > larger) & (larger > cumulative)
            cumulative = larger
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d x theta - lambda - log x!."""
        return (x * self.theta - self.rate - torch.lgamma(x + 1)).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """x - lambda."""
        return x - self.rate
