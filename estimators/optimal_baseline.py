"""REINFORCE with the constant baseline of least variance, for each parameter or for all, estimated on samples of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator, Learning, across
from estimators.score_function import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def init() -> dict[str, Tensor]:
    """Running sums of f s_i^2 and of s_i^2; their shape, that of the parameters of a point's sites, comes with the first step."""
    return {"f_s2": torch.zeros(()), "s2": torch.zeros(())}


def learn(state: Mapping[str, Tensor], q: Family, x: Tensor, fx: Tensor) -> dict[str, Tensor]:
    """Adds f s_i^2 and s_i^2 over samples, replicates and data."""
    s2 = q.local(x).square()
    axes = tuple(range(fx.ndim))
    return {"f_s2": state["f_s2"] + (across(fx, s2) * s2).sum(axes), "s2": state["s2"] + s2.sum(axes)}


def optimal_baseline(samples: int = 1, steps: int = 100, batch: int = 100, shared: bool = False) -> Estimator:
    """REINFORCE with the least-variance baseline of each parameter, E[f s_i^2] / E[s_i^2].

    Any family. Unbiased for Expectation and Elbo, because the baseline is estimated on steps x batch x K other samples; K
    evaluations of f, no gradient of f. One baseline for each parameter of a site, shared by all data; where weights give the
    sites' parameters it is the best for the sites, not for the weights. shared=True: one baseline for all parameters,
    E[f |s|^2] / E|s|^2. Weaver & Tao 2001; Greensmith, Bartlett & Baxter 2004.
    """
    at_least("optimal_baseline", 1, samples=samples, steps=steps, batch=batch)

    def combine(q: Family, x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """g_i = 1/K sum_k (f_k - b_i) s_ki, b_i = E[f s_i^2] / E[s_i^2], s_i the score of parameter i of a site; shared,
        b = E[f |s|^2] / E|s|^2."""
        s = q.local(x)
        f_s2, s2 = (state[name].sum() if shared else state[name] for name in ("f_s2", "s2"))
        b = torch.where(s2 > 0, f_s2 / s2, 0.0)
        return q.pull(x, (across(fx, s) - b) * s / len(fx))

    return Estimator(
        "optimal_baseline",
        samples,
        draw,
        combine,
        learning=Learning(init, learn, steps, batch),
        kernel="estimators.kernels.learned_baseline:optimal_baseline",
        settings={"samples": samples, "steps": steps, "batch": batch, "shared": shared},
        source="Greensmith et al. 2004",
    )
