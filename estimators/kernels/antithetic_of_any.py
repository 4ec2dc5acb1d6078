"""antithetic in lanes: by the path of Normal variables, by the score of Normal ones and of bits."""

from __future__ import annotations

from estimators.kernels.antithetic import antithetic_normal, pair
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import MU, SIGMA


def antithetic(samples: int, gradient: str) -> Form:
    """g = mean over pairs of 1/2 [f(x) grad log q(x) + f(x~) grad log q(x~)], or the same of paths."""
    if gradient == "pathwise":
        return antithetic_normal(samples)

    def build(at: Lanes) -> Function:
        L, R, f, score, credit = at.L, at.be.real, at.f, at.q.score, at.credit
        draw, share, ZERO = pair(at) if at.q.path is None else normals(at), R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[1, :] = share
            for k in range(samples // 2):
                draw(x[0], x[1], k, c)
                for half in range(2):
                    f(r[0], x[half], c)
                    for l in range(L):
                        r[0, l] *= share
                    score(g, x[half], r[0], c)
                    credit(x[half], r[1], c)

        return estimate

    return Form(2, 2, build, families=("bernoulli", "normal"))


def normals(at: Lanes) -> Function:
    """`normals(x, x_tilde, tag, c)`: mu + sigma eps and mu - sigma eps."""
    D, L, S, sample = at.D, at.L, at.S, at.q.sample

    @at.be.jit
    def normals(x, x_tilde, tag, c):  # type: ignore[no-untyped-def]
        sample(x, x_tilde, tag, c)
        for d in range(D):
            for l in range(L):
                x_tilde[d, l] = c.par[MU, d, S * l] - c.par[SIGMA, d, S * l] * x_tilde[d, l]

    return normals
