"""reinforce and rloo in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def reinforce(samples: int, baseline: float) -> Form:
    """g = 1/K sum_k (f_k - b) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, R, sample, score, f, credit = at.L, at.be.real, at.q.sample, at.q.score, at.f, at.credit
        b, one_K, ZERO = R(baseline), R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            for k in range(samples):
                sample(x[0], e[0], k, c)
                f(r[0], x[0], c)
                for l in range(L):
                    r[0, l] = (r[0, l] - b) * one_K
                    r[1, l] = one_K
                score(g, x[0], r[0], c)
                credit(x[0], r[1], c)

        return estimate

    return Form(1, 2, build)


def rloo(samples: int) -> Form:
    """g = 1/(K-1) sum_k (f_k - fbar) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, R, sample, score, f, credit = at.L, at.be.real, at.q.sample, at.q.score, at.f, at.credit
        one_K, one_K_1, ZERO = R(1 / samples), R(1 / (samples - 1)), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            mean, share = r[samples], r[samples + 1]
            mean[:] = ZERO
            share[:] = one_K
            for k in range(samples):
                sample(x[k], e[k], k, c)
                f(r[k], x[k], c)
                credit(x[k], share, c)
                for l in range(L):
                    mean[l] += r[k, l] * one_K
            for k in range(samples):
                for l in range(L):
                    r[k, l] = (r[k, l] - mean[l]) * one_K_1
                score(g, x[k], r[k], c)

        return estimate

    return Form(samples, samples + 2, build)
