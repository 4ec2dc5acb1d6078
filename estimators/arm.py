"""AR and ARM: augment, REINFORCE, and merge; the score is that of the uniform from which a bit is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Estimator, Noise
from estimators.disarm import draw, pairs
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def ar(samples: int = 1) -> Estimator:
    """AR, augment-REINFORCE, for factorised Bernoulli variables with logits theta: what ARM merges antithetically.

    Unbiased for Expectation and Elbo; K evaluations of f, no gradient of f. REINFORCE is its mean given the bits, and ARM its mean
    at u and at 1 - u: neither has more variance. Yin & Zhou 2019, arXiv:1807.11143.
    """
    at_least("ar", 1, samples=samples)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """b = 1[u < p]; x: [K, ..., D]."""
        return q.sample(noise)

    def combine(noise: Tensor, fx: Tensor) -> Tensor:
        """g_d = mean over samples of f(b) (1 - 2 u_d)."""
        return (fx[..., None] * (1 - 2 * noise)).mean(0)

    return Estimator(
        "ar",
        samples,
        draw,
        combine,
        ["bernoulli"],
        kernel="estimators.kernels.antithetic:ar",
        settings={"samples": samples},
        source="arXiv:1807.11143",
    )


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
