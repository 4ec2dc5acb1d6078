"""off_policy in lanes: samples of r, proportional to q^(1 / T), and their log weights."""

from __future__ import annotations

import math

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOG_NORM, LOG_P, LOGIT, MU, SIGMA, THETA
from estimators.kernels.philox import uniform
from estimators.kernels.relaxation import one_hot


def flat_bits(at: Lanes, temperature: float) -> Function:
    """x_d = 1[u < sigmoid(theta_d / T)]; log w = sum_d (x theta - log(1 + e^theta)) - (x theta / T - log(1 + e^(theta / T)))."""
    D, L, S, R, words, u = at.D, at.L, at.S, at.be.real, at.words, uniform(at.be)
    sigmoid, softplus = vmath.sigmoid(at.be), vmath.softplus(at.be)
    one_T, ZERO, ONE = R(1 / temperature), R(0), R(1)

    @at.be.jit
    def sample(x, e, log_w, a, b, tag, c):  # type: ignore[no-untyped-def]
        log_w[:] = ZERO
        for d in range(D):
            words(c.buf, d, tag, c)
            for l in range(L):
                theta = c.par[LOGIT, d, S * l]
                flat = theta * one_T
                bit = ONE if u(c.buf[l]) < sigmoid(flat) else ZERO
                x[d, l] = bit
                log_w[l] += bit * (theta - flat) - (c.par[LOG_NORM, d, S * l] - softplus(flat))

    return sample


def flat_categories(at: Lanes, temperature: float) -> Function:
    """x_d = onehot(argmax_c theta_dc / T + G_dc); log w = sum_d log q(x_d) - log softmax(theta_d / T)_{x_d}."""
    (D, C), L, S, R, draw = at.shape.event, at.L, at.S, at.be.real, at.q.sample
    exp, log = vmath.exp(at.be), vmath.log(at.be)
    one_T, ZERO, ONE = R(1 / temperature), R(0), R(1)

    @at.be.jit
    def sample(x, e, log_w, a, b, tag, c):  # type: ignore[no-untyped-def]
        """a: the largest theta_dc / T; b: the sum of e^(theta_dc / T - a)."""
        draw(x, e, tag, c)
        log_w[:] = ZERO
        for d in range(D):
            for l in range(L):
                flat = c.par[THETA, d, 0, S * l] * one_T
                best, at_best, largest = flat + e[d, 0, l], ZERO, flat
                for i in range(1, C):
                    flat = c.par[THETA, d, i, S * l] * one_T
                    z = flat + e[d, i, l]
                    at_best = R(i) if z > best else at_best
                    best = z if z > best else best
                    largest = flat if flat > largest else largest
                a[l], b[l] = largest, ZERO
                for i in range(C):
                    x[d, i, l] = ONE if at_best == R(i) else ZERO
            for i in range(C):
                for l in range(L):
                    flat = c.par[THETA, d, i, S * l] * one_T
                    b[l] += exp(flat - a[l])
                    log_w[l] += x[d, i, l] * (c.par[LOG_P, d, i, S * l] - flat)
            for l in range(L):
                log_w[l] += a[l] + log(b[l])

    return sample


def flat_normals(at: Lanes, temperature: float) -> Function:
    """x = mu + sqrt T sigma eps; log w = sum_d 1/2 (1 - T) eps_d^2 + 1/2 log T."""
    D, L, S, R, draw = at.D, at.L, at.S, at.be.real, at.q.sample
    root, slope, level = R(math.sqrt(temperature)), R(0.5 * (1 - temperature)), R(0.5 * at.D * math.log(temperature))

    @at.be.jit
    def sample(x, e, log_w, a, b, tag, c):  # type: ignore[no-untyped-def]
        draw(x, e, tag, c)
        log_w[:] = level
        for d in range(D):
            for l in range(L):
                eps = e[d, l]
                x[d, l] = c.par[MU, d, S * l] + root * c.par[SIGMA, d, S * l] * eps
                log_w[l] += slope * (eps * eps)

    return sample


