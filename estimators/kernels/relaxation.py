"""What the relaxed estimators share, in lanes: perturbed logits, the soft point they give, and derivatives of it and of the mean.

Of categories a sum over those of a site comes first: a, b are rows `[L]` to take it in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import Form, Lanes, Shape
from estimators.kernels.families import LOGIT, PROBABILITY, THETA, P, cut_of
from estimators.kernels.philox import uniform

FAMILIES = ("bernoulli", "categorical")


class Relaxation(NamedTuple):
    """perturbed(z, tag, c): z, whose hard value is the sample made of this noise. draw(x, z, tag, c): the sample as well.

    soft(z, scale, a, b): z = softmax(scale z), or the sigmoid. jacobian(g, y, v, w, a): g += w J(y) v, J the derivative of
    y = soft(z); w is one number.
    """

    perturbed: Function
    draw: Function
    soft: Function
    jacobian: Function


class Mean(NamedTuple):
    """mean(x, c): x = E x. along(out, v, x, c): out += v . (x - E x). pull(g, v, w, a, c): g += w (d E x / dtheta)' v."""

    mean: Function
    along: Function
    pull: Function


def relaxation(at: Lanes) -> Relaxation:
    """Of bits or categories."""
    return relaxed_categories(at) if one_hot(at.shape) else relaxed_bits(at)


def mean_of(at: Lanes) -> Mean:
    """Of bits or categories."""
    return mean_of_categories(at) if one_hot(at.shape) else mean_of_bits(at)


