"""The toy of SIMPLE: how far a random subset of fixed size is from a target of real numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.subset import Subset
from problems.settings import at_least

SEED = 2023


def subset(dim: int = 10, k: int = 5) -> Problem:
    """E |z - b|^2, z a subset of k of D sites as ones and zeros, b of N(0, 1) from a fixed seed.

    The sites depend on each other, so that nothing that resamples one site alone is at home here: scores, enumeration and
    drawing without replacement stand against gradients through the exact marginals (SIMPLE), which are biased because the
    slope 2 (z - b) is not what a change of a bit brings. Exact by enumeration, of 252 subsets for the paper's size.
    Points: `init` (uniform), `mid` (logits between -1 and 1), `converged` (logits of 3 towards the best subset).
    Ahmed et al. 2023, arXiv:2210.01941, section 5.
    """
    at_least("subset", 1, dim=dim, k=k)
    if k > dim:
        raise ValueError(f"subset[dim={dim},k={k}]: k must be at most dim")
    target = np.random.default_rng(SEED).standard_normal(dim)
    b = torch.from_numpy(target)

    def f(x: torch.Tensor) -> torch.Tensor:
        """|x - b|^2."""
        return ((x - b.to(x)) ** 2).sum(-1)

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += (x[d] - target[d]) ** 2
        return total

    best = torch.zeros(dim, dtype=torch.float64)
    best[b.topk(k).indices] = 1
    points = {
        "init": Point(torch.zeros(dim, dtype=torch.float64)),
        "mid": Point(torch.linspace(-1, 1, dim, dtype=torch.float64)),
        "converged": Point(6 * best - 3),
    }
    return Problem(
        name="subset",
        family=Subset(k),
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=True,
        degree=2,
        scalar_f=scalar_f,
        points=points,
        settings={"dim": dim, "k": k},
        source="Ahmed et al. 2023, arXiv:2210.01941",
    )
