"""exact in lanes: every lane sums over the whole support."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def exact(states: int) -> Form:
    """g = sum_x q(x) f(x) grad log q(x); L = sum_x q(x) f(x)."""

    def build(at: Lanes) -> Function:
        L, R, f, score, log_prob, credit = at.L, at.be.real, at.f, at.q.score, at.q.log_prob, at.credit
        place, exp, ZERO = state(at), vmath.exp(at.be), R(0)
        C = at.shape.event[1] if len(at.shape.event) == 2 else 2
        S = C**at.D

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            for s in range(S):
                place(x[0], s)
                log_prob(r[0], x[0], c)
                f(r[1], x[0], c)
                for l in range(L):
                    q = exp(r[0, l])
                    r[0, l] = q
                    r[1, l] = q * r[1, l]
                score(g, x[0], r[1], c)
                credit(x[0], r[0], c)

        return estimate

    return Form(1, 2, build, families=("bernoulli", "categorical"))


def state(at: Lanes) -> Function:
    """`place(x, s)`: x is point s of the support, the last site's value changing fastest."""
    D, L, R, event = at.D, at.L, at.be.real, at.shape.event
    C = event[-1]
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def bits(x, s):  # type: ignore[no-untyped-def]
        for d in range(D):
            bit = R((s >> (D - 1 - d)) & 1)
            for l in range(L):
                x[d, l] = bit

    @at.be.jit
    def one_hot(x, s):  # type: ignore[no-untyped-def]
        rest = s
        for back in range(D):
            for i in range(C):
                entry = ONE if rest % C == i else ZERO
                for l in range(L):
                    x[D - 1 - back, i, l] = entry
            rest //= C

    return one_hot if len(event) == 2 else bits
