"""measure_valued_normal in lanes: one coordinate of one draw is replaced at a time."""

from __future__ import annotations

import math

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes
from estimators.kernels.families import normals, uniform

RADIUS, MAXWELL, SHRINK = 1 << INDEX, 2 << INDEX, 3 << INDEX  # places of the noise after eps, of indices 1, 2, 3


def measure_valued_normal() -> Form:
    """g_mu = (f+ - f-) / (sigma sqrt(2 pi)); g_log_sigma = f(mu + sigma M) - f(mu + sigma U M)."""
    ROOT_TURN = math.sqrt(2 * math.pi)

    def build(at: Lanes) -> Function:
        be, D, L, sample, f, words = at.be, at.D, at.L, at.sample, at.f, at.words
        draw, u, log = normals(be, words, L), uniform(be), vmath.log(be)

        @be.jit
        def place(x_d, mu, scale, w):  # type: ignore[no-untyped-def]
            for l in range(L):
                x_d[l] = mu + scale * w[l]

        @be.jit
        def radius(out, buf, first, d, tag, key):  # type: ignore[no-untyped-def]
            """Rayleigh: sqrt(-2 log u)."""
            words(buf, first, d, tag, key)
            for l in range(L):
                out[l] = math.sqrt(-2.0 * log(u(buf[l])))

        @be.jit
        def maxwell(out, a, b, buf, first, d, tag, key):  # type: ignore[no-untyped-def]
            """Double-sided Maxwell: the length of three normals, with the sign of the first."""
            draw(out, buf, first, d, tag, key)
            draw(a, buf, first, d, tag + 1, key)
            draw(b, buf, first, d, tag + 2, key)
            for l in range(L):
                length = math.sqrt(out[l] * out[l] + a[l] * a[l] + b[l] * b[l])
                out[l] = length if out[l] > 0.0 else -length

        @be.jit
        def estimate(g, x, e, fx, z, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
            sample(x[0], e[0], par, buf, first, tag, key)
            w, a, b, own = fx[0], fx[1], fx[2], fx[3]
            for d in range(D):
                mu, sigma = par[0, d], par[1, d]
                for l in range(L):
                    own[l] = x[0, d, l]
                radius(w, buf, first, d, tag + RADIUS, key)
                place(x[0, d], mu, sigma, w)
                f(a, x[0])
                place(x[0, d], mu, -sigma, w)
                f(b, x[0])
                for l in range(L):
                    g[d, l] = (a[l] - b[l]) / (sigma * ROOT_TURN)
                maxwell(w, a, b, buf, first, d, tag + MAXWELL, key)
                place(x[0, d], mu, sigma, w)
                f(a, x[0])
                words(buf, first, d, tag + SHRINK, key)
                for l in range(L):
                    w[l] = u(buf[l]) * w[l]
                place(x[0, d], mu, sigma, w)
                f(b, x[0])
                for l in range(L):
                    g[D + d, l] = a[l] - b[l]
                    x[0, d, l] = own[l]

        return estimate

    return Form(1, 4, build)
