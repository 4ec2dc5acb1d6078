"""The score function: reinforce, and with the leave-one-out baseline, rloo. Any family that has a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Estimator

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw(q: Family, noise: Tensor) -> Tensor:
    """x_k ~ q, independent; x: [K, ..., *event]."""
    return q.sample(noise)


def reinforce(samples: int = 1, baseline: float = 0.0) -> Estimator:
    """REINFORCE, the score-function estimator, with a constant baseline.

    Unbiased for Expectation and Elbo, for any baseline that does not depend on the draw; K evaluations of f, no gradient of f.
    Glynn 1990; Williams 1992, section 2.
    """

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_k (f_k - b) grad log q(x_k)."""
        return q.score(x, (fx - baseline) / samples)

    return Estimator(
        "reinforce",
        samples,
        draw,
        combine,
        kernel="estimators.kernels.score_function:reinforce",
        settings={"samples": samples, "baseline": baseline},
        source="Williams 1992",
    )


def rloo(samples: int = 2) -> Estimator:
    """RLOO: REINFORCE with the mean of the other samples' f as each sample's baseline.

    Unbiased for Expectation and Elbo; K >= 2 evaluations of f, no gradient of f. For Elbo it is VarGrad, minus half the derivative
    of the variance of log q / p over the samples held fixed (Richter et al. 2020, arXiv:2010.10436).
    Salimans & Knowles 2014; Mnih & Rezende 2016, arXiv:1602.06725; Kool et al. 2019.
    """
    if samples < 2:
        raise ValueError(
            f"rloo[samples={samples}]: the baseline is the mean of the other samples, so samples must be at least 2"
        )

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/(K-1) sum_k (f_k - fbar) grad log q(x_k) = 1/K sum_k (f_k - mean_{j != k} f_j) grad log q(x_k)."""
        return q.score(x, (fx - fx.mean(0)) / (samples - 1))

    return Estimator(
        "rloo",
        samples,
        draw,
        combine,
        kernel="estimators.kernels.score_function:rloo",
        settings={"samples": samples},
        source="Kool et al. 2019",
    )
