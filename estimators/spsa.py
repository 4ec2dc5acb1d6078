"""SPSA: a central difference along one random direction of theta, both ends with the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import BIASED, Ask, Estimator, Noise, across

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family, Size


def signs_and_draw(size: Size) -> list[Noise]:
    """Signs Delta in the shape of theta, and the noise of one draw."""
    return [Noise("sign", (), size.theta), *size.family.noise(size)]


def spsa(step: float = 0.01) -> Estimator:
    """SPSA, simultaneous perturbation: all parameters moved at once by +-h, two evaluations of f.

    Any f, any q that samples by a map of noise; of variables with a finite or countable support most differences are zero and the
    variance grows as 1/h. For Elbo both ends are points of f - log q with log q held at theta: the gradient of
    E_{theta'}[f - log q_theta] at theta' = theta is that of the ELBO. Biased by O(h^2) for Expectation and Elbo; two evaluations of
    f, no gradient of f. Spall 1992, IEEE Transactions on Automatic Control 37(3).
    """
    if not step > 0:
        raise ValueError(f"spsa[step={step}]: the step must be positive")

    def draw(q: Family, theta: Tensor, noise: tuple[Tensor, Tensor]) -> Tensor:
        """x+- = T(u; theta +- h Delta), Delta = +-1, from the same u; x: [2, ..., *event]."""
        delta, u = noise
        return torch.stack([q.at(theta + step * delta).sample(u), q.at(theta - step * delta).sample(u)])

    def combine(noise: tuple[Tensor, Tensor], fx: Tensor) -> Tensor:
        """g = (f(x+) - f(x-)) / (2 h Delta)."""
        delta, _ = noise
        return across(fx[0] - fx[1], delta) / (2 * step * delta)

    families = ["bernoulli", "categorical", "normal", "gamma", "poisson"]
    settings = {"step": step}
    return Estimator(
        "spsa", [Ask.VALUE] * 2, draw, combine, families, BIASED, signs_and_draw, settings=settings, source="Spall 1992"
    )