def flat(at: Lanes, temperature: float) -> Function:
    """`sample(x, e, log_w, a, b, tag, c)`: x ~ r, and log w = log q(x) / r(x); a, b are rows `[L]` to work in."""
    if one_hot(at.shape):
        return flat_categories(at, temperature)
    return flat_bits(at, temperature) if at.q.path is None else flat_normals(at, temperature)


def mean_of_the_others(at: Lanes, samples: int) -> Function:
    """`others(out, f, log_w, top, below, k)`: out = sum_{j != k} w_j f_j / sum_{j != k} w_j."""
    L, ZERO, exp, start = at.L, at.be.real(0), vmath.exp(at.be), at.be.real(-math.inf)

    @at.be.jit
    def others(out, f, log_w, top, below, k):  # type: ignore[no-untyped-def]
        top[:] = start
        out[:] = ZERO
        below[:] = ZERO
        for j in range(samples):
            if j != k:
                for l in range(L):
                    top[l] = log_w[j, l] if log_w[j, l] > top[l] else top[l]
        for j in range(samples):
            if j != k:
                for l in range(L):
                    w = exp(log_w[j, l] - top[l])
                    out[l] += w * f[j, l]
                    below[l] += w
        for l in range(L):
            out[l] = out[l] / below[l]

    return others


def shares(at: Lanes, samples: int, self_normalised: bool) -> Function:
    """`share(v, log_w, top, sum_)`: v_k = w_k / K, or w_k / sum_j w_j."""
    L, R, exp = at.L, at.be.real, vmath.exp(at.be)
    one_K, ZERO, start = R(1 / samples), R(0), R(-math.inf)

    @at.be.jit
    def of_all(v, log_w, top, sum_):  # type: ignore[no-untyped-def]
        for k in range(samples):
            for l in range(L):
                v[k, l] = exp(log_w[k, l]) * one_K

    @at.be.jit
    def of_sum(v, log_w, top, sum_):  # type: ignore[no-untyped-def]
        top[:] = start
        sum_[:] = ZERO
        for k in range(samples):
            for l in range(L):
                top[l] = log_w[k, l] if log_w[k, l] > top[l] else top[l]
        for k in range(samples):
            for l in range(L):
                w = exp(log_w[k, l] - top[l])
                v[k, l] = w
                sum_[l] += w
        for k in range(samples):
            for l in range(L):
                v[k, l] = v[k, l] / sum_[l]

    return of_sum if self_normalised else of_all


def off_policy(samples: int, temperature: float, baseline: str, self_normalised: bool) -> Form:
    """g = sum_k v_k (f_k - b_k) grad log q(x_k), v_k = 1/K q(x_k) / r(x_k)."""
    K = samples

    def build(at: Lanes) -> Function:
        L, ZERO, scores, f, credit = at.L, at.be.real(0), at.q.scores(K), at.f, at.credit
        sample, share, others = flat(at, temperature), shares(at, K, self_normalised), mean_of_the_others(at, K)
        centred = baseline != "none"

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            fx, log_w, v, b, top, sum_ = r[:K], r[K : 2 * K], r[2 * K : 3 * K], r[3 * K], r[3 * K + 1], r[3 * K + 2]
            for k in range(K):
                sample(x[k], e[k], log_w[k], top, sum_, k, c)
                f(fx[k], x[k], c)
            share(v, log_w, top, sum_)
            b[:] = ZERO
            for k in range(K):
                credit(x[k], v[k], c)
                if centred:
                    others(b, fx, log_w, top, sum_, k)
                for l in range(L):
                    v[k, l] = v[k, l] * (fx[k, l] - b[l])
            scores(g, x, v, c)

        return estimate

    return Form(K, 3 * K + 3, build, families=("bernoulli", "categorical", "normal"))
