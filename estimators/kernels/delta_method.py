"""The delta method and its pathwise form in lanes: f is expanded to second order at the mean of every lane, once a gradient."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes, Shape
from estimators.kernels.families import INVERSE, MU, SIGMA

RIDGE = 1e-3
COVARIANCE, VARIANCE, A0, A1, B0, B1, SHARE, ROW, OWN = range(9)  # rows of r after the Hessian's


def delta_method(samples: int, fresh: int) -> Form:
    """g = 1/K sum_k [f(x_k) - a fq(x_k)] grad log q(x_k) + a grad E[fq],
    fq(x) = f(mu) + gamma.d + 1/2 d' H d, d = x - mu.
    """
    n = samples + fresh

    def build(at: Lanes) -> Function:
        D, L, S, R, f, df = at.D, at.L, at.S, at.be.real, at.f, at.df
        FX = D * D + OWN
        FQ = FX + n + 1
        HALF, ONE = R(0.5), R(1)
        row_times = times(at)

        @at.be.jit
        def evaluate(x, r, k, c):  # type: ignore[no-untyped-def]
            """f at x_k."""
            f(r[FX + k], x[k], c)

        @at.be.jit
        def slope(gamma, x, r, c):  # type: ignore[no-untyped-def]
            df(gamma, x[n], c)

        @at.be.jit
        def expand(e, r, k):  # type: ignore[no-untyped-def]
            """fq at x_k."""
            d, gamma, out, Hd = e[k], e[n], r[FQ + k], r[D * D + ROW]
            for l in range(L):
                out[l] = r[FX + n, l]
            for i in range(D):
                row_times(Hd, r, i, d)
                for l in range(L):
                    out[l] += d[i, l] * (gamma[i, l] + HALF * Hd[l])

        @at.be.jit
        def terms(x, e, r, k, i, l, c):  # type: ignore[no-untyped-def]
            """f and fq times the score, of mu_i and of log sigma_i."""
            inverse = c.par[INVERSE, i, S * l]
            eps = e[k, i, l] * inverse
            s0, s1 = eps * inverse, eps * eps - ONE
            return r[FX + k, l] * s0, r[FX + k, l] * s1, r[FQ + k, l] * s0, r[FQ + k, l] * s1

        return expanded(at, samples, fresh, evaluate, slope, expand, terms)

    def rows(shape: Shape) -> int:
        return shape.D**2 + OWN + 2 * n + 1

    return Form(n + 1, rows, build, gradient=True, families=("normal",), hessian=True)


def delta_pathwise(samples: int, fresh: int) -> Form:
    """g_mu = 1/K sum_k [f'(x_k) - a fq'(x_k)] + a gamma,
    g_log_sigma = 1/K sum_k d_k [f'(x_k) - a fq'(x_k)] + a diag(H) sigma^2,
    fq'(x) = gamma + H d, d = x - mu; a = 1 without fresh samples.
    """
    n = samples + fresh

    def build(at: Lanes) -> Function:
        D, L, df = at.D, at.L, at.df
        FIRST = D * D + OWN
        row_times = times(at)

        @at.be.jit
        def evaluate(x, r, k, c):  # type: ignore[no-untyped-def]
            """f' at x_k."""
            df(r[FIRST + 2 * D * k : FIRST + 2 * D * k + D], x[k], c)

        @at.be.jit
        def slope(gamma, x, r, c):  # type: ignore[no-untyped-def]
            for i in range(D):
                for l in range(L):
                    gamma[i, l] = r[FIRST + 2 * D * n + i, l]

        @at.be.jit
        def expand(e, r, k):  # type: ignore[no-untyped-def]
            """fq' at x_k."""
            gamma, Hd, of_fq = e[n], r[D * D + ROW], FIRST + 2 * D * k + D
            for i in range(D):
                row_times(Hd, r, i, e[k])
                for l in range(L):
                    r[of_fq + i, l] = gamma[i, l] + Hd[l]

        @at.be.jit
        def terms(x, e, r, k, i, l, c):  # type: ignore[no-untyped-def]
            """f' and fq', of mu_i, and times d of log sigma_i."""
            of_f, d = FIRST + 2 * D * k + i, e[k, i, l]
            return r[of_f, l], d * r[of_f, l], r[of_f + D, l], d * r[of_f + D, l]

        return expanded(at, samples, fresh, evaluate, slope, expand, terms)

    def rows(shape: Shape) -> int:
        return shape.D**2 + OWN + 2 * shape.D * n + shape.D

    return Form(n + 1, rows, build, gradient=True, families=("normal",), hessian=True)


