"""The score function with samples without replacement, weighed by the chance that each passes the threshold of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Claim, Estimator
from estimators.enumeration import check_states, different, gumbels, listed
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

SMALL = -30.0  # 1 - exp(-exp t) is exp t below, to double precision


def log_passing(above: Tensor) -> Tensor:
    """log P(phi + G > kappa) = log(1 - exp(-exp(phi - kappa))) of above = phi - kappa."""
    return torch.where(above < SMALL, above, (-torch.expm1(-above.exp())).log())


def score_without_replacement(
    samples: int = 4, baseline: bool = True, normalised: bool = False, states: int = 1024
) -> Estimator:
    """Score function of k samples without replacement (Gumbel-top-k), importance-weighted, with the built-in baseline.

    For any finite family of at most `states` points. Nothing is assumed of f. Unbiased for Expectation and Elbo: equation 9, or
    with the baseline equation 10; normalised=True is biased, with less variance (equation 11), and, as all are, exact where k is
    the whole support. k evaluations of f, no gradient of f; of the threshold kappa, the next perturbed log q, no f is needed.
    exp(kappa) has a heavy tail, so that the variance is finite for k >= 2 only in (9), for k >= 4 in (10).
    Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!" (ICLR workshop), after arXiv:1903.06059.
    """
    at_least("score_without_replacement", 1, samples=samples)
    check_states("score_without_replacement", samples, states)
    if baseline and samples < 2:
        raise ValueError(
            f"score_without_replacement[samples={samples}]: the baseline comes from the other samples, so samples must be at "
            "least 2"
        )

    def drawn(q: Family, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The support; the places of the k largest phi + G; their log q and log q - kappa, kappa the k+1-th: all `[k, ...]`."""
        support, log_q = listed(q, noise.ndim - 1)
        log_q = log_q.expand_as(noise)
        most = min(samples + 1, log_q.shape[-1])
        perturbed, places = (log_q + noise).topk(most, -1)
        kappa = perturbed[..., samples:].amax(-1, keepdim=True) if most > samples else -torch.inf
        places = places[..., :samples]
        phi = log_q.gather(-1, places)
        return support, places.movedim(-1, 0), phi.movedim(-1, 0), (phi - kappa).movedim(-1, 0)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """S, k points drawn without replacement; x: [k, ..., *event]."""
        support, places, _, _ = drawn(q, noise)
        return support[places]

    def ratios(q: Family, noise: Tensor) -> tuple[Tensor, Tensor]:
        """q_i / P(phi_i + G_i > kappa) and q_i, [k, ...]."""
        _, _, phi, above = drawn(q, noise)
        return (phi - log_passing(above)).exp(), phi.exp()

    def combine(q: Family, noise: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """With r_i = q_i / P(phi_i + G_i > kappa), W = sum_S r_i, B = sum_S r_i f_i, sums over i in S:
        (9)  g = sum_i r_i f_i grad log q_i;                 normalised: divided by W
        (10) g = sum_i r_i (f_i (1 - q_i + r_i) - B) grad log q_i
        (11) g = sum_i r_i / (W - r_i + q_i) (f_i - B / W) grad log q_i.
        In (10) it is B with r_i replaced by q_i, whose mean given i in S is E f, that is taken off f_i."""
        r, p = ratios(q, noise)
        W, B = r.sum(0), (r * fx).sum(0)
        if not baseline:
            return q.score(x, r * fx / W if normalised else r * fx)
        if normalised:
            return q.score(x, r / (W - r + p) * (fx - B / W))
        return q.score(x, r * (fx * (1 - p + r) - B))

    def value(q: Family, noise: Tensor, fx: Tensor) -> Tensor:
        """L = sum_{i in S} r_i f_i; normalised: divided by W."""
        r, _ = ratios(q, noise)
        B = (r * fx).sum(0)
        return B / r.sum(0) if normalised else B

    kind = Claim("consistent") if normalised else Claim("unbiased")
    return Estimator(
        "score_without_replacement",
        different("score_without_replacement", samples),
        draw,
        combine,
        claims={"Expectation": kind, "Elbo": kind},
        noise=gumbels,
        value=value,
        states=states,
        kernel="estimators.kernels.without_replacement:score_without_replacement",
        settings={"samples": samples, "baseline": baseline, "normalised": normalised, "states": states},
        source="Kool et al. 2019",
    )
