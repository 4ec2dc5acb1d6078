"""rebar and relax in lanes: f, or a network, at the relaxed points z and z given b."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.conditional_relaxation import V, conditioned
from estimators.kernels.families import LOGIT, THETA
from estimators.kernels.relaxation import FAMILIES, entry, one_hot
from estimators.kernels.relaxation import relaxation as relaxed

if TYPE_CHECKING:
    from torch import Tensor

ONE_LAM, KAPPA, ETA = range(3)  # of rebar's state


def rebar(temperature: float, eta: float, coupling: str, relaxation: str, steps: int, lr: float) -> Form:
    """g = [f(b) - eta f(s~)] grad log q(b) + eta d/dl f(s) - eta d/dl f(s~), s = soft((z + kappa l) / lam), s~ the same of z~.

    Where the noise is tied, z~ = z, and both are moved by kappa l alike.
    """

    def build(at: Lanes) -> Function:
        L, R, f, df, score, credit = at.L, at.be.real, at.f, at.df, at.q.score, at.credit
        (_, draw, soft, jacobian), (z_given, tied, pull) = relaxed(at), conditioned(at)
        add_logits, ZERO, ONE, as_one = logits(at), R(0), R(1), coupling == "tied"

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            one_lam, kappa, eta = c.state[ONE_LAM], c.state[KAPPA], c.state[ETA]
            b, s, s_tilde, share, df_s, df_tilde = x[0], x[1], x[2], e[0], e[1], e[2]
            g[:] = ZERO
            draw(b, s, 0, c)
            if as_one:
                tied(share, s, b, r[0], c)
            else:
                z_given(s_tilde, share, b, V, r[0], c)
                add_logits(s_tilde, kappa, c)
                soft(s_tilde, one_lam, r[0], r[1])
            add_logits(s, kappa, c)
            soft(s, one_lam, r[0], r[1])
            f(r[0], b, c)
            df(df_s, s, c)
            if as_one:
                f(r[1], s, c)
            else:
                f(r[1], s_tilde, c)
                df(df_tilde, s_tilde, c)
            for l in range(L):
                r[0, l] = r[0, l] - eta * r[1, l]
            score(g, b, r[0], c)
            if as_one:
                jacobian(g, s, df_s, eta * one_lam, r[0])
                pull(g, s, df_s, share, -eta * one_lam, r[0], r[1], c)
            else:
                moves = ONE + kappa
                jacobian(g, s, df_s, eta * one_lam * moves, r[0])
                jacobian(g, s_tilde, df_tilde, -eta * one_lam * kappa, r[0])
                pull(g, s_tilde, df_tilde, share, -eta * one_lam, r[0], r[1], c)
            r[0, :] = ONE
            credit(b, r[0], c)

        return estimate

    def state(learned: Mapping[str, Tensor]) -> np.ndarray:
        lam = float(learned["log_temperature"].exp())
        kappa = lam * lam / (lam + 1) if relaxation == "muprop" else 0.0
        return np.array([1 / lam, kappa, float(learned["eta"])])

    return Form(3, 2, build, gradient=True, families=FAMILIES, state=state)


def logits(at: Lanes) -> Function:
    """`add(z, w, c)`: z += w l, l the logits, w one number."""
    P, L, S, of = at.shape.P, at.L, at.S, entry(at.be, at.shape)
    C, of_categories = at.shape.event[-1], one_hot(at.shape)

    @at.be.jit
    def add(z, w, c):  # type: ignore[no-untyped-def]
        for i in range(P):
            out = of(z, i)
            for l in range(L):
                out[l] += w * (c.par[THETA, i // C, i % C, S * l] if of_categories else c.par[LOGIT, i, S * l])

    return add


def relax(hidden: int, steps: int, lr: float) -> Form:
    """g = [f(b) - c(z~)] grad log q(b) + d/dl c(z) - d/dl c(z~)."""

    def build(at: Lanes) -> Function:
        L, R, f, score, credit, net = at.L, at.be.real, at.f, at.q.score, at.credit, network(at, hidden)
        (_, draw, soft, jacobian), (z_given, _, pull) = relaxed(at), conditioned(at)
        ZERO, ONE = R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            b, y, y_tilde, share, dc, dc_tilde = x[0], x[1], x[2], e[0], e[1], e[2]
            units, a, a_tilde = r[2:], r[0], r[1]
            g[:] = ZERO
            draw(b, y, 0, c)
            z_given(y_tilde, share, b, V, a, c)
            soft(y, ONE, a, a_tilde)
            soft(y_tilde, ONE, a, a_tilde)
            net(a, dc, y, units, c)
            net(a_tilde, dc_tilde, y_tilde, units, c)
            f(a, b, c)
            for l in range(L):
                a[l] = a[l] - a_tilde[l]
            score(g, b, a, c)
            jacobian(g, y, dc, ONE, a)
            pull(g, y_tilde, dc_tilde, share, -ONE, a, a_tilde, c)
            a[:] = ONE
            credit(b, a, c)

        return estimate

    return Form(3, 2 + hidden, build, families=FAMILIES, state=weights_of)


def network(at: Lanes, hidden: int, scale: float = 2.0, shift: float = -1.0) -> Function:
    """`net(out, dc, y, units, c)`: out = w . tanh(W (scale y + shift) + a) + c0, and dc its gradient in y.

    tanh h = 2 sigmoid(2 h) - 1. units: rows `[hidden, L]` to work in.
    """
    L, R, of, sigmoid = at.L, at.be.real, entry(at.be, at.shape), vmath.sigmoid(at.be)
    inputs = math.prod(at.shape.event)
    A = hidden * inputs  # places of a, w and c0 in the state, after W
    W_OUT, OFFSET = A + hidden, A + 2 * hidden
    ZERO, ONE, TWO, SCALE, SHIFT = R(0), R(1), R(2), R(scale), R(shift)

    @at.be.jit
    def net(out, dc, y, units, c):  # type: ignore[no-untyped-def]
        out[:] = c.state[OFFSET]
        for h in range(hidden):
            unit, w = units[h], c.state[W_OUT + h]
            unit[:] = c.state[A + h]
            for i in range(inputs):
                weight, input_ = c.state[h * inputs + i], of(y, i)
                for l in range(L):
                    unit[l] += weight * (SCALE * input_[l] + SHIFT)
            for l in range(L):
                t = TWO * sigmoid(TWO * unit[l]) - ONE
                out[l] += w * t
                unit[l] = SCALE * (w * (ONE - t * t))
        for i in range(inputs):
            slope = of(dc, i)
            slope[:] = ZERO
            for h in range(hidden):
                weight, unit = c.state[h * inputs + i], units[h]
                for l in range(L):
                    slope[l] += weight * unit[l]

    return net


def weights_of(learned: Mapping[str, Tensor]) -> np.ndarray:
    """The network's weights, as `net` reads them."""
    parts = [learned[name].detach().double().numpy().ravel() for name in ("W", "a", "w", "c0")]
    return np.concatenate(parts)
