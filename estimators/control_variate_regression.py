"""The score as its own control variate: f s regressed on s, parameter by parameter, on the samples of the same gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import UNBIASED, Estimator, across
from estimators.score_function import draw
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FITS = ("leave_one_out", "same")


def control_variate_regression(samples: int = 4, fit: str = "leave_one_out") -> Estimator:
    """Score function less a multiple of the score, regressed for each parameter on the samples themselves: BBVI's control variate.

    Any family, any f. The multiple is E[f s_i^2] / E[s_i^2], the baseline of `optimal_baseline`, without samples of its own.
    fit=leave_one_out: from the other samples, so that it is unbiased for Expectation and Elbo, and `rloo` at K = 2. fit=same: from
    all of them, as published: biased by O(1/K), consistent. One multiple for each parameter of a site and each datum; where
    weights give the sites' parameters it is the best for the sites, not for the weights. K >= 2 evaluations of f, no gradient of f.
    Ranganath, Gerrish & Blei 2014, arXiv:1401.0118, section 3.2, where the moments are centred; here E s_i = 0 is used.
    """
    at_least("control_variate_regression", 2, samples=samples)
    one_of("control_variate_regression", FITS, fit=fit)

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g_i = 1/K sum_k (f_k - a_ki) s_ki, a_ki = sum_{j != k} f_j s_ji^2 / sum_{j != k} s_ji^2, or with j = k too."""
        s = q.local(x)
        f, s2 = across(fx, s), s.square()
        seen = torch.ones(samples, samples).to(s)
        if fit == "leave_one_out":
            seen -= torch.eye(samples).to(s)
        above, below = torch.tensordot(seen, f * s2, 1), torch.tensordot(seen, s2, 1)
        a = torch.where(below > 0, above / below, 0.0)
        return q.pull(x, (f - a) * s / samples)

    return Estimator(
        "control_variate_regression",
        samples,
        draw,
        combine,
        claims=UNBIASED if fit == "leave_one_out" else dict.fromkeys(UNBIASED, "consistent"),
        settings={"samples": samples, "fit": fit},
        source="arXiv:1401.0118",
    )
