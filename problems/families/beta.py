"""Factorised Beta variables; theta [(B,) 2, D] holds the logarithms of the two concentrations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


def slope(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """dx/da = -(dF/da) / q(x) of x ~ Beta(a, b) at a fixed uniform, by quadrature in double precision.

    -(dF/da) / q(x) = -int_0^x (log t - c) q(t)/q(x) dt = int_x^1 (log t - c) q(t)/q(x) dt, c = psi(a) - psi(a + b).
    The first integral, below the mean, with t = x exp(-y), and the second with 1 - t = (1 - x) exp(-y), are
    u int_0^inf exp(-p y) ((1 - u exp(-y)) / (1 - u))^(r - 1) (log t - c) dy, (u, p, r) = (x, a, b) or (1 - x, b, a):
    no sign changes but that of log t - c, and no singular end. The trapezium rule in w with y = s exp(w - exp(-w)), s the
    standard deviation of log u, has 41 nodes: off by less than 1e-8 of dx/da for concentrations from 0.1 to 1000.
    """
    kind, (x, a, b) = x.dtype, (v.double() for v in (x, a, b))
    low = x < a / (a + b)
    u, p, r = torch.where(low, x, 1 - x), torch.where(low, a, b), torch.where(low, b, a)
    s = (torch.polygamma(1, p) - torch.polygamma(1, p + r)).sqrt()
    c, log_u, log_rest = torch.digamma(a) - torch.digamma(a + b), u.log(), (-u).log1p()
    integral, step = torch.zeros_like(x), 0.2
    for node in range(-20, 21):
        w = step * node
        y = s * math.exp(w - math.exp(-w))
        dy = step * y * (1 + math.exp(-w))
        rest = (-u * (-y).exp()).log1p()
        integral += dy * (-p * y + (r - 1) * (rest - log_rest)).exp() * (torch.where(low, log_u - y, rest) - c)
    return (torch.where(low, -u, u) * integral).to(kind)


class Beta(Family):
    """x_d ~ Beta(a_d, b_d) with theta = (log a, log b); x: `[..., D]`, between 0 and 1.

    Sampled by inverting the distribution function, so that one uniform gives one variable (scipy.special.betaincinv, on the CPU).
    A point that rounds to 0 or 1 is the nearest number inside, which cuts log(1 - x) off at -37 (-17 in single precision), and
    with it the score in log b: its mean is off by the order of eps^b, eps = 2^-53 (2^-24), that is 1e-8 (2e-4) at b = 1/2 and
    1e-2 (1e-1) at b = 0.1.
    """

    name = "beta"

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @property
    def a(self) -> Tensor:
        """Concentration at 1."""
        return self.theta[..., 0, :].exp()

    @property
    def b(self) -> Tensor:
        """Concentration at 0."""
        return self.theta[..., 1, :].exp()

    @property
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    def mean_pull(self, g: Tensor) -> Tensor:
        """dm/dlog a = m (1 - m), dm/dlog b = -m (1 - m)."""
        spread = self.mean * self.b / (self.a + self.b)
        return torch.stack([g * spread, -g * spread], -2)

    def sample(self, noise: Tensor) -> Tensor:
        """x = F^-1(u; a, b); a uniform that single precision rounded to 1 stands for the largest there is, 1 - 2^-33."""
        from scipy.special import betaincinv

        a, b = (v.detach().expand(noise.shape).cpu().double().numpy() for v in (self.a, self.b))
        u = noise.cpu().double().clamp(max=1 - 2.0**-33).numpy()
        x = torch.from_numpy(betaincinv(a, b, u)).to(noise)
        kind = torch.finfo(x.dtype)
        return x.clamp(min=kind.tiny, max=1 - kind.eps / 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d (a - 1) log x + (b - 1) log(1 - x) - log B(a, b)."""
        a, b = self.a, self.b
        log_B = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return ((a - 1) * x.log() + (b - 1) * (-x).log1p() - log_B).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """(a (log x - psi(a) + psi(a + b)), b (log(1 - x) - psi(b) + psi(a + b)))."""
        a, b = self.a, self.b
        both = torch.digamma(a + b)
        of_a = a * (x.log() - torch.digamma(a) + both)
        return torch.stack([of_a, b * ((-x).log1p() - torch.digamma(b) + both)], -2)

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """Implicit reparameterisation, (a dx/da, b dx/db): 1 - x ~ Beta(b, a). Figurnov et al. 2018, arXiv:1805.08498."""
        a, b = self.a, self.b
        path = torch.stack([a * slope(x, a, b), -b * slope(1 - x, b, a)], -2)
        return (cotangent[..., None, :] * path).sum(0)
