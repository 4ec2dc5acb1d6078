"""Gradients of importance-weighted bounds in lanes: the log weights log w_k = f(x_k) - log q(x_k), v = softmax(log w)."""

from __future__ import annotations

import math
from collections.abc import Callable

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import Form, Lanes, Shape

PATHS = ("normal", "gamma")


def draws(shape: Shape) -> int:
    """K, of the bound."""
    return shape.samples


def rows(shape: Shape) -> int:
    """Those of `Weights`, of the coefficients a_k and of the means of the others, K each, and two more."""
    return 4 * shape.samples + 2


def weights(at: Lanes, K: int) -> Function:
    """`weights(log_w, v, bound, total, x, e, c)`: draws x_k, their log w_k, v_k and the bound, log 1/K sum_k w_k."""
    be, L, sample, f = at.be, at.L, at.q.sample, at.f
    exp, log, R = vmath.exp(be), vmath.log(be), be.real
    LOG_K, ZERO, ONE = R(math.log(K)), R(0), R(1)

    @be.jit
    def weights(log_w, v, bound, total, x, e, c):  # type: ignore[no-untyped-def]
        for k in range(K):
            sample(x[k], e[0], k, c)
            f(log_w[k], x[k], c)
        for l in range(L):
            bound[l] = log_w[0, l]
            total[l] = ZERO
        for k in range(1, K):
            for l in range(L):
                bound[l] = log_w[k, l] if log_w[k, l] > bound[l] else bound[l]
        for k in range(K):
            for l in range(L):
                v[k, l] = exp(log_w[k, l] - bound[l])
                total[l] += v[k, l]
        for l in range(L):
            bound[l] += log(total[l]) - LOG_K
            total[l] = ONE / total[l]
        for k in range(K):
            for l in range(L):
                v[k, l] *= total[l]

    return weights


def log_add(be: Backend) -> Function:
    """log(e^a + e^b)."""
    exp, log1p = vmath.exp(be), vmath.log1p(be)

    @be.jit
    def log_add(a, b):  # type: ignore[no-untyped-def]
        return (a if a > b else b) + log1p(exp(-abs(a - b)))

    return log_add


def add(be: Backend) -> Function:
    """a + b."""

    @be.jit
    def add(a, b):  # type: ignore[no-untyped-def]
        return a + b

    return add


def of_the_others(at: Lanes, K: int, add: Function) -> Function:
    """`others(out, a, before)`: sum_{j != k} a_j as the sum before k plus the sum after it, so that nothing is subtracted."""
    L = at.L

    @at.be.jit
    def others(out, a, before):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[K - 2, l] = a[K - 1, l]
            before[l] = a[0, l]
        for back in range(K - 2):
            k = K - 3 - back
            for l in range(L):
                out[k, l] = add(out[k + 1, l], a[k + 1, l])
        for k in range(1, K - 1):
            for l in range(L):
                out[k, l] = add(before[l], out[k, l])
                before[l] = add(before[l], a[k, l])
        for l in range(L):
            out[K - 1, l] = before[l]

    return others


Coefficients = Callable[[Lanes, int], Function]


def scored(coefficients: Coefficients, samples: int | None = None) -> Form:
    """g = sum_k a_k grad log q(x_k), a filled in by `coefficients(at, K)`: `(a, hat, log_w, v, bound, spare)`."""

    def build(at: Lanes) -> Function:
        K = samples or at.shape.samples
        scores, credit = at.q.scores(K), at.credit
        weigh, fill = weights(at, K), coefficients(at, K)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            log_w, v, a, hat, bound, spare = (
                r[:K],
                r[K : 2 * K],
                r[2 * K : 3 * K],
                r[3 * K : 4 * K],
                r[4 * K],
                r[4 * K + 1],
            )
            weigh(log_w, v, bound, spare, x, e, c)
            fill(a, hat, log_w, v, bound, spare)
            scores(g, x, a, c)
            for k in range(K):
                credit(x[k], v[k], c)

        return estimate

    return Form(draws, rows, build) if samples is None else Form(samples, 4 * samples + 2, build)


def iwae_score() -> Form:
    """g = sum_k (log 1/K sum_j w_j - v_k) grad log q(x_k)."""

    def coefficients(at: Lanes, K: int) -> Function:
        L = at.L

        @at.be.jit
        def fill(a, hat, log_w, v, bound, spare):  # type: ignore[no-untyped-def]
            for k in range(K):
                for l in range(L):
                    a[k, l] = bound[l] - v[k, l]

        return fill

    return scored(coefficients)


def vimco(mean: str) -> Form:
    """g = sum_k (L - L^(-k) - v_k) grad log q(x_k), L = log 1/K sum_j w_j.

    arithmetic: L^(-k) = log 1/(K-1) sum_{j != k} w_j; geometric: L^(-k) = log 1/K (sum_{j != k} w_j + w^_k), log w^_k the mean of
    log w_j, j != k.
    """

    def arithmetic(at: Lanes, K: int) -> Function:
        L, R, others = at.L, at.be.real, of_the_others(at, K, log_add(at.be))
        LOG_K_1 = R(math.log(K - 1))

        @at.be.jit
        def fill(a, hat, log_w, v, bound, spare):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            for k in range(K):
                for l in range(L):
                    a[k, l] = bound[l] - (a[k, l] - LOG_K_1) - v[k, l]

        return fill

    def geometric(at: Lanes, K: int) -> Function:
        L, R, join = at.L, at.be.real, log_add(at.be)
        others, total = of_the_others(at, K, join), of_the_others(at, K, add(at.be))
        LOG_K, one_K_1 = R(math.log(K)), R(1 / (K - 1))

        @at.be.jit
        def fill(a, hat, log_w, v, bound, spare):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            total(hat, log_w, spare)
            for k in range(K):
                for l in range(L):
                    a[k, l] = bound[l] - (join(a[k, l], hat[k, l] * one_K_1) - LOG_K) - v[k, l]

        return fill

    return scored(geometric if mean == "geometric" else arithmetic)


