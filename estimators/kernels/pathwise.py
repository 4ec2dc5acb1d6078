"""pathwise in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def pathwise(samples: int) -> Form:
    """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k)."""

    def build(at: Lanes) -> Function:
        D, L, sample, path, df = at.D, at.L, at.sample, at.path, at.df
        assert path is not None

        @at.be.jit
        def estimate(g, x, e, fx, z, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
            g[:] = 0.0
            for k in range(samples):
                sample(x[0], e[0], par, buf, first, tag + k, key)
                df(e[0], x[0], z)
                for d in range(D):
                    for l in range(L):
                        e[0, d, l] /= samples
                path(g, x[0], par, e[0])

        return estimate

    return Form(1, 1, build, gradient=True)
