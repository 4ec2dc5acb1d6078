"""Gradients of importance-weighted bounds in lanes: the log weights log w_k = f(x_k) - log q(x_k), v = softmax(log w).

For Renyi's bound of order alpha every log w_k is (1 - alpha)(f - log q), and what is made of them is divided by 1 - alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import Form, Lanes

PATHS = ("normal", "gamma")


def weights(at: Lanes, K: int) -> Function:
    """`weights(log_w, v, bound, total, x, e, c)`: draws x_k, their log w_k, v_k and the bound, log 1/K sum_k w_k."""
    be, L, sample, f = at.be, at.L, at.q.sample, at.f
    exp, log, R, alpha = vmath.exp(be), vmath.log(be), be.real, at.shape.alpha
    LOG_K, ZERO, ONE, TILT = R(math.log(K)), R(0), R(1), R(1 - alpha)

    @be.jit
    def weights(log_w, v, bound, total, x, e, c):  # type: ignore[no-untyped-def]
        for k in range(K):
            sample(x[k], e[0], k, c)
            f(log_w[k], x[k], c)
        if alpha:
            for k in range(K):
                for l in range(L):
                    log_w[k, l] *= TILT
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


Finish = Callable[[Lanes, int], Function]


def weighed(
    finish: Finish, samples: int | None = None, extra: int = 0, plain: bool = False, paths: bool = False
) -> Form:
    """The samples of a bound, weighed, the model credited with v_k (plain: 1/K), and what `finish(at, K)` makes of them.

    That is `(g, x, e, a, hat, log_w, v, bound, spare, c)`: a, hat `[K, L]` and spare `[L]` are to work in. extra: points kept
    beyond the K. paths: for families that are reparameterised, with f's gradient.
    """

    def build(at: Lanes) -> Function:
        K, L, credit = samples or at.shape.samples, at.L, at.credit
        weigh, end, ONE_K = weights(at, K), finish(at, K), at.be.real(1 / K)

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
            if plain:
                for l in range(L):
                    spare[l] = ONE_K
            for k in range(K):
                if plain:
                    credit(x[k], spare, c)
                else:
                    credit(x[k], v[k], c)
            end(g, x, e, a, hat, log_w, v, bound, spare, c)

        return estimate

    return Form(
        lambda shape: (samples or shape.samples) + extra,
        lambda shape: 4 * (samples or shape.samples) + 2,
        build,
        gradient=paths,
        families=PATHS if paths else None,
    )


def scored(coefficients: Finish, samples: int | None = None, extra: int = 0) -> Form:
    """g = sum_k a_k grad log q(x_k), a filled in by `coefficients(at, K)`: `(x, e, a, hat, log_w, v, bound, spare, c)`."""

    def finish(at: Lanes, K: int) -> Function:
        scores, fill = at.q.scores(K), coefficients(at, K)

        @at.be.jit
        def end(g, x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            fill(x, e, a, hat, log_w, v, bound, spare, c)
            scores(g, x, a, c)

        return end

    return weighed(finish, samples, extra)


def by_path(coefficients: Finish, samples: int | None = None, plain: bool = False, total: bool = False) -> Form:
    """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a filled in by `coefficients(at, K)`: `(a, hat, log_w, v, spare)`.

    total: less sum_k v_k grad log q(x_k).
    """

    def finish(at: Lanes, K: int) -> Function:
        assert at.q.paths is not None
        L, df, paths, scores = at.L, at.df, at.q.paths(K), at.q.scores(K)
        fill, ZERO = coefficients(at, K), at.be.real(0)

        @at.be.jit
        def end(g, x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            for k in range(K):
                df(e[k], x[k], c)
                for l in range(L):
                    a[k, l] = -v[k, l]
            if total:
                scores(g, x, a, c)
            else:
                g[:] = ZERO
            fill(a, hat, log_w, v, spare)
            paths(g, x, a, e, c)

        return end

    return weighed(finish, samples, plain=plain, paths=True)


def powers(once: float, square: float, normalised: bool = False) -> Finish:
    """a_k = once v_k + square v_k^2; normalised: a_k / sum_j a_j."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, R = at.L, at.be.real
        ZERO, ONE, ONCE, SQUARE = R(0), R(1), R(once), R(square)

        @at.be.jit
        def fill(a, hat, log_w, v, spare):  # type: ignore[no-untyped-def]
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

        return fill

    return coefficients


