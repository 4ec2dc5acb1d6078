"""What a problem gives the kernels beside `scalar_f`, where plain Python of one point would be slow: f over lanes of points.

A lane is a replicate, and lanes are the last axis of every array: x `[*event, L]`, out `[L]`. A model is written once, with the
functions of a Kit, and compiled for every device; its constants are made with `kit.real`, its loops over lanes are innermost.
`c` is what a lane function knows besides its points (`estimators.kernels.base.Here`): of it a model reads c.row `[F, 1 or L]`, the
datum, at `c.row[i, S * l]`; c.model `[M]`; c.table `[n, m]`, its own constants; c.room `[rooms, L]`, to work in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Kit:
    """What a lane model is made with.

    jit: decorator of every function that others call. real: numpy.float64 or numpy.float32. L: lanes. S: 1 where lanes have rows
    of data of their own, else 0. exp, log, sigmoid, softplus: of one number, which a compiler vectorises; sincos_turns(u): the
    sine and the cosine of 2 pi u. They signal nothing: exp stays finite where e^x is too large and where x is no number, and log is
    of a normal positive number alone.
    """

    jit: Callable[[Function], Function]
    real: Any
    L: int
    S: int
    exp: Function
    log: Function
    sigmoid: Function
    softplus: Function
    sincos_turns: Function


@dataclass(frozen=True, eq=False)
class LaneModel:
    """f over lanes, and what else of it can be had for less than f again.

    f(out `[L]`, x, c): f of one datum. df(out `[*event, L]`, x, c): its gradient in x.
    credit(m `[M, L]`, x, w `[L]`, c): m += w times the gradient of f in the model; needed where the problem has a model.
    begin(x, c), then moved(out `[L]`, x, d, v `[L]`, c): f with site d of x put to v, without changing x. What begin keeps in
    c.room must outlive f, credit and moved.
    hessian(h `[D D, L]`, x, c): h = the matrix of second derivatives of f, row by row; where it is offered. A begun point is lost.
    table: the constants that c.table holds. rooms: rows of c.room that it works in. widest: lanes of a block beyond which its
    work leaves the CPU's nearest cache.
    """

    f: Function
    df: Function | None = None
    credit: Function | None = None
    begin: Function | None = None
    moved: Function | None = None
    table: np.ndarray | None = None
    rooms: int = 0
    hessian: Function | None = None
    widest: int = 1024