def ovis(gamma: float) -> Form:
    """g = sum_k (L - v_k - c_k) grad log q(x_k), c_k = log 1/(K-1) sum_{j != k} w_j - gamma v_k + (1 - gamma) log(1 - 1/K)."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, R, others = at.L, at.be.real, of_the_others(at, K, log_add(at.be))
        own, constant = R(1 - gamma), R((1 - gamma) * math.log(1 - 1 / K) - math.log(K - 1))

        @at.be.jit
        def fill(a, hat, log_w, v, bound, spare):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            for k in range(K):
                for l in range(L):
                    a[k, l] = bound[l] - own * v[k, l] - (a[k, l] + constant)

        return fill

    return scored(coefficients)


def ovis_mc(auxiliary: int) -> Form:
    """g = sum_k (d_k - 1/S sum_s d_k^(s)) grad log q(x_k), d_k = L - v_k, in d_k^(s) with x_k replaced by an auxiliary draw."""

    def build(at: Lanes) -> Function:
        K, L, R, sample, f, credit = at.shape.samples, at.L, at.be.real, at.q.sample, at.f, at.credit
        scores, weigh, exp, join = at.q.scores(K), weights(at, K), vmath.exp(at.be), log_add(at.be)
        others = of_the_others(at, K, join)
        LOG_K, one_S = R(math.log(K)), R(1 / auxiliary)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            log_w, v, a, hat, bound, spare = (
                r[:K],
                r[K : 2 * K],
                r[2 * K : 3 * K],
                r[3 * K : 4 * K],
                r[4 * K],
                r[4 * K + 1],
            )
            weigh(log_w, v, bound, spare, x, e, c)
            others(hat, log_w, spare)
            for k in range(K):
                for l in range(L):
                    a[k, l] = bound[l] - v[k, l]
            for s in range(auxiliary):
                sample(x[K], e[0], K + s, c)
                f(spare, x[K], c)
                for k in range(K):
                    for l in range(L):
                        both = join(hat[k, l], spare[l])
                        a[k, l] -= one_S * (both - LOG_K - exp(spare[l] - both))
            scores(g, x, a, c)
            for k in range(K):
                credit(x[k], v[k], c)

        return estimate

    return Form(lambda shape: shape.samples + 1, rows, build)


def wake_phi(samples: int) -> Form:
    """g = sum_k v_k grad log q(x_k)."""

    def coefficients(at: Lanes, K: int) -> Function:
        L = at.L

        @at.be.jit
        def fill(a, hat, log_w, v, bound, spare):  # type: ignore[no-untyped-def]
            for k in range(K):
                for l in range(L):
                    a[k, l] = v[k, l]

        return fill

    return scored(coefficients, samples)


def by_path(once: float = 1, square: float = 0, normalised: bool = False, total: bool = False) -> Form:
    """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k = once v_k + square v_k^2; normalised: a_k / sum_j a_j.

    total: less sum_k v_k grad log q(x_k).
    """

    def build(at: Lanes) -> Function:
        assert at.q.paths is not None
        K, L, df, credit = at.shape.samples, at.L, at.df, at.credit
        paths, scores, weigh, R = at.q.paths(K), at.q.scores(K), weights(at, K), at.be.real
        ZERO, ONE, ONCE, SQUARE = R(0), R(1), R(once), R(square)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            log_w, v, a, bound, spare = r[:K], r[K : 2 * K], r[2 * K : 3 * K], r[4 * K], r[4 * K + 1]
            weigh(log_w, v, bound, spare, x, e, c)
            for k in range(K):
                df(e[k], x[k], c)
                credit(x[k], v[k], c)
                for l in range(L):
                    a[k, l] = -v[k, l]
            if total:
                scores(g, x, a, c)
            else:
                g[:] = ZERO
            for k in range(K):
                for l in range(L):
                    a[k, l] = v[k, l] * (ONCE + SQUARE * v[k, l])
            if normalised:
                for l in range(L):
                    spare[l] = ZERO
                for k in range(K):
                    for l in range(L):
                        spare[l] += a[k, l]
                for k in range(K):
                    for l in range(L):
                        a[k, l] *= ONE / spare[l]
            paths(g, x, a, e, c)

        return estimate

    return Form(draws, rows, build, gradient=True, families=PATHS)


def dreg(alpha: float, normalised: bool) -> Form:
    """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k = alpha v_k + (1 - 2 alpha) v_k^2; v_k^2 / sum_j v_j^2 normalised."""
    return by_path(alpha, 1 - 2 * alpha, normalised)


def stl() -> Form:
    """g = sum_k v_k (dx_k/dtheta)' grad log w_k."""
    return by_path()


def iwae_pathwise() -> Form:
    """g = sum_k v_k [(dx_k/dtheta)' grad log w_k - grad_theta log q(x_k)]."""
    return by_path(total=True)
