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
        """The smallest x with F(x) >= u: the terms q(x) are added until they pass u, in double precision.

        The sum begins 12 standard deviations below the mean, with less than exp(-72) of the mass left out, so that no rate
        underflows.
        """
        u = noise.double()
        rate = self.rate.detach().double().expand(u.shape)
        x = (rate - 12 * rate.sqrt()).clamp(min=0).floor()
        term = (x * rate.log() - rate - torch.lgamma(x + 1)).exp()
        cumulative = term.clone()
        beyond = u > cumulative
        while beyond.any():
            x = x + beyond
            term = torch.where(beyond, term * rate / x.clamp(min=1), term)
            larger = torch.where(beyond, cumulative + term, cumulative)
            beyond = (u > larger) & ((larger > cumulative) | (x < rate))
            cumulative = larger
        return x.to(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d x theta - lambda - log x!."""
        return (x * self.theta - self.rate - torch.lgamma(x + 1)).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """x - lambda."""
        return x - self.rate
