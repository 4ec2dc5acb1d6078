"""Local DisARM for importance-weighted bounds in lanes."""

from __future__ import annotations

import math

from estimators.kernels import vmath
from estimators.kernels.antithetic import pair
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes, Shape
from estimators.kernels.families import SURE, P
from estimators.kernels.importance_weighted import log_add, of_the_others


def draws(shape: Shape) -> int:
    """K pairs."""
    return 2 * shape.samples


def rows(shape: Shape) -> int:
    """log w, v and the bounds of both halves, K each, and two more."""
    return 5 * shape.samples + 2


def normalised(at: Lanes, K: int) -> Function:
    """`normalise(v, bound, log_w)`: v = softmax(log w), and the bound, log 1/K sum_k w_k."""
    L, R, exp, log = at.L, at.be.real, vmath.exp(at.be), vmath.log(at.be)
    LOG_K, ZERO, ONE = R(math.log(K)), R(0), R(1)

    @at.be.jit
    def normalise(v, bound, log_w):  # type: ignore[no-untyped-def]
        for l in range(L):
            most, total = log_w[0, l], ZERO
            for k in range(1, K):
                most = log_w[k, l] if log_w[k, l] > most else most
            for k in range(K):
                v[k, l] = exp(log_w[k, l] - most)
                total += v[k, l]
            for k in range(K):
                v[k, l] *= ONE / total
            bound[l] = most + log(total) - LOG_K

    return normalise


def turned(at: Lanes, K: int) -> Function:
    """`turn(out, log_w, log_w_tilde, spare)`: out_k = log 1/K (sum_{j != k} w_j + w~_k)."""
    L, R, join = at.L, at.be.real, log_add(at.be)
    LOG_K = R(math.log(K))

    if K == 1:

        @at.be.jit
        def alone(out, log_w, log_w_tilde, spare):  # type: ignore[no-untyped-def]
            for l in range(L):
                out[0, l] = log_w_tilde[0, l]

        return alone

    others = of_the_others(at, K, join)

    @at.be.jit
    def turn(out, log_w, log_w_tilde, spare):  # type: ignore[no-untyped-def]
        others(out, log_w, spare)
        for k in range(K):
            for l in range(L):
                out[k, l] = join(out[k, l], log_w_tilde[k, l]) - LOG_K

    return turn


def vimco_disarm(weights: str) -> Form:
    """g_d = sum_k 1/2 (h_k - h_k(b_k -> b~_k)) (b_kd - b~_kd) sigmoid(|theta_d|), h_k = L - v_k.

    weights=apart: h_k = L, less sum_k v_k (b_kd - p_d).
    """
    paired = weights == "paired"

    def build(at: Lanes) -> Function:
        K, D, L, S, R, f, credit = at.shape.samples, at.D, at.L, at.S, at.be.real, at.f, at.credit
        draw, normalise, turn, exp = pair(at), normalised(at, K), turned(at, K), vmath.exp(at.be)
        LOG_K, ZERO, HALF = R(math.log(K)), R(0), R(0.5)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            log_w, log_w_tilde, v, signal, w = r[:K], r[K : 2 * K], r[2 * K : 3 * K], r[3 * K : 4 * K], r[4 * K : 5 * K]
            bound, spare = r[5 * K], r[5 * K + 1]
            for k in range(K):
                draw(x[k], x[K + k], k, c)
                f(log_w[k], x[k], c)
                f(log_w_tilde[k], x[K + k], c)
            normalise(w, spare, log_w_tilde)
            for k in range(K):
                for l in range(L):
                    w[k, l] *= HALF
                credit(x[K + k], w[k], c)
            turn(signal, log_w, log_w_tilde, spare)
            normalise(v, bound, log_w)
            for k in range(K):
                for l in range(L):
                    w[k, l] = HALF * v[k, l]
                credit(x[k], w[k], c)
                for l in range(L):
                    of_turned = exp(log_w_tilde[k, l] - LOG_K - signal[k, l])
                    signal[k, l] = HALF * (bound[l] - signal[k, l])
                    signal[k, l] -= HALF * (v[k, l] - of_turned) if paired else ZERO
            for d in range(D):
                for l in range(L):
                    total, own = ZERO, ZERO
                    for k in range(K):
                        total += signal[k, l] * (x[k, d, l] - x[K + k, d, l])
                        own += v[k, l] * (x[k, d, l] - c.par[P, d, S * l])
                    total *= c.par[SURE, d, S * l]
                    g[d, l] = total if paired else total - own

        return estimate

    return Form(draws, rows, build, families=("bernoulli",))
