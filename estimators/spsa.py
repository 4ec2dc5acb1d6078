"""SPSA: a central difference along one random direction of theta, both ends with the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, Noise, across
from estimators.perturbed import FAMILIES, exact_mean, moved, signs, symmetric

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size


def signs_and_draw(size: Size) -> list[Noise]:
    """Signs Delta in the shape of theta, and the noise of one draw."""
    return [Noise("sign", (), size.theta), *size.family.noise(size)]


def spsa(step: float = 0.01) -> Estimator:
    """SPSA, simultaneous perturbation: all parameters moved at once by +-h, two evaluations of f.

    Any f, any q that samples by a map of noise; of variables with a finite or countable support most differences are zero and the
    variance grows as 1/h. For Elbo both ends are points of f - log q with log q held at theta: the gradient of
    E_{theta'}[f - log q_theta] at theta' = theta is that of the ELBO. Biased by O(h^2) for Expectation and Elbo; its mean is the
    central difference's, over every direction of signs. Two evaluations of f, no gradient of f; the model's gradient is the mean
    of that at both ends. Spall 1992, IEEE Transactions on Automatic Control 37(3).
    """
    if not step > 0:
        raise ValueError(f"spsa[step={step}]: the step must be positive")

    def draw(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
        """x+- = T(u; theta +- h Delta), Delta = +-1, from the same u; x: [2, ..., *event]."""
        delta, u = noise
        return moved(q, step * torch.stack([delta, -delta]), u[None])

    def combine(noise: tuple[Tensor, Tensor], fx: Tensor) -> Tensor:
        """g = (f(x+) - f(x-)) / (2 h Delta)."""
        delta, _ = noise
        return across(fx[0] - fx[1], delta) / (2 * step * delta)

    def target(problem: Problem) -> Tensor | None:
        """(F(theta + h Delta) - F(theta - h Delta)) / (2 h Delta_i) has the mean of F(theta + h Delta) Delta_i / h."""
        return exact_mean(problem, lambda sites: symmetric(sites, *signs(sites.shape[-1]), step))

    claim = Claim("biased", target=target, of="the mean central difference along random signs")
    return Estimator(
        "spsa",
        [Ask.VALUE] * 2,
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        signs_and_draw,
        lambda fx: fx.mean(0),
        settings={"step": step},
        source="Spall 1992",
    )