def iwae_score() -> Form:
    """g = sum_k (L - v_k) grad log q(x_k), L = 1/(1 - alpha) log 1/K sum_j w_j."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, untilt = at.L, at.be.real(1 / (1 - at.shape.alpha))

        @at.be.jit
        def fill(x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            for k in range(K):
                for l in range(L):
                    a[k, l] = untilt * bound[l] - v[k, l]

        return fill

    return scored(coefficients)


def vimco(mean: str) -> Form:
    """g = sum_k ((L - L^(-k)) / (1 - alpha) - v_k) grad log q(x_k), L = log 1/K sum_j w_j.

    arithmetic: L^(-k) = log 1/(K-1) sum_{j != k} w_j; geometric: L^(-k) = log 1/K (sum_{j != k} w_j + w^_k), log w^_k the mean of
    log w_j, j != k.
    """

    def arithmetic(at: Lanes, K: int) -> Function:
        L, R, others = at.L, at.be.real, of_the_others(at, K, log_add(at.be))
        LOG_K_1, untilt = R(math.log(K - 1)), R(1 / (1 - at.shape.alpha))

        @at.be.jit
        def fill(x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            for k in range(K):
                for l in range(L):
                    a[k, l] = untilt * (bound[l] - (a[k, l] - LOG_K_1)) - v[k, l]

        return fill

    def geometric(at: Lanes, K: int) -> Function:
        L, R, join = at.L, at.be.real, log_add(at.be)
        others, total = of_the_others(at, K, join), of_the_others(at, K, add(at.be))
        LOG_K, one_K_1, untilt = R(math.log(K)), R(1 / (K - 1)), R(1 / (1 - at.shape.alpha))

        @at.be.jit
        def fill(x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            total(hat, log_w, spare)
            for k in range(K):
                for l in range(L):
                    without = join(a[k, l], hat[k, l] * one_K_1) - LOG_K
                    a[k, l] = untilt * (bound[l] - without) - v[k, l]

        return fill

    return scored(geometric if mean == "geometric" else arithmetic)


def ovis(gamma: float) -> Form:
    """g = sum_k (L - v_k - c_k) grad log q(x_k), c_k = log 1/(K-1) sum_{j != k} w_j - gamma v_k + (1 - gamma) log(1 - 1/K)."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, R, others = at.L, at.be.real, of_the_others(at, K, log_add(at.be))
        own, constant = R(1 - gamma), R((1 - gamma) * math.log(1 - 1 / K) - math.log(K - 1))

        @at.be.jit
        def fill(x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            for k in range(K):
                for l in range(L):
                    a[k, l] = bound[l] - own * v[k, l] - (a[k, l] + constant)

        return fill

    return scored(coefficients)


def ovis_mc(auxiliary: int) -> Form:
    """g = sum_k (d_k - 1/S sum_s d_k^(s)) grad log q(x_k), d_k = L - v_k, in d_k^(s) with x_k replaced by an auxiliary draw."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, R, sample, f = at.L, at.be.real, at.q.sample, at.f
        exp, join = vmath.exp(at.be), log_add(at.be)
        others = of_the_others(at, K, join)
        LOG_K, one_S = R(math.log(K)), R(1 / auxiliary)

        @at.be.jit
        def fill(x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
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

        return fill

    return scored(coefficients, extra=1)


def wake_phi(samples: int) -> Form:
    """g = sum_k v_k grad log q(x_k)."""

    def coefficients(at: Lanes, K: int) -> Function:
        L = at.L

        @at.be.jit
        def fill(x, e, a, hat, log_w, v, bound, spare, c):  # type: ignore[no-untyped-def]
            for k in range(K):
                for l in range(L):
                    a[k, l] = v[k, l]

        return fill

    return scored(coefficients, samples)


def dreg(alpha: float, normalised: bool) -> Form:
    """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k = alpha v_k + (1 - 2 alpha) v_k^2; v_k^2 / sum_j v_j^2 normalised."""
    return by_path(powers(alpha, 1 - 2 * alpha, normalised))


def rws_dreg(samples: int, normalised: bool) -> Form:
    """g = sum_k a_k (dx_k/dtheta)' grad log w_k, a_k = v_k - v_k^2; normalised: softmax_k of log (w_k sum_{j != k} w_j)."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, exp, R = at.L, vmath.exp(at.be), at.be.real
        others, ZERO, ONE = of_the_others(at, K, log_add(at.be)), R(0), R(1)

        @at.be.jit
        def fill(a, hat, log_w, v, spare):  # type: ignore[no-untyped-def]
            others(a, log_w, spare)
            for l in range(L):
                spare[l] = log_w[0, l] + a[0, l]
            for k in range(K):
                for l in range(L):
                    a[k, l] += log_w[k, l]
                    spare[l] = a[k, l] if a[k, l] > spare[l] else spare[l]
            for l in range(L):
                hat[0, l] = ZERO
            for k in range(K):
                for l in range(L):
                    a[k, l] = exp(a[k, l] - spare[l])
                    hat[0, l] += a[k, l]
            for k in range(K):
                for l in range(L):
                    a[k, l] *= ONE / hat[0, l]

        return fill

    return by_path(coefficients if normalised else powers(1, -1), samples)


def stl() -> Form:
    """g = sum_k v_k (dx_k/dtheta)' grad log w_k."""
    return by_path(powers(1, 0))


def iwae_pathwise() -> Form:
    """g = sum_k v_k [(dx_k/dtheta)' grad log w_k - grad_theta log q(x_k)]."""
    return by_path(powers(1, 0), total=True)


def tail_adaptive(samples: int, beta: float) -> Form:
    """g = sum_k gamma_k (dx_k/dtheta)' grad log w_k / sum_j gamma_j, gamma_k = rank_k^beta, 1 the rank of the largest."""

    def coefficients(at: Lanes, K: int) -> Function:
        L, R, exp, log = at.L, at.be.real, vmath.exp(at.be), vmath.log(at.be)
        ZERO, ONE, BETA = R(0), R(1), R(beta)
        ONE_Z = R(1 / sum(r**beta for r in range(1, K + 1)))

        @at.be.jit
        def fill(a, hat, log_w, v, spare):  # type: ignore[no-untyped-def]
            for k in range(K):
                for l in range(L):
                    a[k, l] = ONE
                for j in range(K):
                    for l in range(L):
                        a[k, l] += ONE if log_w[j, l] > log_w[k, l] else ZERO
                for l in range(L):
                    a[k, l] = ONE_Z * exp(BETA * log(a[k, l]))

        return fill

    return by_path(coefficients, samples, plain=True)
