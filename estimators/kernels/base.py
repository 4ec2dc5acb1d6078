"""The records that a kernel is put together from: a family in lanes, an estimator in lanes, and what a lane function knows.

The last axis of every array is lanes, one lane a replicate. Arguments of lane functions: x, e `[*event, L]`, a point and the
noise of its draw; w, out `[L]`; g `[P, L]`, P the parameters of one datum's sites laid out flat as theta is; tag: (noise index <<
INDEX) + front index, the place of a noise array among the estimator's; c: Here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from estimators.kernels.backend import Backend, Function

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

INDEX = 24  # bits of the tag below the noise's index


class Here(NamedTuple):
    """What a lane function knows besides its points: one datum's parameters and values, and the address of its noise.

    The last axis of par, row and datum is 1 where all lanes share the datum, else L: they are read at `S * l`.
    par: `[n, *site, 1 or L]`, as `LaneFamily.prepare` lays it out. row: the datum `[F, 1 or L]`. datum: its number, which addresses
    its noise, `[1 or L]` uint64. model: `[M]`. table: of a `LaneModel`. state: what the estimator has learned, `[n]`.
    moved: gradient of the model, `[M, L]`, added to. buf: `[L]` uint32, z: `[*event, L]` complex, room: `[rooms, L]`, to work in.
    first: a quarter of the first replicate's number. tag: of the phase. key: of the noise.
    """

    par: Any
    row: Any
    datum: Any
    model: Any
    table: Any
    state: Any
    moved: Any
    buf: Any
    z: Any
    room: Any
    first: Any
    tag: Any
    key: Any


class Shape(NamedTuple):
    """event: shape of a point. P: parameters of one datum's sites. samples, alpha: draws and Renyi's order of the objective."""

    event: tuple[int, ...]
    P: int
    samples: int
    alpha: float = 0.0

    @property
    def D(self) -> int:
        """Number of latent sites."""
        return self.event[0]


@dataclass(frozen=True, eq=False)
class FamilyLanes:
    """A family's lane functions; None is not offered.

    sample(x, e, tag, c): a draw, its noise kept in e where the family keeps it. score(g, x, w, c): g += w grad log q(x).
    scores(g, x, w, c): g = sum_k w_k grad log q(x_k), K of them, made by `scores(K)`.
    path(g, x, v, c): g += (dx/dtheta)' v. paths(g, x, w, v, c): g += sum_k w_k (dx_k/dtheta)' v_k, made by `paths(K)`.
    log_prob(out, x, c): log q(x). slope(v, x, c): v -= d log q(x) / dx.
    curve(h `[D D, L]`, x, c): h -= d^2 log q(x) / dx^2.
    """

    sample: Function
    score: Function
    scores: Callable[[int], Function]
    log_prob: Function
    slope: Function | None = None
    path: Function | None = None
    curve: Function | None = None
    paths: Callable[[int], Function] | None = None


@dataclass(frozen=True, eq=False)
class Lanes:
    """What a lane estimator is made with.

    q: the family's functions. f(out, x, c): the integrand of every lane (f - log q for a bound). df(out `[*event, L]`, x, c): its
    gradient in x. begin(x, c), moved(out, x, d, v `[L]`, c): the integrand with site d of x put to v, begun at x, which stays.
    credit(x, w, c): c.moved += w times the gradient of the model at x; to be called for every point that counts in the
    objective's value, with its weight there. words(out, event, tag, c), normals(out, event, tag, c): noise of one event index.
    L: lanes. S: lane stride of c.par, c.row and c.datum. hessian(h `[D D, L]`, x, c): of the integrand, where it is offered.
    """

    be: Backend
    q: FamilyLanes
    f: Function
    df: Function
    begin: Function
    moved: Function
    credit: Function
    words: Function
    shape: Shape
    L: int
    S: int
    hessian: Function | None = None

    @property
    def D(self) -> int:
        """Number of latent sites."""
        return self.shape.D


Number = int | Callable[[Shape], int]


@dataclass(frozen=True, eq=False)
class Form:
    """An estimator in lanes.

    points: points kept, x `[points, *event, L]`, e likewise. rows: rows `[rows, L]` of numbers of its own, in r.
    gradient, hessian: it asks for the gradient of f, for its second derivatives. families: those it is written for; None: any.
    build(lanes) -> estimate(g, x, e, r, c), which fills g and credits the model.
    state: what of the learned state it reads, `state -> [n]`; None where it learns nothing, or nothing that it was given.
    """

    points: Number
    rows: Number
    build: Callable[[Lanes], Function]
    gradient: bool = False
    families: tuple[str, ...] | None = None
    state: Callable[[Mapping[str, Tensor]], np.ndarray] | None = None
    hessian: bool = False

    def sizes(self, shape: Shape) -> tuple[int, int]:
        """points, rows."""
        points, rows = (n(shape) if callable(n) else n for n in (self.points, self.rows))
        return points, rows


@dataclass(frozen=True, eq=False)
class LaneFamily:
    """A family in lanes.

    event(theta shape): shape of a point. prepare(theta `[..., *site]`, dtype) -> par `[..., n, *]`, in float64, computed as the
    torch form of that dtype does. build(be, words, shape, L, S) -> FamilyLanes. keyed: a datum of every lane's own can be drawn.
    """

    prepare: Callable[[Tensor], np.ndarray]
    build: Callable[[Backend, Function, Shape, int, int], FamilyLanes]
    keyed: bool = True
