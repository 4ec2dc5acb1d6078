"""moving_average_baseline and optimal_baseline in lanes: the score function, less what was learned before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes

if TYPE_CHECKING:
    from torch import Tensor


def moving_average_baseline(samples: int, decay: float, steps: int) -> Form:
    """g = 1/K sum_k (f_k - b) grad log q(x_k), b the state."""

    def build(at: Lanes) -> Function:
        L, sample, score, f, credit = at.L, at.q.sample, at.q.score, at.f, at.credit
        one_K, ZERO = at.be.real(1 / samples), at.be.real(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[1, :] = one_K
            b = c.state[0]
            for k in range(samples):
                sample(x[0], e[0], k, c)
                f(r[0], x[0], c)
                credit(x[0], r[1], c)
                for l in range(L):
                    r[0, l] = (r[0, l] - b) * one_K
                score(g, x[0], r[0], c)

        return estimate

    def state(learned: Mapping[str, Tensor]) -> np.ndarray:
        return learned["b"].double().numpy().reshape(1)

    return Form(1, 2, build, state=state)


def optimal_baseline(samples: int, steps: int, batch: int, shared: bool) -> Form:
    """g_i = 1/K sum_k (f_k - b_i) s_ki, b_i = E[f s_i^2] / E[s_i^2] the state, s_i the score of parameter i of a site;
    shared, b = E[f |s|^2] / E|s|^2 in every place of it.
    """

    def build(at: Lanes) -> Function:
        P, L, sample, score, f, credit = at.shape.P, at.L, at.q.sample, at.q.score, at.f, at.credit
        one_K, ZERO = at.be.real(1 / samples), at.be.real(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[1, :] = one_K
            s = r[2:]
            for k in range(samples):
                sample(x[0], e[0], k, c)
                f(r[0], x[0], c)
                credit(x[0], r[1], c)
                s[:] = ZERO
                score(s, x[0], r[1], c)  # s_i / K
                for i in range(P):
                    b = c.state[i]
                    for l in range(L):
                        g[i, l] += (r[0, l] - b) * s[i, l]

        return estimate

    def state(learned: Mapping[str, Tensor]) -> np.ndarray:
        f_s2, s2 = (learned[name].double().numpy().reshape(-1) for name in ("f_s2", "s2"))
        if shared:
            f_s2, s2 = (np.full_like(sums, sums.sum()) for sums in (f_s2, s2))
        return np.divide(f_s2, s2, out=np.zeros_like(f_s2), where=s2 > 0)

    return Form(1, lambda shape: 2 + shape.P, build, state=state)
