"""pathwise and pathwise_total in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def pathwise(samples: int, total: bool = False) -> Form:
    """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k); total: less 1/K sum_k grad_theta log q(x_k)."""

    def build(at: Lanes) -> Function:
        D, L, R, sample, path, score = at.D, at.L, at.be.real, at.q.sample, at.q.path, at.q.score
        df, credit = at.df, at.credit
        assert path is not None
        one_K, ZERO = R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[0, :] = one_K
            r[1, :] = -one_K
            for k in range(samples):
                sample(x[0], e[0], k, c)
                df(e[0], x[0], c)
                for d in range(D):
                    for l in range(L):
                        e[0, d, l] *= one_K
                path(g, x[0], e[0], c)
                if total:
                    score(g, x[0], r[1], c)
                credit(x[0], r[0], c)

        return estimate

    return Form(1, 2, build, gradient=True, families=("normal",))


def pathwise_total(samples: int) -> Form:
    """g = 1/K sum_k (dx_k/dtheta)' grad [f - log q](x_k) - 1/K sum_k grad_theta log q(x_k)."""
    return pathwise(samples, total=True)
