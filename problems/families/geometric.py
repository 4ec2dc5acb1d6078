"""Factorised geometric variables, failures before the first success, with logits theta [(B,) D]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import softplus

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class Geometric(Family):
    """x_d = 0, 1, ... with probability p_d (1 - p_d)^x_d, p = sigmoid(theta); x: `[..., D]` of whole numbers.

    Sampled by inverting the distribution function, so that one uniform gives one variable.
    """

    name = "geometric"

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @property
    def p(self) -> Tensor:
        """Probability of success, sigmoid(theta)."""
        return self.theta.sigmoid()

    @property
    def mean(self) -> Tensor:
        """(1 - p) / p = exp(-theta)."""
        return (-self.theta).exp()

    def mean_pull(self, g: Tensor) -> Tensor:
        """d exp(-theta)/dtheta."""
        return -self.mean * g

    def sample(self, noise: Tensor) -> Tensor:
        """The smallest x with F(x) = 1 - (1 - p)^(x + 1) >= u, in double precision.

        A uniform that single precision rounded to 1 stands for the largest there is, 1 - 2^-33.
        """
        u = noise.double().clamp(max=1 - 2.0**-33)
        x = (-u).log1p() / -softplus(self.theta.double())
        return (x.ceil() - 1).clamp(min=0).to(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d log p + x log(1 - p)."""
        return (-softplus(-self.theta) - x * softplus(self.theta)).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """1 - p - x p."""
        return (-self.theta).sigmoid() - x * self.p
