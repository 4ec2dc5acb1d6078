"""straight_through, its gapped and decoupled forms, and reinmax in lanes."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOGIT, PROBABILITY, THETA
from estimators.kernels.philox import uniform
from estimators.kernels.relaxation import (
    FAMILIES,
    entry,
    mean_of,
    one_hot,
    passed_back,
    relaxation,
    soft_bits,
    soft_categories,
)


def straight_through() -> Form:
    """g = (d mean / d theta)' grad f(x)."""

    def build(at: Lanes) -> Function:
        R, sample, df, credit, pull = at.be.real, at.q.sample, at.df, at.credit, mean_of(at).pull
        ZERO, ONE = R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            sample(x[0], e[0], 0, c)
            df(e[0], x[0], c)
            pull(g, e[0], ONE, r[0], c)
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(1, 1, build, gradient=True, families=FAMILIES)


def reinmax(temperature: float) -> Form:
    """g = 2 J(pi) grad f(x) - 1/2 J(p) grad f(x), pi = 1/2 (softmax(theta / tau) + x), p = softmax(theta)."""

    def build(at: Lanes) -> Function:
        L, S, R, P, sample, df, credit = at.L, at.S, at.be.real, at.shape.P, at.q.sample, at.df, at.credit
        of, tempered, jacobian, pull = entry(at.be, at.shape), soft_mean(at), relaxation(at).jacobian, mean_of(at).pull
        one_tau, ZERO, HALF, ONE, TWO = R(1 / temperature), R(0), R(0.5), R(1), R(2)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            sample(x[0], e[0], 0, c)
            tempered(e[1], one_tau, r[0], r[1], c)
            for i in range(P):
                pi, b, y = of(x[1], i), of(x[0], i), of(e[1], i)
                for l in range(L):
                    pi[l] = HALF * (y[S * l] + b[l])
            df(e[0], x[0], c)
            jacobian(g, x[1], e[0], TWO, r[0])
            pull(g, e[0], -HALF, r[0], c)
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(2, 2, build, gradient=True, families=FAMILIES)


def decoupled_straight_through(forward: float, backward: float) -> Form:
    """g = 1/tau_b J(y) grad f(x), x ~ softmax(theta / tau_f), y = softmax(theta / tau_b)."""

    def points(at: Lanes) -> Function:
        L, S, P, of, tempered = at.L, at.S, at.shape.P, entry(at.be, at.shape), soft_mean(at)
        sample = at.q.sample if forward == 1 else tempered_draw(at, 1 / forward)
        one_tau = at.be.real(1 / backward)

        @at.be.jit
        def make(x, e, r, c):  # type: ignore[no-untyped-def]
            sample(x[0], e[0], 0, c)
            tempered(e[1], one_tau, r[0], r[1], c)
            for i in range(P):
                to, y = of(x[1], i), of(e[1], i)
                for l in range(L):
                    to[l] = y[S * l]

        return make

    return passed_back(points, 1 / backward)


def gapped_straight_through(temperature: float, gap: float, adaptive: bool) -> Form:
    """g = 1/tau J(y) grad f(x), y = softmax(l' / tau), l' the logits moved as far as puts x first by the gap."""

    def points(at: Lanes) -> Function:
        moved = moved_categories if one_hot(at.shape) else moved_bits
        sample, move, soft, one_tau = (
            at.q.sample,
            moved(at, gap, adaptive),
            relaxation(at).soft,
            at.be.real(1 / temperature),
        )

        @at.be.jit
        def make(x, e, r, c):  # type: ignore[no-untyped-def]
            sample(x[0], e[0], 0, c)
            move(x[1], x[0], r[0], r[1], c)
            soft(x[1], one_tau, r[0], r[1])

        return make

    return passed_back(points, 1 / temperature)