def passed_back(points: Callable[[Lanes], Function], weight: float, soft: bool = False) -> Form:
    """g = weight J(y) grad f(x), and the value f(x): `points(at)` is what makes x[0] = x and x[1] = y, `make(x, e, r, c)`.

    soft: x[0] is y itself. e `[points, *event, L]` and two rows r are there to work in.
    """

    def build(at: Lanes) -> Function:
        df, credit, jacobian, make = at.df, at.credit, relaxation(at).jacobian, points(at)
        Y, w, ZERO, ONE = 0 if soft else 1, at.be.real(weight), at.be.real(0), at.be.real(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            make(x, e, r, c)
            df(e[0], x[0], c)
            jacobian(g, x[Y], e[0], w, r[0])
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(1 if soft else 2, 2, build, gradient=True, families=FAMILIES)


def one_hot(shape: Shape) -> bool:
    """A point's site is a one-hot vector."""
    return len(shape.event) == 2


def entry(be: Backend, shape: Shape) -> Function:
    """`entry(x, p)`: the lanes of number p of a point, its sites laid end to end."""
    C = shape.event[-1]

    @be.jit
    def of_bits(x, p):  # type: ignore[no-untyped-def]
        return x[p]

    @be.jit
    def of_categories(x, p):  # type: ignore[no-untyped-def]
        return x[p // C, p % C]

    return of_categories if one_hot(shape) else of_bits


def relaxed_bits(at: Lanes) -> Relaxation:
    """z = theta - logit u, y = sigmoid(scale z), J = y (1 - y). A uniform lies within the unit interval, and so does 1 - u."""
    D, L, S, R, words, cut = at.D, at.L, at.S, at.be.real, at.words, cut_of(at.be, at.S)
    u, log, soft_ = uniform(at.be), vmath.log(at.be), soft_bits(at.be, at.D, at.L)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def logit(u):  # type: ignore[no-untyped-def]
        return log(u / (ONE - u))

    @at.be.jit
    def perturbed(z, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            for l in range(L):
                z[d, l] = c.par[LOGIT, d, S * l] - logit(u(c.buf[l]))

    @at.be.jit
    def draw(x, z, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            for l in range(L):
                x[d, l] = ONE if np.uint64(c.buf[l]) < cut(c.par, d, l) else ZERO
                z[d, l] = c.par[LOGIT, d, S * l] - logit(u(c.buf[l]))

    @at.be.jit
    def jacobian(g, y, v, w, a):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                g[d, l] += w * (y[d, l] * (ONE - y[d, l]) * v[d, l])

    return Relaxation(perturbed, draw, soft_, jacobian)


def soft_bits(be: Backend, D: int, lanes: int) -> Function:
    """`soft` of so many lanes."""
    sigmoid = vmath.sigmoid(be)

    @be.jit
    def soft(z, scale, a, b):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(lanes):
                z[d, l] = sigmoid(scale * z[d, l])

    return soft


def relaxed_categories(at: Lanes) -> Relaxation:
    """z = theta + G, y = softmax(scale z), J = diag y - y y'."""
    (D, C), L, S, R, sample, words = at.shape.event, at.L, at.S, at.be.real, at.q.sample, at.words
    u, log, soft_ = uniform(at.be), vmath.log(at.be), soft_categories(at.be, D, C, at.L)
    ZERO = R(0)

    @at.be.jit
    def perturbed(z, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                words(c.buf, d * C + i, tag, c)
                for l in range(L):
                    z[d, i, l] = c.par[THETA, d, i, S * l] - log(-log(u(c.buf[l])))

    @at.be.jit
    def draw(x, z, tag, c):  # type: ignore[no-untyped-def]
        sample(x, z, tag, c)
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    z[d, i, l] += c.par[THETA, d, i, S * l]

    @at.be.jit
    def jacobian(g, y, v, w, a):  # type: ignore[no-untyped-def]
        for d in range(D):
            a[:] = ZERO
            for i in range(C):
                for l in range(L):
                    a[l] += y[d, i, l] * v[d, i, l]
            for i in range(C):
                for l in range(L):
                    g[d * C + i, l] += w * (y[d, i, l] * (v[d, i, l] - a[l]))

    return Relaxation(perturbed, draw, soft_, jacobian)


def soft_categories(be: Backend, D: int, C: int, lanes: int) -> Function:
    """`soft` of so many lanes."""
    R, exp = be.real, vmath.exp(be)
    ZERO, ONE = R(0), R(1)

    @be.jit
    def soft(z, scale, a, b):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(lanes):
                a[l] = z[d, 0, l]
                b[l] = ZERO
            for i in range(1, C):
                for l in range(lanes):
                    a[l] = z[d, i, l] if z[d, i, l] > a[l] else a[l]
            for i in range(C):
                for l in range(lanes):
                    z[d, i, l] = exp(scale * (z[d, i, l] - a[l]))
                    b[l] += z[d, i, l]
            for l in range(lanes):
                b[l] = ONE / b[l]
            for i in range(C):
                for l in range(lanes):
                    z[d, i, l] *= b[l]

    return soft


def mean_of_bits(at: Lanes) -> Mean:
    """E x = p, d E x / dtheta = p (1 - p)."""
    D, L, S, ONE = at.D, at.L, at.S, at.be.real(1)

    @at.be.jit
    def mean(x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                x[d, l] = c.par[P, d, S * l]

    @at.be.jit
    def along(out, v, x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                out[l] += v[d, l] * (x[d, l] - c.par[P, d, S * l])

    @at.be.jit
    def pull(g, v, w, a, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                p = c.par[P, d, S * l]
                g[d, l] += w * (p * (ONE - p) * v[d, l])

    return Mean(mean, along, pull)


def mean_of_categories(at: Lanes) -> Mean:
    """E x = p, d E x / dtheta = diag p - p p'."""
    (D, C), L, S, ZERO = at.shape.event, at.L, at.S, at.be.real(0)

    @at.be.jit
    def mean(x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    x[d, i, l] = c.par[PROBABILITY, d, i, S * l]

    @at.be.jit
    def along(out, v, x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    out[l] += v[d, i, l] * (x[d, i, l] - c.par[PROBABILITY, d, i, S * l])

    @at.be.jit
    def pull(g, v, w, a, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            a[:] = ZERO
            for i in range(C):
                for l in range(L):
                    a[l] += c.par[PROBABILITY, d, i, S * l] * v[d, i, l]
            for i in range(C):
                for l in range(L):
                    g[d * C + i, l] += w * (c.par[PROBABILITY, d, i, S * l] * (v[d, i, l] - a[l]))

    return Mean(mean, along, pull)
