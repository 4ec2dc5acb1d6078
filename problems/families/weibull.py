"""Factorised Weibull variables of a fixed shape, with log rates theta [(B,) D]; of shape 1 they are exponential."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class WeibullFamily(Family):
    """x_d with P(x_d > t) = exp(-rate_d t^shape), rate = exp(theta); x: `[..., D]`, positive. `Weibull(shape)` makes the class."""

    name = "weibull"
    shape: ClassVar[float]

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("exponential", (), size.event)]

    @property
    def rate(self) -> Tensor:
        """exp(theta), that of x^shape, which is exponential."""
        return self.theta.exp()

    @property
    def mean(self) -> Tensor:
        """rate^(-1/shape) Gamma(1 + 1/shape)."""
        return (-self.theta / self.shape).exp() * math.gamma(1 + 1 / self.shape)

    def mean_pull(self, g: Tensor) -> Tensor:
        """dmean/dtheta = -mean / shape."""
        return -self.mean / self.shape * g

    def sample(self, noise: Tensor) -> Tensor:
        """x = (E / rate)^(1/shape); an E that single precision rounded to 0 stands for the smallest there is, 2^-33."""
        return ((noise.clamp(min=2.0**-33).log() - self.theta) / self.shape).exp()

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d theta + log shape + (shape - 1) log x - rate x^shape."""
        rest = (self.shape - 1) * x.log() - self.rate * x**self.shape
        return (self.theta + math.log(self.shape) + rest).sum(-1)

    def local(self, x: Tensor) -> Tensor:
        """1 - rate x^shape."""
        return 1 - self.rate * x**self.shape

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """dx/dtheta = -x / shape."""
        return (-x / self.shape * cotangent).sum(0)


@cache
def Weibull(concentration: float) -> type[WeibullFamily]:
    """The family of Weibull variables of this shape: `Weibull(1.5)(theta)`; `Weibull(1.0)` is the exponential family."""
    if not concentration > 0:
        raise ValueError(f"Weibull({concentration}): the shape must be positive")

    class Bound(WeibullFamily):
        shape = float(concentration)

    return Bound
