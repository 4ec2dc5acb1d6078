"""reinforce, rloo, reinforce_plus and group_advantage in lanes."""

from __future__ import annotations

import math

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


def reinforce_plus(samples: int) -> Form:
    """g = 1/K sum_k (f(x_k) - f(x'_k)) grad log q(x_k)."""

    def build(at: Lanes) -> Function:
        L, R, sample, scores, f, credit = at.L, at.be.real, at.q.sample, at.q.scores(samples), at.f, at.credit
        one_K = R(1 / samples)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            baseline, share = r[samples], r[samples + 1]
            share[:] = one_K
            for k in range(samples):
                sample(x[k], e[k], k, c)
                f(r[k], x[k], c)
                credit(x[k], share, c)
                sample(x[samples], e[samples], samples + k, c)
                f(baseline, x[samples], c)
                for l in range(L):
                    r[k, l] = (r[k, l] - baseline[l]) * one_K
            scores(g, x, r, c)

        return estimate

    return Form(samples + 1, samples + 2, build)


def group_advantage(samples: int, scale: str, eps: float) -> Form:
    """g = 1/K sum_k A_k grad log q(x_k), A_k = (f_k - fbar) / (std f + eps), or over |fbar| + eps, or without the divisor."""

    def build(at: Lanes) -> Function:
        L, R, sample, scores, f, credit = at.L, at.be.real, at.q.sample, at.q.scores(samples), at.f, at.credit
        one_K, one_K_1, small, ZERO = R(1 / samples), R(1 / (samples - 1)), R(eps), R(0)

        @at.be.jit
        def by_none(out, first, mean, r):  # type: ignore[no-untyped-def]
            out[:] = one_K

        @at.be.jit
        def by_std(out, first, mean, r):  # type: ignore[no-untyped-def]
            out[:] = ZERO
            for k in range(samples):
                for l in range(L):
                    off = r[k, l] - mean[l]
                    out[l] += off * off
            for l in range(L):
                out[l] = one_K / (R(math.sqrt(out[l] * one_K_1)) + small)

        @at.be.jit
        def by_mean(out, first, mean, r):  # type: ignore[no-untyped-def]
            for l in range(L):
                out[l] = one_K / (abs(first[l] + mean[l]) + small)

        divide = {"none": by_none, "std": by_std, "mean": by_mean}[scale]

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            """f_k less f_0 throughout, so that a group of equal f has no advantage, not even rounding."""
            first, mean, share = r[samples], r[samples + 1], r[samples + 2]
            share[:] = one_K
            for k in range(samples):
                sample(x[k], e[k], k, c)
                f(r[k], x[k], c)
                credit(x[k], share, c)
            for l in range(L):
                first[l] = r[0, l]
                mean[l] = ZERO
            for k in range(samples):
                for l in range(L):
                    r[k, l] = r[k, l] - first[l]
                    mean[l] += r[k, l] * one_K
            divide(share, first, mean, r)
            for k in range(samples):
                for l in range(L):
                    r[k, l] = (r[k, l] - mean[l]) * share[l]
            scores(g, x, r, c)

        return estimate

    return Form(samples, samples + 3, build)
