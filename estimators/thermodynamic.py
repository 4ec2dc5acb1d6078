"""TVO: the gradient of a thermodynamic bound by covariances, under the path from q to p, of the log weights with the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Claim, Estimator
from estimators.importance_weighted import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family
    from problems.objectives import Objective


def of_q_alone(problem: Problem) -> bool:
    """The bound's only addend is at q."""
    return problem.objective.partition == ((0.0, 1.0),)


def value(fx: Tensor, objective: Objective) -> Tensor:
    """sum_j (b_{j+1} - b_j) sum_k v_k log w_k, v = softmax(b log w): the bound, self-normalised."""
    L = fx.new_zeros(fx.shape[1:])
    for beta, width in objective.partition:
        L = L + width * ((beta * fx).softmax(0) * fx).sum(0)
    return L


def tvo(samples: int = 5) -> Estimator:
    """TVO, the thermodynamic bound by its covariance gradient, self-normalised on one set of samples for all of its parts.

    Any q that has a score; the parts and their side are the objective's. Consistent for Thermodynamic: biased by O(1/K) at K
    samples, but where the bound has the addend of q alone, which is the ELBO's (there, RLOO). K >= 2 evaluations of f, no gradient
    of f. The model's gradient is that of the self-normalised bound, whose covariance is without the factor K / (K - 1).
    Masrani, Le & Wood 2019, arXiv:1907.00031.
    """
    at_least("tvo", 2, samples=samples)

    def combine(q: Family, x: Tensor, fx: Tensor, objective: Objective) -> Tensor:
        """g = sum_j (b_{j+1} - b_j) sum_k v_k [K/(K-1) (1 - b) (log w_k - E_b log w) - 1] grad log q(x_k), v = softmax(b log w).

        With E_b = sum_k v_k; (1 - b) grad log q is the score of pi_b ~ q^(1-b) p^b, and -grad log q the gradient of log w.
        """
        a = 0 * fx
        for beta, width in objective.partition:
            v = (beta * fx).softmax(0)
            excess = fx - (v * fx).sum(0)
            a = a + width * v * (samples / (samples - 1) * (1 - beta) * excess - 1)
        return q.score(x, a)

    claim = Claim("consistent", unless=of_q_alone, because="the bound has the addend of q alone: it is the ELBO")
    return Estimator(
        "tvo",
        samples,
        draw,
        combine,
        claims={"Thermodynamic": claim},
        value=value,
        settings={"samples": samples},
        source="arXiv:1907.00031",
    )
