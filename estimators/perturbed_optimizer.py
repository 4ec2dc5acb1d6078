"""Perturbed optimisers: f of the most probable point of noisy logits, differentiated through the density of the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Claim, Estimator, Noise, Size, across
from estimators.perturb_and_map import FAMILIES, most_probable
from estimators.smoothed_objective import smoothed_gradient
from problems.settings import at_least, one_of, positive

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family

PERTURBATIONS = ("normal", "gumbel")


def perturbed_optimizer(samples: int = 10, scale: float = 1.0, perturbation: str = "normal") -> Estimator:
    """Perturbed optimiser (stochastic smoothing): f of the most probable point of theta + scale noise, leave-one-out.

    Nothing is assumed of f, nor of how the most probable point is found; for bits, categories and subsets of k. Unbiased for the
    smoothed objective E f(z(theta + scale Z)), which is not q's: but with perturbation=gumbel and scale 1 bits and categories are
    drawn from q itself, and it is unbiased for Expectation and Elbo; one sample of bits is then AR (augment-REINFORCE). For
    Elbo log q's own theta is held fixed. K evaluations of f, no gradient of f.
    Berthet, Blondel, Teboul, Cuturi, Vert & Bach 2020, arXiv:2002.08676; leave-one-out: Petersen et al. 2024, arXiv:2410.08125.
    """
    at_least("perturbed_optimizer", 1, samples=samples)
    one_of("perturbed_optimizer", PERTURBATIONS, perturbation=perturbation)
    positive("perturbed_optimizer", scale=scale)
    normal = perturbation == "normal"

    def samples_of_q(family: str) -> bool:
        return not normal and scale == 1 and family != "subset"

    def points(size: Size) -> list[Ask]:
        return [Ask.SAMPLE if samples_of_q(size.family.name) else Ask.VALUE] * samples

    def noise(size: Size) -> list[Noise]:
        bits = size.family.name == "bernoulli"
        return [Noise("normal" if normal else "uniform" if bits else "gumbel", (samples,), size.event)]

    def standard(q: Family, noise: Tensor) -> Tensor:
        """Z: normal, Gumbel, or for bits logistic, the difference of two Gumbel variables: -logit u."""
        return -noise.logit() if q.name == "bernoulli" and not normal else noise

    def draw(q: Family, noise: Tensor) -> Tensor:
        """x_k = z(theta + scale Z_k), z(l) = argmax_z l . z; x: [K, ..., *event]."""
        return most_probable(q, q.theta + scale * standard(q, noise))

    def slope(q: Family, noise: Tensor) -> Tensor:
        """grad nu of the noise's density e^-nu: Z of a normal one, 1 - e^-Z of Gumbel's, 1 - 2 u of the logistic."""
        if normal:
            return noise
        return 1 - 2 * noise if q.name == "bernoulli" else -(-noise).expm1()

    def combine(q: Family, noise: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_k (f(x_k) - 1/(K-1) sum_{j != k} f(x_j)) grad nu(Z_k) / scale; without the baseline where K = 1."""
        centred = (fx - fx.mean(0)) / (samples - 1) if samples > 1 else fx
        nu = slope(q, noise) / scale
        return (across(centred, nu) * nu).sum(0)

    def value(fx: Tensor) -> Tensor:
        """L is estimated by the smoothed objective."""
        return fx.mean(0)

    def target(problem: Problem) -> Tensor | None:
        return smoothed_gradient(problem, perturbation, scale)

    claim = Claim(
        "biased",
        unless=lambda problem: samples_of_q(problem.family_name),
        because="the points are samples of q: bits or categories with Gumbel noise of scale 1",
        target=target,
        of="the smoothed objective E f(z(theta + scale Z))",
    )
    return Estimator(
        "perturbed_optimizer",
        points,
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        noise=noise,
        value=value,
        settings={"samples": samples, "scale": scale, "perturbation": perturbation},
        source="arXiv:2002.08676",
    )
