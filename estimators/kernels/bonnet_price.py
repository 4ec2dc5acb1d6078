"""bonnet_price in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import SIGMA


def bonnet_price(samples: int) -> Form:
    """g_mu = 1/K sum_k grad f(x_k), g_log_sigma = 1/K sum_k diag H(x_k) sigma^2."""

    def build(at: Lanes) -> Function:
        D, L, S, R, sample, df, hessian, credit = (
            at.D,
            at.L,
            at.S,
            at.be.real,
            at.q.sample,
            at.df,
            at.hessian,
            at.credit,
        )
        assert hessian is not None
        one_K, ZERO = R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            share = r[D * D]
            share[:] = one_K
            for k in range(samples):
                sample(x[0], e[0], k, c)
                df(e[0], x[0], c)
                hessian(r, x[0], c)
                for d in range(D):
                    for l in range(L):
                        sigma = c.par[SIGMA, d, S * l]
                        g[d, l] += one_K * e[0, d, l]
                        g[D + d, l] += one_K * (r[d * D + d, l] * (sigma * sigma))
                credit(x[0], share, c)

        return estimate

    return Form(1, lambda shape: shape.D**2 + 1, build, gradient=True, families=("normal",), hessian=True)
