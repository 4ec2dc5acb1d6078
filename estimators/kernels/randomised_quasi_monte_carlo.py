"""randomised_quasi_monte_carlo in lanes: the words of a shift, every one of them exclusive-or those of the Sobol points."""

from __future__ import annotations

import math

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import MU, SIGMA, cut_of
from estimators.kernels.philox import UNIT


def randomised_quasi_monte_carlo(samples: int, shifts: int, gradient: str, randomised: bool) -> Form:
    """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k), or 1/K sum_jk (f_jk - mean_{i != j} fbar_i) grad log q(x_jk)."""
    n = samples // shifts
    if gradient == "score":
        return Form(
            samples, samples + 3, lambda at: by_score(at, n, shifts, randomised), families=("bernoulli", "normal")
        )
    return Form(n, 1, lambda at: by_path(at, n, shifts, randomised), gradient=True, families=("normal",))


def by_path(at: Lanes, n: int, shifts: int, randomised: bool) -> Function:
    D, L, R, df, path, credit = at.D, at.L, at.be.real, at.df, at.q.path, at.credit
    assert path is not None
    draw, one_K, ZERO = shifted(at, n, randomised), R(1 / (n * shifts)), R(0)

    @at.be.jit
    def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
        g[:] = ZERO
        r[0, :] = one_K
        for j in range(shifts):
            draw(x, j, c)
            for k in range(n):
                df(e[0], x[k], c)
                for d in range(D):
                    for l in range(L):
                        e[0, d, l] *= one_K
                path(g, x[k], e[0], c)
                credit(x[k], r[0], c)

    return estimate


def by_score(at: Lanes, n: int, shifts: int, randomised: bool) -> Function:
    K, L, R, f, credit, scores = n * shifts, at.L, at.be.real, at.f, at.credit, at.q.scores(n * shifts)
    draw, one_K, one_n, one_others, ZERO = (
        shifted(at, n, randomised),
        R(1 / K),
        R(1 / n),
        R(1 / max(shifts - 1, 1)),
        R(0),
    )

    @at.be.jit
    def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
        total, mean, share = r[K], r[K + 1], r[K + 2]
        total[:] = ZERO
        share[:] = one_K
        for j in range(shifts):
            draw(x[j * n : (j + 1) * n], j, c)
        for k in range(K):
            f(r[k], x[k], c)
            credit(x[k], share, c)
            for l in range(L):
                total[l] += r[k, l] * one_n
        for j in range(shifts):
            mean[:] = ZERO
            for k in range(j * n, (j + 1) * n):
                for l in range(L):
                    mean[l] += r[k, l] * one_n
            for k in range(j * n, (j + 1) * n):
                for l in range(L):
                    r[k, l] = (r[k, l] - (total[l] - mean[l]) * one_others) * one_K
        scores(g, x, r, c)

    return estimate


def shifted(at: Lanes, n: int, randomised: bool) -> Function:
    """`draw(x, j, c)`: x_k = T((v_k xor w_j + 1/2) 2^-32), v the words of the Sobol points and w that of the shift."""
    from estimators.randomised_quasi_monte_carlo import sobol

    D, L, S, R, words, eps, cut = at.D, at.L, at.S, at.be.real, at.words, quantile(at.be), cut_of(at.be, at.S)
    v, middle = sobol(n, D).numpy().astype(np.uint32), np.uint32(2**31 // n)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def shift(d, j, c):  # type: ignore[no-untyped-def]
        if randomised:
            words(c.buf, d, j, c)
        else:
            c.buf[:] = middle

    @at.be.jit
    def normals(x, j, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            shift(d, j, c)
            for k in range(n):
                for l in range(L):
                    x[k, d, l] = c.par[MU, d, S * l] + c.par[SIGMA, d, S * l] * eps(c.buf[l] ^ v[k, d])

    @at.be.jit
    def bits(x, j, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            shift(d, j, c)
            for k in range(n):
                for l in range(L):
                    x[k, d, l] = ONE if np.uint64(c.buf[l] ^ v[k, d]) < cut(c.par, d, l) else ZERO

    return normals if at.q.path is not None else bits


def quantile(be: Backend) -> Function:
    """`quantile(word)`: eps with Phi(eps) = (word + 1/2) 2^-32, to 1e-15. Wichura 1988, algorithm AS 241.

    The tail t = min(u, 1 - u) is made of the word or of its complement, so that it is exact to rounding on both sides; its third
    range, below exp(-25), is beyond 2^-33.
    """
    R, log = be.real, vmath.log(be)
    LAST, TOP = np.uint32(0xFFFFFFFF), np.uint32(0x80000000)
    HALF, SCALE, NEAR, CENTRE, START = R(0.5), R(UNIT), R(0.425), R(0.180625), R(1.6)
    a, b, c, d = (polynomial(be, *row) for row in AS_241)

    @be.jit
    def quantile(word):  # type: ignore[no-untyped-def]
        below = word < TOP
        t = (R(word if below else LAST - word) + HALF) * SCALE
        q = HALF - t
        r = CENTRE - q * q
        s = R(math.sqrt(-log(t))) - START
        size = q * a(r) / b(r) if q <= NEAR else c(s) / d(s)
        return -size if below else size

    return quantile


def polynomial(be: Backend, *coefficients: float) -> Function:
    """`p(x)`: of degree 7, lowest power first."""
    p0, p1, p2, p3, p4, p5, p6, p7 = map(be.real, coefficients)

    @be.jit
    def p(x):  # type: ignore[no-untyped-def]
        return p0 + x * (p1 + x * (p2 + x * (p3 + x * (p4 + x * (p5 + x * (p6 + x * p7))))))

    return p


AS_241 = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
