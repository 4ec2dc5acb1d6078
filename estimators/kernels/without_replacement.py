"""Samples without replacement and strata of the joint states, in lanes."""

from __future__ import annotations

import math

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.enumeration import (
    STEPS,
    USED,
    chosen_by,
    first_of_largest,
    listed,
    mass_left,
    number_of_states,
    perturbed,
    placed,
)
from estimators.kernels.philox import uniform

FAMILIES = ("bernoulli", "categorical")


def sum_and_sample(samples: int, chosen: str, baseline: bool, states: int) -> Form:
    """g = sum_{z in S} q(z) (f(z) - b) grad log q(z) + (1 - q(S)) (f(z') - b) grad log q(z'), b = sum_S q f / q(S) or 0.

    Rows: log q of every state; what states are chosen by; of each point chosen its number, weight and f; and two to work in.
    """
    K, drawn = samples, chosen == "drawn"

    def build(at: Lanes) -> Function:
        L, R, f, score, credit, N = at.L, at.be.real, at.f, at.q.score, at.credit, number_of_states(at.shape)
        keys = chosen_by(at, 0 if drawn else STEPS)
        list_all, perturb, largest = listed(at), perturbed(at), first_of_largest(at)
        left, put = mass_left(at), placed(at)
        log_prob, exp, ZERO = at.q.log_prob, vmath.exp(at.be), R(0)
        PLACE, WEIGHT, VALUE, MASS, MEAN = 2 * N, 2 * N + K, 2 * N + 2 * K, 2 * N + 3 * K, 2 * N + 3 * K + 1
        FROM = 0 if drawn else K - 1  # the first point that is drawn

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, mass, mean = x[0], r[MASS], r[MEAN]
            g[:] = ZERO
            mass[:] = ZERO
            mean[:] = ZERO
            list_all(r, c)
            keys(r)
            for k in range(K):
                weight, value = r[WEIGHT + k], r[VALUE + k]
                if k == K - 1:
                    left(weight, r)
                if k == FROM:
                    perturb(r, c)
                largest(r, r[PLACE + k], value)
                put(z, r[PLACE + k])
                f(value, z, c)
                if k < K - 1:
                    log_prob(weight, z, c)
                    for l in range(L):
                        weight[l] = exp(weight[l])
                        mass[l] += weight[l]
                        mean[l] += weight[l] * value[l]
            for l in range(L):
                mean[l] = mean[l] / mass[l] if baseline else ZERO
            for k in range(K):
                put(z, r[PLACE + k])
                credit(z, r[WEIGHT + k], c)
                for l in range(L):
                    r[WEIGHT + k, l] *= r[VALUE + k, l] - mean[l]
                score(g, z, r[WEIGHT + k], c)

        return estimate

    return Form(1, lambda shape: 2 * number_of_states(shape) + 3 * K + 2, build, families=("bernoulli", "categorical"))


def drawn(at: Lanes, K: int) -> Function:
    """`draw(x, r, place, log_q, fx, c)`: K points by the Gumbel-top-k trick, f there, and places, log q and f of each in r.

    place, log_q, fx: the first of K rows.
    """
    f, log_prob = at.f, at.q.log_prob
    list_all, keys, perturb, largest, put = listed(at), chosen_by(at), perturbed(at), first_of_largest(at), placed(at)

    @at.be.jit
    def draw(x, r, place, log_q, fx, c):  # type: ignore[no-untyped-def]
        list_all(r, c)
        keys(r)
        perturb(r, c)
        for k in range(K):
            largest(r, r[place + k], r[fx + k])
            put(x, r[place + k])
            log_prob(r[log_q + k], x, c)
            f(r[fx + k], x, c)

    return draw


def scored(at: Lanes, K: int) -> Function:
    """`score(g, x, r, place, share, weight, c)`: g = sum_k weight_k grad log q(x_k), and the model credited with share_k."""
    score, credit, put, ZERO = at.q.score, at.credit, placed(at), at.be.real(0)

    @at.be.jit
    def all_scores(g, x, r, place, share, weight, c):  # type: ignore[no-untyped-def]
        g[:] = ZERO
        for k in range(K):
            put(x, r[place + k])
            credit(x, r[share + k], c)
            score(g, x, r[weight + k], c)

    return all_scores


