"""Pathwise gradients on antithetic pairs of Normal samples: eps and -eps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise
from estimators.disarm import pairs

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw(q: Family, noise: Tensor) -> Tensor:
    """m antithetic pairs, mu + sigma eps first: x~ = mu - sigma eps = 2 mu - x; x: [2 m, ..., D]."""
    return torch.cat([q.sample(noise), q.sample(-noise)])


def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
    """g = mean over pairs of 1/2 [(dx/dtheta)' grad f(x) + (dx~/dtheta)' grad f(x~)]."""
    return q.path(x, dfx / len(x))


def antithetic_normal(samples: int = 2) -> Estimator:
    """Pathwise gradient for factorised Normal variables, averaged over samples / 2 antithetic pairs.

    Assumes f continuous and differentiable almost everywhere. Unbiased for Expectation and Elbo (the path derivative of
    f - log q, as `pathwise`); `samples` evaluations and gradients of f. The part of the gradient that is odd in eps cancels: that
    of the means has no variance where f is quadratic, while the part that is even in eps gains nothing over one sample.
    Hammersley & Morton 1956; for variational inference, Wu, Goodman & Ermon 2019, arXiv:1810.02555.
    """
    m = pairs("antithetic_normal", samples)
    return Estimator(
        "antithetic_normal",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        ["normal"],
        noise=[Noise("normal", (m,))],
        kernel="estimators.kernels.antithetic:antithetic_normal",
        settings={"samples": samples},
        source="Hammersley & Morton 1956",
    )
