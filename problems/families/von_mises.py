"""Factorised von Mises variables, angles; theta [(B,) 2, D] holds the locations and the log concentrations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 7
NODES, WEIGHTS = (values.tolist() for values in np.polynomial.legendre.leggauss(24))


def falls(delta: Tensor, kappa: Tensor) -> Tensor:
    """exp(kappa (cos delta - 1)): the density over that at its mode."""
    return (-2 * kappa * (delta / 2).sin() ** 2).exp()


class VonMises(Family):
    """x_d ~ exp(kappa_d cos(x_d - mu_d)) / (2 pi I_0(kappa_d)) with theta = (mu, log kappa); x: `[..., D]`, from -pi to pi.

    Sampled by inverting the distribution function, so that one uniform gives one variable. A function f of angles has
    f(-pi) = f(pi); for another, the path does not see what passes from one end to the other. E x is not offered: it depends on
    where the circle is cut.
    """

    name = "von_mises"

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @property
    def mu(self) -> Tensor:
        """Location, the mean direction."""
        return self.theta[..., 0, :]

    @property
    def kappa(self) -> Tensor:
        """Concentration."""
        return self.theta[..., 1, :].exp()

    @property
    def resultant(self) -> Tensor:
        """A = E cos(x - mu) = I_1(kappa) / I_0(kappa)."""
        return torch.special.i1e(self.kappa) / torch.special.i0e(self.kappa)

    def sample(self, noise: Tensor) -> Tensor:
        """x = mu +- delta with F(delta) - 1/2 = v = |u - 1/2|, by Newton's steps in double precision; F by quadrature.

        They begin at the nearer of the uniform and the Normal quantile of v. F is concave right of mu, so that from the second
        step on they come from the left and cannot pass delta. Good to 1e-12 standard deviations, but for the outermost 1e-5 of
        the mass, where F's own rounding leaves 1e-6 of them.
        """
        u, kappa = noise.double().clamp(max=1 - 2.0**-33), self.kappa.detach().double()
        v, peak = (u - 0.5).abs(), 1 / (2 * math.pi * torch.special.i0e(kappa))
        normal = (torch.special.ndtri(0.5 + v) / (2 * kappa.sqrt())).clamp(max=1)
        delta = torch.minimum(2 * math.pi * v, 2 * normal.asin())
        for _ in range(STEPS):
            F = sum((w * falls(delta * (1 + t) / 2, kappa) for t, w in zip(NODES, WEIGHTS, strict=True)), 0 * delta)
            excess = peak * delta / 2 * F - v
            delta = (delta - excess / (peak * falls(delta, kappa))).clamp(0, math.pi)
        x = self.mu + torch.where(u < 0.5, -delta, delta).to(noise)
        return torch.remainder(x + math.pi, 2 * math.pi) - math.pi

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d kappa cos(x - mu) - log I_0(kappa) - log 2 pi."""
        log_peak = -torch.special.i0e(self.kappa).log() - math.log(2 * math.pi)
        return (log_peak - 2 * self.kappa * ((x - self.mu) / 2).sin() ** 2).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """(kappa sin(x - mu), kappa (cos(x - mu) - A))."""
        delta = x - self.mu
        return torch.stack([self.kappa * delta.sin(), self.kappa * (delta.cos() - self.resultant)], -2)

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """dx/dmu = 1; implicitly, dx/dkappa = -int_0^delta (cos t - A) q(t) dt / q(delta), delta = x - mu on the circle.

        Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498.
        """
        kappa, A = self.kappa, self.resultant
        delta = torch.remainder(x - self.mu + math.pi, 2 * math.pi) - math.pi
        dF = torch.zeros_like(delta)
        for t, w in zip(NODES, WEIGHTS, strict=True):
            at = delta * (1 + t) / 2
            dF += w * (at.cos() - A) * falls(at, kappa)
        dx_dkappa = -delta / 2 * dF / falls(delta, kappa)
        return torch.stack([cotangent, cotangent * kappa * dx_dkappa], -2).sum(0)
