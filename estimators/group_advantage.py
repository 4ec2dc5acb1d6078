"""The score function weighted by a group's advantage: f less the group's own mean, over the group's spread or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import BIASED, Claim, Estimator
from estimators.score_function import draw
from problems.settings import at_least, one_of
from problems.truth import of_closed_form, true_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family

SCALES = ("none", "std", "mean")


def shrunk(samples: int) -> Claim:
    """The mean without a scale: 1 - 1/K of the gradient in theta, and all of that in the model, which has no baseline.

    Of what is drawn: `target_of` adds the term that needs no draw.
    """

    def target(problem: Problem) -> Tensor | None:
        truth = true_gradient(problem)
        if truth is None or truth.se.any():
            return None
        g = truth.gradient - of_closed_form(problem)
        g[: problem.theta.numel()] *= 1 - 1 / samples
        return g

    return Claim("biased", target=target, of="1 - 1/K of the gradient in theta")


def group_advantage(samples: int = 4, scale: str = "none", eps: float = 1e-4) -> Estimator:
    """REINFORCE with the mean of all K samples' f as baseline, the group mean; scale=std divides by their spread, as GRPO does.

    Any family, any f. Each sample is in its own baseline: biased for Expectation and Elbo. With scale=none the mean is
    exactly (1 - 1/K) of the gradient, and K/(K - 1) times the estimate is `rloo`. scale=std divides by the group's standard
    deviation (of K - 1 degrees of freedom) + eps: as K grows, the gradient over the standard deviation of f. scale=mean divides by
    the absolute value of the group's mean + eps, for rewards f >= 0: as K grows, the gradient of log E f (MaxRL). K >= 2
    evaluations of f, no gradient of f.
    Shao et al. 2024, arXiv:2402.03300; without the std, Liu et al. 2025, arXiv:2503.20783; over the mean, Tajwar et al. 2026,
    arXiv:2602.02710; eps as in the code of TRL.
    """
    at_least("group_advantage", 2, samples=samples)
    one_of("group_advantage", SCALES, scale=scale)
    if not eps > 0:
        raise ValueError(
            f"group_advantage[eps={eps}]: it keeps a group of equal f from dividing by zero; eps must be positive"
        )

    def divisor(fx: Tensor, off: Tensor) -> Tensor | float:
        if scale == "none":
            return 1.0
        return (off.std(0) if scale == "std" else fx.mean(0).abs()) + eps

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_k A_k grad log q(x_k), A_k = (f_k - fbar) / (std f + eps), or without the divisor.

        f_k less f_1 in both terms, so that a group of equal f has no advantage, not even that of rounding over eps.
        """
        off = fx - fx[0]
        return q.score(x, (off - off.mean(0)) / divisor(fx, off) / samples)

    return Estimator(
        "group_advantage",
        samples,
        draw,
        combine,
        claims=dict.fromkeys(BIASED, shrunk(samples)) if scale == "none" else BIASED,
        kernel="estimators.kernels.score_function:group_advantage",
        settings={"samples": samples, "scale": scale, "eps": eps},
        source="arXiv:2402.03300",
    )