def score_without_replacement(samples: int, baseline: bool, normalised: bool, states: int) -> Form:
    """(9) r_i f_i, (10) r_i (f_i (1 - q_i + r_i) - B), (11) r_i / (W - r_i + q_i) (f_i - B / W), of grad log q_i."""
    K = samples

    def build(at: Lanes) -> Function:
        L, R, N, exp = at.L, at.be.real, number_of_states(at.shape), vmath.exp(at.be)
        draw, scores, largest, passing = drawn(at, K), scored(at, K), first_of_largest(at), log_passing(at)
        PLACE, LOG_Q, VALUE, SHARE = 2 * N, 2 * N + K, 2 * N + 2 * K, 2 * N + 3 * K
        WHOLE, MEAN = 2 * N + 4 * K, 2 * N + 4 * K + 1
        ZERO, ONE, some_left = R(0), R(1), K < N

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            W, B = r[WHOLE], r[MEAN]
            draw(x[0], r, PLACE, LOG_Q, VALUE, c)
            largest(r, W, B)  # B is kappa
            for k in range(K):
                for l in range(L):
                    above = passing(r[LOG_Q + k, l] - B[l]) if some_left else ZERO
                    r[SHARE + k, l] = exp(r[LOG_Q + k, l] - above)
            W[:] = ZERO
            B[:] = ZERO
            for k in range(K):
                for l in range(L):
                    W[l] += r[SHARE + k, l]
                    B[l] += r[SHARE + k, l] * r[VALUE + k, l]
            for k in range(K):
                for l in range(L):
                    w, q, fk = r[SHARE + k, l], exp(r[LOG_Q + k, l]), r[VALUE + k, l]
                    if baseline and normalised:
                        r[LOG_Q + k, l] = w / (W[l] - w + q) * (fk - B[l] / W[l])
                    elif baseline:
                        r[LOG_Q + k, l] = w * (fk * (ONE - q + w) - B[l])
                    else:
                        r[LOG_Q + k, l] = w * fk / W[l] if normalised else w * fk
                    r[SHARE + k, l] = w / W[l] if normalised else w
            scores(g, x[0], r, PLACE, SHARE, LOG_Q, c)

        return estimate

    return Form(1, lambda shape: 2 * number_of_states(shape) + 4 * K + 2, build, families=FAMILIES)


def log_passing(at: Lanes) -> Function:
    """`passing(above)`: log(1 - exp(-exp above))."""
    R, exp, log = at.be.real, vmath.exp(at.be), vmath.log(at.be)
    SMALL = R(-30)

    @at.be.jit
    def passing(above):  # type: ignore[no-untyped-def]
        return above if above < SMALL else log(-R(math.expm1(-exp(above))))

    return passing


def unordered_set(samples: int, baseline: bool, states: int) -> Form:
    """g = sum_{i in S} q_i R(S, i) [f_i - sum_{j in S} q_j R^{D - i}(S, j) f_j] grad log q_i.

    Rows, beside those of the states: of each point its number, log q, f and weights; and log P(A) of every A within S, by its bits.
    """
    K, ALL = samples, (1 << samples) - 1

    def build(at: Lanes) -> Function:
        L, R, N, exp = at.L, at.be.real, number_of_states(at.shape), vmath.exp(at.be)
        draw, scores, left, drawing = drawn(at, K), scored(at, K), log_left(at), log_drawing(at, K)
        PLACE, LOG_Q, VALUE, SHARE = 2 * N, 2 * N + K, 2 * N + 2 * K, 2 * N + 3 * K
        WEIGHT, SETS, LEFT = 2 * N + 4 * K, 2 * N + 5 * K, 2 * N + 5 * K + ALL + 1
        ZERO = R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            draw(x[0], r, PLACE, LOG_Q, VALUE, c)
            left(r[LEFT], r)
            drawing(r, SETS, LOG_Q, LEFT)
            for i in range(K):
                P_i = r[SETS + (ALL ^ (1 << i))]
                for l in range(L):
                    r[WEIGHT + i, l] = r[VALUE + i, l]
                if baseline:
                    for j in range(K):
                        for l in range(L):
                            inner = ZERO if i == j else r[SETS + (ALL ^ (1 << i) ^ (1 << j)), l] - P_i[l]
                            r[WEIGHT + i, l] -= exp(r[LOG_Q + j, l] + inner) * r[VALUE + j, l]
                for l in range(L):
                    r[SHARE + i, l] = exp(r[LOG_Q + i, l] + P_i[l] - r[SETS + ALL, l])
                    r[WEIGHT + i, l] *= r[SHARE + i, l]
            scores(g, x[0], r, PLACE, SHARE, WEIGHT, c)

        return estimate

    return Form(1, lambda shape: 2 * number_of_states(shape) + 5 * K + ALL + 6, build, families=FAMILIES)


