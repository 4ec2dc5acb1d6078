"""Factorised Dirichlet variables with log concentrations theta [(B,) D, C]; a point lies on the simplex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from problems.families.base import Family, Noise, Size
from problems.families.beta import slope
from problems.families.categorical import jacobian

if TYPE_CHECKING:
    from torch import Tensor


class Dirichlet(Family):
    """x_d ~ Dirichlet(alpha_d), alpha = exp(theta); x: `[..., D, C]`, positive, with sum 1 over the last axis, C >= 2.

    Sampled as Gamma variables over their sum, each by inverting its distribution function (scipy.special.gammaincinv, on the CPU).
    For concentrations from 0.01 on: of smaller ones all may underflow at once, to a point that is no draw.
    """

    name = "dirichlet"
    event_axes = 2

    @staticmethod
    def event(theta: Tensor) -> tuple[int, ...]:
        return tuple(theta.shape[-2:])

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @property
    def alpha(self) -> Tensor:
        """Concentrations."""
        return self.theta.exp()

    @property
    def total(self) -> Tensor:
        """Their sum, `[..., D, 1]`."""
        return self.alpha.sum(-1, keepdim=True)

    @property
    def mean(self) -> Tensor:
        """alpha / total = softmax(theta)."""
        return self.theta.softmax(-1)

    def mean_pull(self, g: Tensor) -> Tensor:
        """(diag m - m m') g."""
        return jacobian(self.mean, g)

    def sample(self, noise: Tensor) -> Tensor:
        """x = y / sum y, y_c ~ Gamma(alpha_c); a uniform that rounded to 1 stands for the largest there is, 1 - 2^-33."""
        from scipy.special import gammaincinv

        alpha = self.alpha.detach().expand(noise.shape).cpu().double().numpy()
        u = noise.cpu().double().clamp(max=1 - 2.0**-33).numpy()
        y = torch.from_numpy(gammaincinv(alpha, u)).clamp(min=torch.finfo(torch.float64).tiny)
        x = (y / y.sum(-1, keepdim=True)).to(noise)
        kind = torch.finfo(x.dtype)
        return x.clamp(min=kind.tiny, max=1 - kind.eps / 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d log Gamma(total) + sum_c (alpha_c - 1) log x_c - log Gamma(alpha_c), the density of all entries but the last."""
        of_entries = ((self.alpha - 1) * x.log() - torch.lgamma(self.alpha)).sum((-2, -1))
        return torch.lgamma(self.total).sum((-2, -1)) + of_entries

    def local(self, x: Tensor) -> Tensor:
        """alpha_c (log x_c - psi(alpha_c) + psi(total))."""
        return self.alpha * (x.log() - torch.digamma(self.alpha) + torch.digamma(self.total))

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """dx_i/dalpha_j = (1[i = j] - x_i) / (1 - x_j) dx_j/dalpha_j, dx_j/dalpha_j that of x_j ~ Beta(alpha_j, total - alpha_j).

        This moves x_j as its own uniform does and takes the same share off the other entries: the mean, given x, of how the Gamma
        variables over their sum move. Figurnov et al. 2018, arXiv:1805.08498; Jankowiak & Obermeyer 2018, arXiv:1806.01851.
        """
        own = slope(x, self.alpha, self.total - self.alpha) / (1 - x)
        return (self.alpha * own * (cotangent - (x * cotangent).sum(-1, keepdim=True))).sum(0)
