"""The log evidence by sums that end at random: SUMO and multilevel Monte Carlo, for the gradient of the model.

L_K = log 1/K sum_k w_k comes to log p(x) from below as K grows. Its increments are added up to a random stage, each divided by the
probability of reaching it, so that the mean is the last of them. Evaluations are counted where they are reached; time and memory
go into every point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, Noise, across
from estimators.combined_bounds import of_bound
from problems.objectives import log_mean_exp
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size

STAGE = 80  # of SUMO's stopping time, from which on its tail is geometric
KEEP = 0.9


def sumo(most: int = 128) -> Estimator:
    """SUMO, the log evidence by Russian roulette over the importance-weighted bounds, ended at `most` samples.

    Any q, of which it reads no derivative: the evidence has none in theta, and its gradient there is nil. For the gradient of the
    model. Consistent for LogMarginal: the mean is the gradient of L_most; without the end it would be unbiased, at a cost without
    bound. The increments, of size 1/k, are divided by P(T >= k): the variance grows without end with `most`, and rare long sums
    carry it. At most `most` evaluations of f, 1 + sum_{k < most} P(T >= k) in the mean (6.1 of 128), no gradient of f.
    Luo et al. 2020, arXiv:2004.00353: P(T >= k) = 1/k up to 80, then 0.9^(k-80) / 80.
    """
    at_least("sumo", 2, most=most)
    tails = [1 / k if k < STAGE else KEEP ** (k - STAGE) / STAGE for k in range(1, most)]

    def increments(log_w: Tensor) -> Tensor:
        """L_{k+1} - L_k, k = 1, ..., most - 1."""
        K = torch.arange(1, most + 1, dtype=log_w.dtype, device=log_w.device)
        L = log_w.logcumsumexp(0) - across(K.log(), log_w)
        return L[1:] - L[:-1]

    return ended("sumo", tails, [k + 1 for k in range(1, most)], increments, False, {"most": most}, "arXiv:2004.00353")


def mlmc_log_evidence(levels: int = 6, p: float = 0.6, form: str = "roulette") -> Estimator:
    """Multilevel Monte Carlo of the log evidence: bounds of 2, 4, 8, ... samples less those of their halves, to a random level.

    Any q, of which it reads no derivative: the evidence has none in theta, and its gradient there is nil. For the gradient of the
    model. Level j is reached with probability (1 - p)^j. form=roulette adds up all levels reached, form=single takes the last of
    them over its own probability. Consistent for LogMarginal: the mean is the gradient of L_K, K = 2^levels. Without the end the
    variance is finite for p < 3/4, as the differences vanish as 2^-2j in their squares, and the cost for p > 1/2. At most 2^levels
    evaluations of f, 2 + sum_{0 < j < levels} 2^j (1 - p)^j in the mean (4.7 of 64), no gradient of f.
    Shi & Cornish 2021, "On multilevel Monte Carlo unbiased gradient estimation for deep latent variable models".
    """
    at_least("mlmc_log_evidence", 1, levels=levels)
    one_of("mlmc_log_evidence", ("roulette", "single"), form=form)
    if not 0 < p < 1:
        raise ValueError(f"mlmc_log_evidence[p={p}]: p lies between 0 and 1")
    tails = [(1 - p) ** j for j in range(levels)]

    def increments(log_w: Tensor) -> Tensor:
        """D_j = L_{2^(j+1)} - (L of the odd + L of the even among them) / 2, j = 0, ..., levels - 1."""
        found = []
        for j in range(levels):
            first = log_w[: 2 ** (j + 1)]
            found.append(log_mean_exp(first) - 0.5 * (log_mean_exp(first[::2]) + log_mean_exp(first[1::2])))
        return torch.stack(found)

    settings = {"levels": levels, "p": p, "form": form}
    ends = [2 ** (j + 1) for j in range(levels)]
    return ended("mlmc_log_evidence", tails, ends, increments, form == "single", settings, "Shi & Cornish 2021")


def ended(
    name: str,
    tails: Sequence[float],
    ends: Sequence[int],
    increments: Callable[[Tensor], Tensor],
    single: bool,
    settings: dict[str, object],
    source: str,
) -> Estimator:
    """L_1 + sum_s c_s D_s to a random stage T: c_s = 1[s <= T] / P(T >= s), or of a single stage 1[s = T] / P(T = s).

    tails: P(T >= s), falling from 1. ends: points that the stages up to s take. increments: log w `[K, ...]` -> D `[S, ...]`.
    """
    most = ends[-1]
    stage_of = [next(s for s, end in enumerate(ends) if k < end) for k in range(most)]

    def reached(u: Tensor) -> Tensor:
        """1[s <= T] `[S, R, (B)]`: of every stage whether u < P(T >= s)."""
        return u < across(torch.tensor(tails, dtype=u.dtype, device=u.device), u[None])

    def draw(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
        """x_k ~ q, independent; NaN beyond those that the stages reached take."""
        x = q.sample(noise[0])
        alive = reached(noise[1])[stage_of]
        return torch.where(across(alive, x), x, torch.nan)

    def coefficients(u: Tensor) -> Tensor:
        """c_s `[S, R, (B)]`."""
        there = reached(u).to(u)
        P = torch.tensor(tails, dtype=u.dtype, device=u.device)
        if single:
            there, P = there - _next(there), P - _next(P)
        return there / across(P, there)

    def value(fx: Tensor, noise: tuple[Tensor, Tensor]) -> Tensor:
        """L_1 + sum_s c_s D_s, a point that is not there having no part in any D_s that counts."""
        log_w = torch.where(fx.isnan(), 0, fx)
        return log_w[0] + (coefficients(noise[1]) * increments(log_w)).sum(0)

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 0: q has no part in log p(x)."""
        return q.score(x[:1], torch.zeros_like(fx[:1]))

    def noises(size: Size) -> list[Noise]:
        return [size.family.noise(size)[0]._replace(front=(most,)), Noise("uniform", (), ())]

    def target(problem: Problem) -> Tensor | None:
        g, P = of_bound(problem, most), problem.theta.numel()
        return None if g is None else torch.cat([0 * g[:P], g[P:]])

    claim = Claim("consistent", target=target, of=f"the bound of {most} samples in the model, nil in theta")
    return Estimator(
        name,
        [Ask.VALUE] * most,
        draw,
        combine,
        claims={"LogMarginal": claim},
        noise=noises,
        value=value,
        settings=settings,
        source=source,
    )


def _next(a: Tensor) -> Tensor:
    """a_{s+1}, nil after the last."""
    return torch.cat([a[1:], torch.zeros_like(a[:1])])
