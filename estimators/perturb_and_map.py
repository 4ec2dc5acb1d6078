"""I-MLE and black-box differentiation: how far the most probable point of perturbed, or plain, logits moves with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import BIASED, Ask, Estimator, Noise, Size
from estimators.relaxation import perturbed
from problems.families.categorical import onehot_argmax
from problems.settings import at_least, one_of, positive

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FAMILIES = ["bernoulli", "categorical", "subset"]
PERTURBATIONS = ("gumbel", "sum_of_gamma")


def most_probable(q: Family, logits: Tensor) -> Tensor:
    """argmax_z logits . z over q's support: 1[logits > 0] for bits, a one-hot vector, the k largest of a subset."""
    if q.name == "bernoulli":
        return (logits > 0).to(logits)
    if q.name == "categorical":
        return onehot_argmax(logits)
    return torch.zeros_like(logits).scatter(-1, logits.topk(size_of_subset(type(q)), -1).indices, 1)


def size_of_subset(family: type) -> int:
    """k."""
    return int(family.k)  # type: ignore[attr-defined]


def gumbel(size: Size) -> Noise:
    """Of each logit; for a bit the uniform of the difference of two."""
    return Noise("uniform" if size.family.name == "bernoulli" else "gumbel", (1,), size.event)


def sum_of_gamma(uniform: Tensor, k: int) -> Tensor:
    """(1/k) (sum_i^s Gamma(1/k, scale k/i) - log s), of which k together are nearly Gumbel; uniform: `[1, s, ...] -> [1, ...]`."""
    from scipy.special import gammaincinv

    s = uniform.shape[1]
    unit = torch.from_numpy(gammaincinv(1 / k, uniform.cpu().double().numpy()))
    i = torch.arange(1, s + 1, dtype=unit.dtype).reshape(-1, *[1] * (unit.ndim - 2))
    return (((k / i * unit).sum(1) - torch.tensor(s, dtype=unit.dtype).log()) / k).to(uniform)


def value(fx: Tensor) -> Tensor:
    """L is estimated at the point perturbed."""
    return fx[0]


def imle(lam: float = 2.5, perturbation: str = "gumbel", terms: int = 10) -> Estimator:
    """I-MLE: how far the most probable point of perturbed logits moves when the logits take a step down f.

    Assumes f differentiable at the points of its support. For bits, categories and subsets of k. Gumbel noise makes the point a
    sample of q, but of a subset only nearly; perturbation=sum_of_gamma, for subsets, is nearer with its s = `terms`. Biased for
    Expectation and Elbo, for linear f too: a difference over a step of `lam`, the larger the more bias and the less variance.
    One evaluation and gradient of f, two most probable points. Code that leaves out 1 / lam has another scale.
    Niepert, Minervini & Franceschi 2021, arXiv:2106.01798.
    """
    positive("imle", lam=lam)
    one_of("imle", PERTURBATIONS, perturbation=perturbation)
    at_least("imle", 1, terms=terms)
    summed = perturbation == "sum_of_gamma"

    def points(size: Size) -> list[Ask]:
        subset = size.family.name == "subset"
        if summed and not subset:
            raise ValueError(
                f"sum_of_gamma is noise for subsets; for {size.family.name} variables Gumbel noise is exact"
            )
        return [(Ask.VALUE if subset else Ask.SAMPLE) | Ask.GRADIENT]

    def noise(size: Size) -> list[Noise]:
        return [Noise("uniform", (1, terms), size.event) if summed else gumbel(size)]

    def logits(q: Family, noise: Tensor) -> Tensor:
        """theta + eps."""
        return q.theta + sum_of_gamma(noise, size_of_subset(type(q))) if summed else perturbed(q, noise)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z(theta + eps); x: [1, ..., *event]."""
        return most_probable(q, logits(q, noise))

    def combine(q: Family, noise: Tensor, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/lam [z(theta + eps) - z(theta - lam grad f(z) + eps)]."""
        return 1 / lam * (x - most_probable(q, logits(q, noise) - lam * dfx))[0]

    return Estimator(
        "imle",
        points,
        draw,
        combine,
        FAMILIES,
        BIASED,
        noise=noise,
        value=value,
        settings={"lam": lam, "perturbation": perturbation, "terms": terms},
        source="arXiv:2106.01798",
    )


def blackbox_differentiation(lam: float = 20.0) -> Estimator:
    """Black-box differentiation of a solver: I-MLE at the most probable point itself, without noise.

    Assumes f differentiable at the points of its support. For bits, categories and subsets of k. Nothing is random, and f is
    asked at no sample of q: biased for Expectation and Elbo. It is the slope of a continuous, piecewise affine function of theta
    which has the jumps of f(z(theta)) drawn out over strips of width in proportion to `lam`. One evaluation and gradient of f,
    two most probable points.
    Vlastelica, Paulus, Musil, Martius & Rolinek 2020, arXiv:1912.02175.
    """
    positive("blackbox_differentiation", lam=lam)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z(theta); x: [1, ..., *event], the same for every replicate."""
        return most_probable(q, q.theta.expand(noise.shape))

    def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/lam [z(theta) - z(theta - lam grad f(z))]."""
        return 1 / lam * (x - most_probable(q, q.theta - lam * dfx))[0]

    return Estimator(
        "blackbox_differentiation",
        [Ask.VALUE | Ask.GRADIENT],
        draw,
        combine,
        FAMILIES,
        BIASED,
        value=value,
        settings={"lam": lam},
        source="arXiv:1912.02175",
    )
