"""The score function of samples that are spread over the support: stratified and systematic sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size
from estimators.enumeration import listed
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

DESIGNS = ("stratified", "systematic")


def stratified(samples: int = 2, design: str = "stratified", baseline: float = 0.0, states: int = 1024) -> Estimator:
    """The score function of stratified or systematic samples: one in each K-th of the joint states' mass, in their order.

    For any finite family of at most `states` points; with one site its values are the states. design: `stratified`, a uniform
    for each stratum, or `systematic`, one uniform that all strata share. Nothing is assumed of f. Unbiased for Expectation and
    Elbo; K evaluations of f, no gradient of f. Stratified never has more variance than reinforce with as many samples; of
    systematic that cannot be said. The samples depend on one another, so that a leave-one-out baseline would bias them: the
    baseline is a constant. Cochran, "Sampling techniques", 1977, chapters 5 and 8.
    """
    at_least("stratified", 1, samples=samples, states=states)
    one_of("stratified", DESIGNS, design=design)
    fronts = samples if design == "stratified" else 1

    def draw(q: Family, noise: Tensor) -> Tensor:
        """x_k = F^-1((k + u_k) / K), k = 0 ... K - 1, F the distribution function over the states in their order."""
        support, log_q = listed(q, noise.ndim - 1)
        F = log_q.exp().cumsum(-1)
        k = torch.arange(samples, dtype=noise.dtype, device=noise.device).reshape(-1, *[1] * (noise.ndim - 1))
        u = ((k + noise) / samples).movedim(0, -1) * F[..., -1:]  # the masses add up to one but for rounding
        places = torch.searchsorted(F.expand(*u.shape[:-1], -1).contiguous(), u.contiguous())
        return support[places.clamp(max=len(support) - 1).movedim(-1, 0)]

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_k (f_k - b) grad log q(x_k)."""
        return q.score(x, (fx - baseline) / samples)

    def value(fx: Tensor) -> Tensor:
        """L = 1/K sum_k f_k; a stratum's sample alone is none of q."""
        return fx.mean(0)

    def points(size: Size) -> list[Ask]:
        return [Ask.VALUE] * samples

    return Estimator(
        "stratified",
        points,
        draw,
        combine,
        noise=[Noise("uniform", (fronts,), ())],
        value=value,
        states=states,
        kernel="estimators.kernels.without_replacement:stratified",
        settings={"samples": samples, "design": design, "baseline": baseline, "states": states},
        source="Cochran 1977",
    )
