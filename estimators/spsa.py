"""SPSA: a central difference along one random direction of theta, both ends with the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, Noise, across
from estimators.perturbed import FAMILIES, MOST_NODES, exact_mean, moved, per_site, signs, symmetric
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size


def spsa(samples: int = 1, step: float = 0.01, common: bool = True) -> Estimator:
    """SPSA, simultaneous perturbation: all parameters moved at once by +-h, two evaluations of f for each direction of signs.

    Any f, any q that samples by a map of noise; of variables with a finite or countable support most differences are zero and the
    variance grows as 1/h. common: both ends share the noise of one draw of q; without it the variance grows as 1/h^2. For Elbo the
    ends are points of f - log q with log q held at theta: the gradient of E_{theta'}[f - log q_theta] at theta' = theta is that of
    the ELBO. Biased by O(h^2) for Expectation and Elbo; its mean is the central difference's, over every direction of signs. 2 K
    evaluations of f for the mean of K directions, no gradient of f; the model's gradient is the mean of that at the ends.
    Spall 1992, IEEE Transactions on Automatic Control 37(3).
    """
    at_least("spsa", 1, samples=samples)
    if not step > 0:
        raise ValueError(f"spsa[step={step}]: the step must be positive")

    def noise(size: Size) -> list[Noise]:
        """Signs Delta in the shape of theta, and the draws of q."""
        draws = samples if common else 2 * samples
        return [Noise("sign", (samples,), size.theta), *(n._replace(front=(draws,)) for n in size.family.noise(size))]

    def draw(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
        """x+-_k = T(u_k; theta +- h Delta_k), Delta = +-1, from the same u_k; x: [2 K, ..., *event], the x+ first."""
        delta, u = noise
        return moved(q, step * torch.cat([delta, -delta]), torch.cat([u, u]) if common else u)

    def combine(noise: tuple[Tensor, Tensor], fx: Tensor) -> Tensor:
        """g = 1/K sum_k (f(x+_k) - f(x-_k)) / (2 h Delta_k)."""
        delta, _ = noise
        return (across(fx[:samples] - fx[samples:], delta) / (2 * step * delta)).mean(0)

    def target(problem: Problem) -> Tensor | None:
        """(F(theta + h Delta) - F(theta - h Delta)) / (2 h Delta_i) has the mean of F(theta + h Delta) Delta_i / h."""
        if 2 ** per_site(problem) > MOST_NODES:
            return None
        return exact_mean(problem, lambda sites: symmetric(sites, *signs(sites.shape[-1]), step))

    claim = Claim("biased", target=target, of="the mean central difference along random signs")
    return Estimator(
        "spsa",
        [Ask.VALUE] * 2 * samples,
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        noise,
        lambda fx: fx.mean(0),
        settings={"samples": samples, "step": step, "common": common},
        source="Spall 1992",
    )
