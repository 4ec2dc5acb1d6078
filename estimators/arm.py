"""ARM: augment, REINFORCE, merge; an antithetic pair of which each half uses its own uniform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Estimator, Noise
from estimators.disarm import draw, pairs

if TYPE_CHECKING:
    from torch import Tensor


def combine(noise: Tensor, fx: Tensor) -> Tensor:
    """g_d = mean over pairs of (f(1[u > 1 - p]) - f(1[u < p])) (u_d - 1/2)."""
    f_b, f_tilde = fx.chunk(2)
    return ((f_b - f_tilde)[..., None] * (noise - 0.5)).mean(0)


def arm(samples: int = 2) -> Estimator:
    """ARM for factorised Bernoulli variables with logits theta, averaged over samples / 2 antithetic pairs.

    Unbiased for Expectation and Elbo; `samples` evaluations of f, no gradient of f. DisARM is its mean over the uniforms given
    the bits. Yin & Zhou 2019, arXiv:1807.11143, theorem 1.
    """
    m = pairs("arm", samples)
    return Estimator(
        "arm",
        samples,
        draw,
        combine,
        ["bernoulli"],
        noise=[Noise("uniform", (m,))],
        kernel="estimators.kernels.antithetic:arm",
        settings={"samples": samples},
        source="arXiv:1807.11143, theorem 1",
    )