def moved_bits(at: Lanes, gap: float, adaptive: bool) -> Function:
    """`move(z, b, most, width, c)`: z = s max(s l, gap), s = +-1; adaptive, the gap is -log(1 - pi) / pi, pi = sigmoid(s l)."""
    D, L, S, R, softplus, sigmoid = at.D, at.L, at.S, at.be.real, vmath.softplus(at.be), vmath.sigmoid(at.be)
    GAP, ZERO, ONE = R(gap), R(0), R(1)

    @at.be.jit
    def move(z, b, most, width, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                s = ONE if b[d, l] > ZERO else -ONE
                toward = s * c.par[LOGIT, d, S * l]
                wide = softplus(toward) / sigmoid(toward) if adaptive else GAP
                z[d, l] = s * (toward if toward > wide else wide)

    return move


def moved_categories(at: Lanes, gap: float, adaptive: bool) -> Function:
    """`move(z, b, most, width, c)`: z = l + (max l - l) b - (1 - b) max(0, l - max l + gap).

    Adaptive, the gap is -log(1 - pi) / pi, 1 - pi the sum of the others' probabilities.
    """
    (D, C), L, S, R, log = at.shape.event, at.L, at.S, at.be.real, vmath.log(at.be)
    GAP, ZERO, ONE, TINY = R(gap), R(0), R(1), R(1e-37)

    @at.be.jit
    def move(z, b, most, width, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                top, pi, others = c.par[THETA, d, 0, S * l], ZERO, ZERO
                for i in range(C):
                    theta, p = c.par[THETA, d, i, S * l], c.par[PROBABILITY, d, i, S * l]
                    top = theta if theta > top else top
                    pi += b[d, i, l] * p
                    others += (ONE - b[d, i, l]) * p
                most[l] = top
                width[l] = -log(others if others > TINY else TINY) / pi if adaptive else GAP
            for i in range(C):
                for l in range(L):
                    theta = c.par[THETA, d, i, S * l]
                    below = theta - most[l] + width[l]
                    z[d, i, l] = most[l] if b[d, i, l] > ZERO else theta - (below if below > ZERO else ZERO)

    return move


def tempered_draw(at: Lanes, scale: float) -> Function:
    """`sample(x, e, tag, c)`: x ~ softmax(scale theta)."""
    return tempered_categories(at, scale) if one_hot(at.shape) else tempered_bits(at, scale)


def tempered_bits(at: Lanes, scale: float) -> Function:
    """x_d = 1[u < sigmoid(scale l_d)]."""
    D, L, S, R, words = at.D, at.L, at.S, at.be.real, at.words
    u, sigmoid = uniform(at.be), vmath.sigmoid(at.be)
    SCALE, ZERO, ONE = R(scale), R(0), R(1)

    @at.be.jit
    def sample(x, e, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            for l in range(L):
                x[d, l] = ONE if u(c.buf[l]) < sigmoid(SCALE * c.par[LOGIT, d, S * l]) else ZERO

    return sample


def tempered_categories(at: Lanes, scale: float) -> Function:
    """x_d = onehot(argmax_c scale theta_dc + G_dc), the first of the largest."""
    (D, C), L, S, R, words = at.shape.event, at.L, at.S, at.be.real, at.words
    u, log = uniform(at.be), vmath.log(at.be)
    SCALE, ZERO, ONE = R(scale), R(0), R(1)

    @at.be.jit
    def sample(x, e, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                words(c.buf, d * C + i, tag, c)
                for l in range(L):
                    e[d, i, l] = SCALE * c.par[THETA, d, i, S * l] - log(-log(u(c.buf[l])))
            for l in range(L):
                best, at = e[d, 0, l], ZERO
                for i in range(1, C):
                    at = R(i) if e[d, i, l] > best else at
                    best = e[d, i, l] if e[d, i, l] > best else best
                for i in range(C):
                    x[d, i, l] = ONE if at == R(i) else ZERO

    return sample


def soft_mean(at: Lanes) -> Function:
    """`tempered(y, scale, a, b, c)`: y = softmax(scale theta), to be read at `S * l`: the lanes that share theta share it."""
    P, of, lanes = at.shape.P, entry(at.be, at.shape), at.L if at.S else 1
    if one_hot(at.shape):
        soft, logit = soft_categories(at.be, at.D, at.shape.event[-1], lanes), THETA
    else:
        soft, logit = soft_bits(at.be, at.D, lanes), LOGIT

    @at.be.jit
    def tempered(y, scale, a, b, c):  # type: ignore[no-untyped-def]
        for i in range(P):
            to, theta = of(y, i), of(c.par[logit], i)
            for l in range(lanes):
                to[l] = theta[l]
        soft(y, scale, a, b)

    return tempered
