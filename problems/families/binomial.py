"""Factorised binomial variables of n trials, with logits theta [(B,) D]."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import softplus

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class BinomialFamily(Family):
    """x_d = 0 ... n with probability (n choose x_d) p_d^x_d (1 - p_d)^(n - x_d), p = sigmoid(theta); x: `[..., D]`.

    Sampled by inverting the distribution function, so that one uniform gives one variable. `Binomial(n)` makes the class.
    """

    name = "binomial"
    finite = True
    n: ClassVar[int]

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @classmethod
    def states(cls, theta: Tensor) -> int:
        return int((cls.n + 1) ** theta.shape[-1])

    @property
    def p(self) -> Tensor:
        """Probability of success, sigmoid(theta)."""
        return self.theta.sigmoid()

    @property
    def mean(self) -> Tensor:
        return self.n * self.p

    def mean_pull(self, g: Tensor) -> Tensor:
        """dn p/dtheta = n p (1 - p)."""
        return self.n * self.p * (-self.theta).sigmoid() * g

    def sample(self, noise: Tensor) -> Tensor:
        """The smallest x with F(x) >= u: one more for each of F(0) ... F(n - 1) below u, in double precision."""
        u, sites = noise.double(), self.at(self.theta.double()[..., None, None])
        F = sites.log_prob(torch.arange(self.n).to(u)[:, None]).exp().cumsum(-1)
        return sum((u > F[..., x] for x in range(1, self.n)), (u > F[..., 0]).to(noise))

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d log (n choose x) + x theta - n log(1 + exp theta)."""
        n = torch.as_tensor(self.n + 1.0).to(x)
        choices = torch.lgamma(n) - torch.lgamma(x + 1) - torch.lgamma(n - x)
        return (choices + x * self.theta - self.n * softplus(self.theta)).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """x - n p."""
        return x - self.n * self.p

    def support(self) -> Tensor:
        D = self.theta.shape[-1]
        count = torch.arange(self.n + 1).to(self.theta)
        return torch.cartesian_prod(*[count] * D).reshape(-1, D)


@cache
def Binomial(trials: int) -> type[BinomialFamily]:
    """The family of binomial variables of so many trials, n: `Binomial(10)(theta)`."""
    if trials < 1:
        raise ValueError(f"Binomial({trials}): there must be at least 1 trial")

    class Bound(BinomialFamily):
        n = trials

    return Bound