def log_left(at: Lanes) -> Function:
    """`left(out, r)`: log of the sum of q over the states that are not used; far below where all are."""
    L, S, R, N, exp, log = at.L, at.S, at.be.real, number_of_states(at.shape), vmath.exp(at.be), vmath.log(at.be)
    GONE, UNUSED, ZERO = R(USED), R(USED / 2), R(0)

    @at.be.jit
    def left(out, r):  # type: ignore[no-untyped-def]
        total = r[N]  # what the states were chosen by has served
        out[:] = GONE
        for s in range(N):
            for l in range(L):
                r[N + s, l] = r[s, S * l] if r[N + s, l] > UNUSED else GONE
                out[l] = r[N + s, l] if r[N + s, l] > out[l] else out[l]
        for l in range(L):
            total[l] = exp(total[l] - out[l])
        for s in range(1, N):
            for l in range(L):
                total[l] += exp(r[N + s, l] - out[l])
        for l in range(L):
            out[l] += log(total[l]) if out[l] > UNUSED else ZERO

    return left


def log_drawing(at: Lanes, K: int) -> Function:
    """`drawing(r, sets, log_q, left)`: log P(A) of every A, by its bits; four rows after `left` are worked in.

    P(A) = sum_{a in A} q_a P(A - a) / W(A), W(A) = q(A) + q(not S); of both sums the largest term is taken out.
    """
    L, R, exp, log = at.L, at.be.real, vmath.exp(at.be), vmath.log(at.be)
    ZERO, GONE = R(0), R(USED)

    @at.be.jit
    def drawing(r, sets, log_q, left):  # type: ignore[no-untyped-def]
        top_W, top_P, W, P = r[left + 1], r[left + 2], r[left + 3], r[left + 4]
        r[sets, :] = ZERO
        for A in range(1, 1 << K):
            for l in range(L):
                top_W[l], top_P[l] = r[left, l], GONE
            for a in range(K):
                if (A >> a) & 1:
                    for l in range(L):
                        q, term = r[log_q + a, l], r[log_q + a, l] + r[sets + A - (1 << a), l]
                        top_W[l] = q if q > top_W[l] else top_W[l]
                        top_P[l] = term if term > top_P[l] else top_P[l]
            for l in range(L):
                W[l], P[l] = exp(r[left, l] - top_W[l]), ZERO
            for a in range(K):
                if (A >> a) & 1:
                    for l in range(L):
                        W[l] += exp(r[log_q + a, l] - top_W[l])
                        P[l] += exp(r[log_q + a, l] + r[sets + A - (1 << a), l] - top_P[l])
            for l in range(L):
                r[sets + A, l] = top_P[l] + log(P[l]) - (top_W[l] + log(W[l]))

    return drawing


def stratified(samples: int, design: str, baseline: float, states: int) -> Form:
    """g = 1/K sum_k (f_k - b) grad log q(x_k), x_k = F^-1((k + u_k) / K) over the states in their order."""
    K, own = samples, design == "stratified"

    def build(at: Lanes) -> Function:
        L, S, R, N, f, words, exp = at.L, at.S, at.be.real, number_of_states(at.shape), at.f, at.words, vmath.exp(at.be)
        list_all, put, scores, u, lanes = listed(at), placed(at), scored(at, K), uniform(at.be), L if S else 1
        PLACE, SHARE, WEIGHT = N, N + K, N + 2 * K
        ZERO, ONE, b, one_K = R(0), R(1), R(baseline), R(1 / K)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            list_all(r, c)
            for l in range(lanes):
                total = ZERO
                for s in range(N):
                    total += exp(r[s, l])
                    r[s, l] = total
            for k in range(K):
                place, reach = r[PLACE + k], r[WEIGHT + k]
                words(c.buf, 0, k if own else 0, c)
                for l in range(L):
                    reach[l] = (R(k) + u(c.buf[l])) * one_K * r[N - 1, S * l]
                    place[l] = ZERO
                for s in range(N - 1):
                    for l in range(L):
                        place[l] += ONE if r[s, S * l] < reach[l] else ZERO
                put(x[0], place)
                f(reach, x[0], c)
                for l in range(L):
                    reach[l] = (reach[l] - b) * one_K
                    r[SHARE + k, l] = one_K
            scores(g, x[0], r, PLACE, SHARE, WEIGHT, c)

        return estimate

    return Form(1, lambda shape: number_of_states(shape) + 3 * K, build, families=FAMILIES)