def expanded(
    at: Lanes, samples: int, fresh: int, evaluate: Function, slope: Function, expand: Function, terms: Function
) -> Function:
    """g = 1/K sum_k (A_k - a B_k) + a (gamma, diag(H) sigma^2), a regressed on the fresh samples.

    evaluate(x, r, k, c): f, or its gradient, at x_k, of which the last is mu. slope(gamma, x, r, c). expand(e, r, k): fq, or its
    gradient, at x_k; e: x_k - mu, and gamma the last; H in the first rows of r. terms(x, e, r, k, i, l, c): A and B at x_k, of
    mu_i, log sigma_i: A0, A1, B0, B1.
    """
    D, L, S, R, sample, hessian, credit = at.D, at.L, at.S, at.be.real, at.q.sample, at.hessian, at.credit
    assert hessian is not None
    n, DD, ZERO, ONE, one_K, ridge = samples + fresh, at.D**2, R(0), R(1), R(1 / samples), R(RIDGE)
    one_fresh = R(1 / max(fresh, 1))

    @at.be.jit
    def place(x, e, k, c):  # type: ignore[no-untyped-def]
        """x_k and x_k - mu; mu itself the last."""
        if k < n:
            sample(x[k], e[k], k, c)
        for i in range(D):
            for l in range(L):
                mu = c.par[MU, i, S * l]
                x[k, i, l] = x[k, i, l] if k < n else mu
                e[k, i, l] = x[k, i, l] - mu

    @at.be.jit
    def means(x, e, r, i, c):  # type: ignore[no-untyped-def]
        """Means of the terms of site i over the fresh samples."""
        for l in range(L):
            r[DD + A0, l] = ZERO
            r[DD + A1, l] = ZERO
            r[DD + B0, l] = ZERO
            r[DD + B1, l] = ZERO
        for k in range(samples, n):
            for l in range(L):
                a0, a1, b0, b1 = terms(x, e, r, k, i, l, c)
                r[DD + A0, l] += a0 * one_fresh
                r[DD + A1, l] += a1 * one_fresh
                r[DD + B0, l] += b0 * one_fresh
                r[DD + B1, l] += b1 * one_fresh

    @at.be.jit
    def regressed(x, e, r, c):  # type: ignore[no-untyped-def]
        """a = sum_i cov(A_i, B_i) / (sum_i var(B_i) + 1e-3) over the parameters i, in the row of the covariance."""
        covariance, variance = r[DD + COVARIANCE], r[DD + VARIANCE]
        covariance[:] = ZERO
        variance[:] = ZERO
        for i in range(D):
            means(x, e, r, i, c)
            for k in range(samples, n):
                for l in range(L):
                    a0, a1, b0, b1 = terms(x, e, r, k, i, l, c)
                    dB0, dB1 = b0 - r[DD + B0, l], b1 - r[DD + B1, l]
                    covariance[l] += (a0 - r[DD + A0, l]) * dB0 + (a1 - r[DD + A1, l]) * dB1
                    variance[l] += dB0 * dB0 + dB1 * dB1
        for l in range(L):
            covariance[l] = covariance[l] * one_fresh / (variance[l] * one_fresh + ridge) if fresh else ONE

    @at.be.jit
    def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
        r[DD + SHARE, :] = one_K
        for k in range(n + 1):
            place(x, e, k, c)
            evaluate(x, r, k, c)
            if k < samples:
                credit(x[k], r[DD + SHARE], c)
        slope(e[n], x, r, c)
        hessian(r, x[n], c)
        for k in range(n):
            expand(e, r, k)
        regressed(x, e, r, c)
        a = r[DD + COVARIANCE]
        for i in range(D):
            for l in range(L):
                sigma = c.par[SIGMA, i, S * l]
                g[i, l] = a[l] * e[n, i, l]
                g[D + i, l] = a[l] * r[i * D + i, l] * (sigma * sigma)
            for k in range(samples):
                for l in range(L):
                    a0, a1, b0, b1 = terms(x, e, r, k, i, l, c)
                    g[i, l] += (a0 - a[l] * b0) * one_K
                    g[D + i, l] += (a1 - a[l] * b1) * one_K

    return estimate


def times(at: Lanes) -> Function:
    """`times(out, H, i, d)`: row i of H d; H: `[D D, L]`, row by row."""
    D, L, ZERO = at.D, at.L, at.be.real(0)
    START = (D - 1) % 4 + 1

    @at.be.jit
    def times(out, H, i, d):  # type: ignore[no-untyped-def]
        first = i * D
        for l in range(L):
            total = ZERO
            for j in range(START):
                total += H[first + j, l] * d[j, l]
            out[l] = total
        for j in range(START, D, 4):
            h = first + j
            for l in range(L):
                pair = H[h, l] * d[j, l] + H[h + 1, l] * d[j + 1, l]
                out[l] += pair + (H[h + 2, l] * d[j + 2, l] + H[h + 3, l] * d[j + 3, l])

    return times
