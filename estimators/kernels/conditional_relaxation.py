"""z given b in lanes, the relaxed variable whose hard value is b, and the derivative of its law; in log space.

An error of the rounding's size in z is one of that size in soft(z), so that log(1 + q) need not keep what q loses beside 1.
"""

from __future__ import annotations

from typing import NamedTuple

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import INDEX, Lanes
from estimators.kernels.families import LOG_P, LOGIT, PROBABILITY
from estimators.kernels.philox import uniform
from estimators.kernels.relaxation import one_hot

V = 1 << INDEX  # the place of v, the (first) noise of z given b, after that of z or of b


class Conditioned(NamedTuple):
    """z(z, share, b, tag, a, c): z given b, from fresh noise v; share: its derivative in the logits, of categories in log p.

    tied(share, z, b, a, c): the same derivative where z given b is z itself.
    pull(g, y, v, share, w, a, b, c): g += w (dz/dl)' J(y) v, y the soft point of z; v is used up, w one number.
    """

    z: Function
    tied: Function
    pull: Function


def conditioned(at: Lanes) -> Conditioned:
    """Of bits or categories."""
    return categories_given(at) if one_hot(at.shape) else bits_given(at)


def softplus_and_slope(be: Backend) -> Function:
    """`both(x)`: log(1 + e^x) without its positive part max(x, 0), as 1 + e^-|x| to take the logarithm of; and sigmoid(x)."""
    R, exp = be.real, vmath.exp(be)
    ZERO, ONE = R(0), R(1)

    @be.jit
    def both(x):  # type: ignore[no-untyped-def]
        q = exp(-abs(x))
        return ONE + q, (ONE if x > ZERO else q) / (ONE + q)

    return both


def bits_given(at: Lanes) -> Conditioned:
    """z = s (log(1 + e^t) - log(1 - up)), dz/dl = sigmoid(t), t = s l + log up; tied, dz/dl = sigmoid(s l) (1 - e^(-s z)).

    Where b = 1, s = 1 and up = v; where b = 0, s = -1 and up = 1 - v.
    """
    D, L, S, R, words = at.D, at.L, at.S, at.be.real, at.words
    u, log, both = uniform(at.be), vmath.log(at.be), softplus_and_slope(at.be)
    exp, sigmoid = vmath.exp(at.be), vmath.sigmoid(at.be)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def z_given(z, share, b, tag, a, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            for l in range(L):
                v = u(c.buf[l])
                sign = ONE if b[d, l] > ZERO else -ONE
                up = v if b[d, l] > ZERO else ONE - v
                toward = sign * c.par[LOGIT, d, S * l] + log(up)
                whole, slope = both(toward)
                z[d, l] = sign * ((toward if toward > ZERO else ZERO) + log(whole / (ONE - up)))
                share[d, l] = slope

    @at.be.jit
    def tied(share, z, b, a, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                sign = ONE if b[d, l] > ZERO else -ONE
                share[d, l] = sigmoid(sign * c.par[LOGIT, d, S * l]) * (ONE - exp(-(sign * z[d, l])))

    @at.be.jit
    def pull(g, y, v, share, w, a, b, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                g[d, l] += w * (share[d, l] * (y[d, l] * (ONE - y[d, l]) * v[d, l]))

    return Conditioned(z_given, tied, pull)


def categories_given(at: Lanes) -> Conditioned:
    """z_b = -log E_b, z_i = -log(E_i / p_i + E_b), E = -log v; d z_i / d log p_i = E_i / p_i / (E_i / p_i + E_b), 0 for b.

    Tied, d z_i / d log p_i = 1 - e^(z_i - z_b).
    """
    (D, C), L, S, R, words = at.shape.event, at.L, at.S, at.be.real, at.words
    u, log, both, exp = uniform(at.be), vmath.log(at.be), softplus_and_slope(at.be), vmath.exp(at.be)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def z_given(z, share, b, tag, a, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            a[:] = ZERO
            for i in range(C):
                words(c.buf, d * C + i, tag, c)
                for l in range(L):
                    z[d, i, l] = log(-log(u(c.buf[l])))
                    a[l] += b[d, i, l] * z[d, i, l]
            for i in range(C):
                for l in range(L):
                    over = (z[d, i, l] - c.par[LOG_P, d, i, S * l]) - a[l]
                    whole, slope = both(over)
                    other = b[d, i, l] <= ZERO
                    z[d, i, l] = -(a[l] + ((over if over > ZERO else ZERO) + log(whole) if other else ZERO))
                    share[d, i, l] = slope if other else ZERO

    @at.be.jit
    def tied(share, z, b, a, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            a[:] = ZERO
            for i in range(C):
                for l in range(L):
                    a[l] += b[d, i, l] * z[d, i, l]
            for i in range(C):
                for l in range(L):
                    share[d, i, l] = ONE - exp(z[d, i, l] - a[l])

    @at.be.jit
    def pull(g, y, v, share, w, a, b, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            a[:] = ZERO
            b[:] = ZERO
            for i in range(C):
                for l in range(L):
                    a[l] += y[d, i, l] * v[d, i, l]
            for i in range(C):
                for l in range(L):
                    v[d, i, l] = share[d, i, l] * (y[d, i, l] * (v[d, i, l] - a[l]))
                    b[l] += v[d, i, l]
            for i in range(C):
                for l in range(L):
                    g[d * C + i, l] += w * (v[d, i, l] - c.par[PROBABILITY, d, i, S * l] * b[l])

    return Conditioned(z_given, tied, pull)
