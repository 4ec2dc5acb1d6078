"""reinforce and rloo in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def reinforce(samples: int, baseline: float) -> Form:
    """g = 1/K sum_k (f_k - b) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, R, sample, scores, f, credit = at.L, at.be.real, at.q.sample, at.q.scores(samples), at.f, at.credit
        b, one_K = R(baseline), R(1 / samples)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            share = r[samples]
            share[:] = one_K
            for k in range(samples):
                sample(x[k], e[k], k, c)
                f(r[k], x[k], c)
                credit(x[k], share, c)
                for l in range(L):
                    r[k, l] = (r[k, l] - b) * one_K
            scores(g, x, r, c)

        return estimate

    return Form(samples, samples + 1, build)


def rloo(samples: int) -> Form:
    """g = 1/(K-1) sum_k (f_k - fbar) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, R, sample, scores, f, credit = at.L, at.be.real, at.q.sample, at.q.scores(samples), at.f, at.credit
        one_K, one_K_1, ZERO = R(1 / samples), R(1 / (samples - 1)), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
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
            scores(g, x, r, c)

        return estimate

    return Form(samples, samples + 2, build)
