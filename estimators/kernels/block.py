"""One block of lanes of a pair: the gradients of L replicates, on any device.

Over the data of the problem, one after the other: the estimator's gradient in the parameters of the datum's sites is pulled back
to theta through the encoder's Jacobian, which does not depend on the draw, and the model's gradient is added beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from estimators.kernels import philox
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import INDEX, Form, Here, Lanes, Shape
from estimators.kernels.families import FAMILIES
from estimators.kernels.lift import integrand, looked_at, model_of
from estimators.noise import ROWS_INDEX

if TYPE_CHECKING:
    from problems.lanes import Kit, LaneModel

WORKING_SET = 2**18  # numbers that a block of the CPU's lanes may keep


class Tables(NamedTuple):
    """The numbers of a pair that its machine code does not depend on; those of datum n stand at place n of the first axis.

    par: `[N, n, *site, 1]`, row `[N, F, 1]`, datum `[N, 1]`: as in Here. jac `[N, U, 1]`: distinct entries of the encoder's
    Jacobian, of which entry (p, s) that is not nil is number which[i], with source[i] = s and i in start[p] : start[p + 1].
    model `[M]`, table `[n, m]`, state `[n]`: as in Here.
    """

    par: Any
    row: Any
    datum: Any
    jac: Any
    which: Any
    source: Any
    start: Any
    model: Any
    table: Any
    state: Any


@dataclass(frozen=True)
class Pair:
    """What a kernel is compiled for.

    estimator: "module:factory" of its Form. event: shape of a point. theta, model: numbers of the gradient. N: rows of data, 0
    without; batch: rows drawn for each replicate; features: numbers of a row. entries: of the encoder's Jacobian (distinct ones,
    those that are not nil); none without an encoder.
    """

    estimator: str
    settings: tuple[tuple[str, Any], ...]
    family: str
    event: tuple[int, ...]
    sites: int
    samples: int
    ratio: bool
    scalar_f: Callable[..., float] | None
    lanes: Callable[[Kit], LaneModel] | None
    theta: int
    model: int = 0
    N: int = 0
    batch: int = 0
    features: int = 0
    distinct: int = 0
    dtype: str = "float64"
    alpha: float = 0.0

    @property
    def P(self) -> int:
        """Entries of a gradient."""
        return self.theta + self.model

    @property
    def theta_alone(self) -> bool:
        """A gradient is that of one datum's sites: there are no data, no encoder and no model."""
        return not (self.N or self.distinct or self.model)

    @property
    def S(self) -> int:
        """1 where each lane has a datum of its own."""
        return 1 if self.batch else 0

    @property
    def shape(self) -> Shape:
        """What forms are sized by."""
        return Shape(self.event, self.sites, self.samples, self.alpha)

    @cached_property
    def form(self) -> Form:
        """The estimator in lanes."""
        found: Form = self.factory(**dict(self.settings))
        return found

    @property
    def factory(self) -> Function:
        """What makes the form, of the settings."""
        module, name = self.estimator.split(":")
        found: Function = getattr(import_module(module), name)
        return found

    @property
    def lanes_of_cpu(self) -> int:
        """Lanes of a block on the CPU: 256, or fewer where the block's numbers would leave its caches."""
        points, _ = self.form.sizes(self.shape)
        each = self.P + points * self.sites
        widest = 256 if self.lanes is None else looked_at(self.lanes).widest
        most = min(widest, WORKING_SET // each)
        return next((L for L in (256, 128) if most >= L), 64)


@dataclass(frozen=True, eq=False)
class Block:
    """Lane functions of a pair, and the shapes of what they work in.

    gradient(g `[P, L]`, site, x, e, r, z, room, par, row, datum, jac, buf, chosen, tables, first, tag, key): fills g.
    """

    gradient: Function
    scratch: dict[str, tuple[int, ...]]
    L: int


def block(pair: Pair, be: Backend, L: int) -> Block:
    """The lane functions of a pair for blocks of L replicates."""
    shape, S, form = pair.shape, pair.S, pair.form
    words = philox.words(be, L, S)
    q = FAMILIES[pair.family].build(be, words, shape, L, S)
    own = model_of(be, pair.scalar_f, pair.lanes, shape, L, S)
    f = integrand(be, own, q, pair.ratio, shape, L, S)
    assert own.credit is not None
    assert f.df is not None
    assert f.begin is not None
    assert f.moved is not None
    credit = credited(be, own.credit, pair.model > 0)
    estimate = form.build(Lanes(be, q, f.f, f.df, f.begin, f.moved, credit, words, shape, L, S, f.hessian))
    points, rows = form.sizes(shape)
    site_lanes = L if S else 1
    own_rows = pair.N > 0 and S == 1
    scratch = {
        "X": (points, *pair.event, L),
        "E": (points, *pair.event, L),
        "R": (max(rows, 1), L),
        "Z": (pair.event[0] if form.gradient else 1, *pair.event[1:], L),
        "ROOM": (max(f.rooms, 1), L),
        "SITE": (rows_together(pair, L), 1 if pair.theta_alone else pair.sites, L),
        "PAR": par_shape(pair, site_lanes) if own_rows else (1,) * (2 + len(pair.event)),
        "ROW": (max(pair.features, 1), L) if own_rows else (1, 1),
        "JAC": (1, max(pair.distinct, 1), L) if own_rows else (1, 1, 1),
        "DATUM": (L,) if own_rows else (1,),
        "CHOSEN": (pair.batch, L) if own_rows else (1, 1),
        "BUF": (L,),
    }
    build = over_drawn_rows if own_rows else alone if pair.theta_alone else over_rows
    return Block(build(pair, be, estimate, L), scratch, L)


def par_shape(pair: Pair, lanes: int) -> tuple[int, ...]:
    """Of Here.par."""
    import torch

    kind = FAMILIES[pair.family]
    site = (2, *pair.event) if pair.family in ("normal", "gamma") else pair.event
    return (*kind.prepare(torch.zeros(site)).shape, lanes)


def credited(be: Backend, credit: Function, has_model: bool) -> Function:
    """`credit(x, w, c)`, which does nothing without a model."""

    @be.jit
    def nothing(x, w, c):  # type: ignore[no-untyped-def]
        pass

    @be.jit
    def to_model(x, w, c):  # type: ignore[no-untyped-def]
        credit(c.moved, x, w, c)

    return to_model if has_model else nothing


def alone(pair: Pair, be: Backend, estimate: Function, L: int) -> Function:
    """No data, no encoder and no model: the sites' parameters are theta, and all that a gradient is in."""
    P = pair.P

    @be.jit
    def gradient(g, site, x, e, r, z, room, par, row, datum, jac, buf, chosen, T, first, tag, key):  # type: ignore[no-untyped-def]
        c = Here(T.par[0], T.row[0], T.datum[0], T.model, T.table, T.state, g[P:], buf, z, room, first, tag, key)
        estimate(g, x, e, r, c)

    return gradient


def rows_together(pair: Pair, L: int) -> int:
    """Rows of data that are pulled back at once, so that the gradient is gone through more rarely; a GPU's lanes are too few."""
    if pair.S or L < 64:
        return 1
    return max(t for t in range(1, 9) if max(pair.N, 1) % t == 0)


def over_rows(pair: Pair, be: Backend, estimate: Function, L: int) -> Function:
    """The sum over all the data; over one term where there are none, but an encoder or a model."""
    N, theta, ZERO, pull = max(pair.N, 1), pair.theta, be.real(0), pulled_back(pair, be, L)
    ROWS = rows_together(pair, L)

    @be.jit
    def gradient(g, site, x, e, r, z, room, par, row, datum, jac, buf, chosen, T, first, tag, key):  # type: ignore[no-untyped-def]
        g[:] = ZERO
        for tile in range(N // ROWS):
            for i in range(ROWS):
                n = tile * ROWS + i
                c = Here(
                    T.par[n], T.row[n], T.datum[n], T.model, T.table, T.state, g[theta:], buf, z, room, first, tag, key
                )
                estimate(site[i], x, e, r, c)
            pull(g, site, T.jac[tile * ROWS : (tile + 1) * ROWS], T)

    return gradient


def over_drawn_rows(pair: Pair, be: Backend, estimate: Function, L: int) -> Function:
    """The sum over rows that each replicate draws without replacement, scaled to all of them."""
    batch, theta, features, distinct, P = pair.batch, pair.theta, pair.features, pair.distinct, pair.P
    R, pull, draw = be.real, pulled_back(pair, be, L), rows_drawn(pair, be, L)
    ZERO, scale = R(0), R(pair.N / pair.batch)
    gather_par = gathered_par(pair, be, L)

    @be.jit
    def gradient(g, site, x, e, r, z, room, par, row, datum, jac, buf, chosen, T, first, tag, key):  # type: ignore[no-untyped-def]
        g[:] = ZERO
        draw(chosen, datum, buf, first, tag, key)
        for b in range(batch):
            for l in range(L):
                n = np.int64(chosen[b, l])
                datum[l] = T.datum[n, 0]
                for i in range(features):
                    row[i, l] = T.row[n, i, 0]
                for i in range(distinct):
                    jac[0, i, l] = T.jac[n, i, 0]
            gather_par(par, T.par, chosen[b])
            c = Here(par, row, datum, T.model, T.table, T.state, g[theta:], buf, z, room, first, tag, key)
            estimate(site[0], x, e, r, c)
            pull(g, site, jac, T)
        for p in range(P):
            for l in range(L):
                g[p, l] *= scale

    return gradient


def gathered_par(pair: Pair, be: Backend, L: int) -> Function:
    """`gather(par, tables' par, chosen)`: every lane's parameters."""
    one_hot = len(pair.event) == 2
    n, *site, _ = par_shape(pair, 1)
    A, B = site[0], site[-1]

    @be.jit
    def gather(par, all_, chosen):  # type: ignore[no-untyped-def]
        for i in range(n):
            for d in range(A):
                for l in range(L):
                    par[i, d, l] = all_[np.int64(chosen[l]), i, d, 0]

    @be.jit
    def gather_one_hot(par, all_, chosen):  # type: ignore[no-untyped-def]
        for i in range(n):
            for d in range(A):
                for k in range(B):
                    for l in range(L):
                        par[i, d, k, l] = all_[np.int64(chosen[l]), i, d, k, 0]

    return gather_one_hot if one_hot else gather


def rows_drawn(pair: Pair, be: Backend, L: int) -> Function:
    """`draw(chosen [batch, L], datum, buf, first, tag, key)`: the rows with the smallest uniforms, as `rows_without_replacement`.

    A uniform grows with its word, and of equal ones the earlier row goes first: rows are kept in the order of (word, row).
    """
    N, batch = pair.N, pair.batch
    words = philox.words(be, L, 0)
    PLACE, LOW, NONE = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)
    rows_tag = ROWS_INDEX << INDEX

    @be.jit
    def draw(chosen, datum, buf, first, tag, key):  # type: ignore[no-untyped-def]
        for b in range(batch):
            for l in range(L):
                chosen[b, l] = NONE
        datum[0] = np.uint64(0)
        c = Here(chosen, chosen, datum, buf, chosen, buf, chosen, buf, chosen, chosen, first, tag, key)
        for n in range(N):
            words(buf, n, rows_tag, c)
            for l in range(L):
                mine = (np.uint64(buf[l]) << PLACE) | np.uint64(n)
                if mine < chosen[batch - 1, l]:
                    place = batch - 1
                    while place > 0 and chosen[place - 1, l] > mine:
                        chosen[place, l] = chosen[place - 1, l]
                        place -= 1
                    chosen[place, l] = mine
        for b in range(batch):
            for l in range(L):
                chosen[b, l] = chosen[b, l] & LOW

    return draw


def pulled_back(pair: Pair, be: Backend, L: int) -> Function:
    """`pull(g, site, jac, tables)`: g += sum over rows of J' site, J the Jacobian of a row's site parameters in theta."""
    theta, S, ROWS = pair.theta, pair.S, rows_together(pair, L)

    @be.jit
    def same(g, site, jac, T):  # type: ignore[no-untyped-def]
        for p in range(theta):
            for l in range(L):
                total = g[p, l]
                for n in range(ROWS):
                    total += site[n, p, l]
                g[p, l] = total

    @be.jit
    def through(g, site, jac, T):  # type: ignore[no-untyped-def]
        for p in range(theta):
            for i in range(T.start[p], T.start[p + 1]):
                entry, s = T.which[i], T.source[i]
                for l in range(L):
                    total = g[p, l]
                    for n in range(ROWS):
                        total += jac[n, entry, S * l] * site[n, s, l]
                    g[p, l] = total

    return through if pair.distinct else same
