"""What the relaxed estimators of bits and categories share: perturbed logits, the soft point they give, and its derivative.

A bit is a category of two, of which one logit is kept: its softmax is the sigmoid, its Gumbel noise the difference of two.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from problems.families.categorical import jacobian as softmax_jacobian

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FAMILIES = ["bernoulli", "categorical"]


def perturbed(q: Family, noise: Tensor) -> Tensor:
    """z whose hard value is the sample that q makes of this noise: theta + G, or theta - logit u for a bit."""
    return q.theta - noise.logit() if q.name == "bernoulli" else q.theta + noise


def soft(q: Family, z: Tensor) -> Tensor:
    """softmax(z), or sigmoid(z) for a bit."""
    return z.sigmoid() if q.name == "bernoulli" else z.softmax(-1)


def jacobian(q: Family, y: Tensor, g: Tensor) -> Tensor:
    """J(y) g, J = (diag y - y y') the derivative of y = soft(z): y (1 - y) for a bit."""
    return y * (1 - y) * g if q.name == "bernoulli" else softmax_jacobian(y, g)


def check_temperature(name: str, temperature: float, setting: str = "temperature") -> None:
    """Raises ValueError where the temperature is not positive, or is infinite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"{name}[{setting}={temperature}]: the temperature must be positive and finite")
