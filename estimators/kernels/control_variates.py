"""muprop and double_cv in lanes: control variates that are linear in the sample, by gradients of f."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.relaxation import FAMILIES, entry, mean_of

if TYPE_CHECKING:
    from torch import Tensor


def muprop(samples: int, linear: bool, eta: float, steps: int, lr: float) -> Form:
    """g = 1/K sum_k [f(x_k) - eta (f(mu) + f'(mu).(x_k - mu))] grad log q(x_k) + eta (d mu / d theta)' f'(mu).

    The terms in f' are left out where the expansion is not linear.
    """

    def build(at: Lanes) -> Function:
        L, R, sample, score, f, df, credit = at.L, at.be.real, at.q.sample, at.q.score, at.f, at.df, at.credit
        mean, along, pull = mean_of(at)
        one_K, ZERO = R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            eta = c.state[0]
            slope, f_mu, expansion, share = e[0], r[0], r[1], r[2]
            g[:] = ZERO
            mean(x[0], c)
            f(f_mu, x[0], c)
            if linear:
                df(slope, x[0], c)
                pull(g, slope, eta, expansion, c)
            share[:] = one_K
            for k in range(samples):
                sample(x[0], e[1], k, c)
                credit(x[0], share, c)
                for l in range(L):
                    expansion[l] = f_mu[l]
                if linear:
                    along(expansion, slope, x[0], c)
                f(r[3], x[0], c)
                for l in range(L):
                    expansion[l] = (r[3, l] - eta * expansion[l]) * one_K
                score(g, x[0], expansion, c)

        return estimate

    def state(learned: Mapping[str, Tensor]) -> np.ndarray:
        return np.array([float(learned["eta"])])

    return Form(2, 4, build, gradient=linear, families=FAMILIES, state=state)


def double_cv(samples: int, steps: int, lr: float) -> Form:
    """g = 1/(K-1) sum_k [h_k - hbar] grad log q(x_k) - alpha (d mu / d theta)' mean_k f'(x_k),
    h_k = f_k + alpha mean_{j != k} f'(x_j) . (x_k - mu)."""
    K = samples

    def build(at: Lanes) -> Function:
        L, R, sample, score, f, df, credit = at.L, at.be.real, at.q.sample, at.q.score, at.f, at.df, at.credit
        P, of, (_, along, pull) = at.shape.P, entry(at.be, at.shape), mean_of(at)
        one_K, one_K_1, ZERO = R(1 / K), R(1 / (K - 1)), R(0)

        @at.be.jit
        def others(e):  # type: ignore[no-untyped-def]
            """e_K = sum_k e_k, e_k = sum_{j != k} e_j."""
            for i in range(P):
                total = of(e[K], i)
                total[:] = ZERO
                for k in range(K):
                    one = of(e[k], i)
                    for l in range(L):
                        total[l] += one[l]
                for k in range(K):
                    one = of(e[k], i)
                    for l in range(L):
                        one[l] = total[l] - one[l]

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            alpha, mean, row = c.state[0], r[K], r[K + 1]
            g[:] = ZERO
            row[:] = one_K
            for k in range(K):
                sample(x[k], e[k], k, c)
                credit(x[k], row, c)
                f(r[k], x[k], c)
                df(e[k], x[k], c)
            others(e)
            pull(g, e[K], -alpha * one_K, row, c)
            mean[:] = ZERO
            for k in range(K):
                row[:] = ZERO
                along(row, e[k], x[k], c)
                for l in range(L):
                    r[k, l] += alpha * one_K_1 * row[l]
                    mean[l] += r[k, l] * one_K
            for k in range(K):
                for l in range(L):
                    r[k, l] = (r[k, l] - mean[l]) * one_K_1
                score(g, x[k], r[k], c)

        return estimate

    def state(learned: Mapping[str, Tensor]) -> np.ndarray:
        return np.array([float(learned["alpha"])])

    return Form(K + 1, K + 2, build, gradient=True, families=FAMILIES, state=state)
