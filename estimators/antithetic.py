"""Antithetic pairs of samples of any family: each half is drawn at the quantile that the other is not, u and 1 - u."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Size
from estimators.disarm import pairs
from estimators.pathwise import FAMILIES
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

MIRRORED: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: 1 - u,
    "normal": lambda eps: -eps,
    "exponential": lambda e: -(-torch.expm1(-e)).log(),
    "gumbel": lambda g: -(-(-torch.expm1(-(-g).exp())).log()).log(),
}


def draw(q: Family, size: Size, noise: Tensor) -> Tensor:
    """m pairs, x = T(F^-1(u)) first, then x~ = T(F^-1(1 - u)), F that of the noise; x: [2 m, ..., *event]."""
    (own,) = size.family.noise(size)
    return torch.cat([q.sample(noise), q.sample(MIRRORED[own.kind](noise))])


def by_path(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
    """g = mean over pairs of 1/2 [(dx/dtheta)' grad f(x) + (dx~/dtheta)' grad f(x~)]."""
    return q.path(x, dfx / len(x))


def by_score(q: Family, x: Tensor, fx: Tensor) -> Tensor:
    """g = mean over pairs of 1/2 [f(x) grad log q(x) + f(x~) grad log q(x~)]."""
    return q.score(x, fx / len(x))


def antithetic(samples: int = 2, gradient: str = "pathwise") -> Estimator:
    """The pathwise gradient, or the score function, averaged over samples / 2 antithetic pairs: of uniforms, u and 1 - u.

    For every family that samples by a map of noise (gradient=score), or that has a path. Unbiased for Expectation and Elbo (by the
    path: the path derivative of f - log q, as `pathwise`); `samples` evaluations of f (and gradients, by the path). Of the terms,
    the part that is odd in u - 1/2 cancels, and the part that is even gains nothing over one sample. By the score, terms are f
    times it: a constant in f has no part in the variance of Normal means, a linear f has that of half as many samples.
    Hammersley & Morton 1956; Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 7.
    """
    one_of("antithetic", ("pathwise", "score"), gradient=gradient)
    m, path = pairs("antithetic", samples), gradient == "pathwise"
    return Estimator(
        "antithetic",
        [Ask.SAMPLE | Ask.GRADIENT if path else Ask.SAMPLE] * samples,
        draw,
        by_path if path else by_score,
        FAMILIES if path else None,
        noise=lambda size: [n._replace(front=(m,)) for n in size.family.noise(size)],
        kernel="estimators.kernels.antithetic_of_any:antithetic",
        settings={"samples": samples, "gradient": gradient},
        source="Hammersley & Morton 1956",
    )


def antithetic_normal(samples: int = 2) -> Estimator:
    """Pathwise gradient for factorised Normal variables, averaged over samples / 2 antithetic pairs, eps and -eps.

    `antithetic` for them, under its older name. Assumes f continuous and differentiable almost everywhere. Unbiased for
    Expectation and Elbo; `samples` evaluations and gradients of f. The part of the gradient that is odd in eps cancels: that of the
    means has no variance where f is quadratic, while the part that is even in eps gains nothing over one sample.
    Hammersley & Morton 1956; for variational inference, Wu, Goodman & Ermon 2019, arXiv:1810.02555.
    """
    pairs("antithetic_normal", samples)
    return replace(
        antithetic(samples),
        name="antithetic_normal",
        family=["normal"],
        kernel="estimators.kernels.antithetic:antithetic_normal",
        settings={"samples": samples},
    )
