"""reinforce and rloo in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def reinforce(samples: int, baseline: float) -> Form:
    """g = 1/K sum_k (f_k - b) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, sample, score, f = at.L, at.sample, at.score, at.f

        @at.be.jit
        def estimate(g, x, e, fx, z, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
            g[:] = 0.0
            for k in range(samples):
                sample(x[0], e[0], par, buf, first, tag + k, key)
                f(fx[0], x[0])
                for l in range(L):
                    fx[0, l] = (fx[0, l] - baseline) / samples
                score(g, x[0], par, fx[0])

        return estimate

    return Form(1, 1, build)


def rloo(samples: int) -> Form:
    """g = 1/(K-1) sum_k (f_k - fbar) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, sample, score, f = at.L, at.sample, at.score, at.f

        @at.be.jit
        def estimate(g, x, e, fx, z, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
            g[:] = 0.0
            mean = fx[samples]
            mean[:] = 0.0
            for k in range(samples):
                sample(x[k], e[k], par, buf, first, tag + k, key)
                f(fx[k], x[k])
                for l in range(L):
                    mean[l] += fx[k, l] / samples
            for k in range(samples):
                for l in range(L):
                    fx[k, l] = (fx[k, l] - mean[l]) / (samples - 1)
                score(g, x[k], par, fx[k])

        return estimate

    return Form(samples, samples + 1, build)
