"""The records that a kernel is put together from: a family in lanes, and an estimator in lanes.

Arguments of lane functions: x, e `[D, L]`; f `[L]`; g `[P, L]`; par `[n, D]`, the family's parameters as `prepare` lays them out;
buf `[L]` uint32; first, tag, key: address of the noise (`estimators.noise`), without the noise's index and front in the tag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estimators.kernels.backend import Backend, Function

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

INDEX = 24  # bits of the tag below the noise's index


@dataclass(frozen=True, eq=False)
class Lanes:
    """What a lane estimator is made with.

    sample(x, e, par, buf, first, tag, key): a draw, its noise kept in e where the family needs it.
    score(g, x, par, w): g += w grad log q(x). path(g, x, par, df): g += (dx/dtheta)' df.
    f(out, x): f of every lane. df(out `[D, L]`, x, z): its gradient; z `[D, L]` complex, to work in.
    words: of `philox`. D, P, L: sites, parameters, lanes.
    """

    be: Backend
    sample: Function
    score: Function
    path: Function | None
    f: Function
    df: Function
    words: Function
    D: int
    P: int
    L: int


@dataclass(frozen=True, eq=False)
class Form:
    """An estimator in lanes.

    points: points kept, x `[points, D, L]`, e likewise. rows: rows `[rows, L]` of numbers of its own, in f.
    gradient: it asks for the gradient of f.
    build(lanes) -> estimate(g, x, e, f, z, par, buf, first, tag, key), which fills g.
    """

    points: int
    rows: int
    build: Callable[[Lanes], Function]
    gradient: bool = False


@dataclass(frozen=True, eq=False)
class LaneFamily:
    """A family in lanes.

    per_site: parameters of a site. noise_rows: 1 where a draw keeps its noise in e, else 0.
    prepare(theta) -> par, computed as the torch form does.
    build(be, words, D, L) -> (sample, score, path).
    """

    per_site: int
    noise_rows: int
    prepare: Callable[[Tensor], np.ndarray]
    build: Callable[[Backend, Function, int, int], tuple[Any, Any, Any]]
