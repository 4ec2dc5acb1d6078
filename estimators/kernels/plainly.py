"""A kernel's gradients in plain Python, a few replicates: slow, and without compiling anything."""

from __future__ import annotations

import numpy as np

from estimators.kernels.backend import plain
from estimators.kernels.block import Pair, Tables, block
from estimators.kernels.philox import replicates_of

ORDER = ("SITE", "X", "E", "R", "Z", "ROOM", "PAR", "ROW", "DATUM", "JAC", "BUF", "CHOSEN")
WORDS = {"DATUM": np.uint64, "CHOSEN": np.uint64, "BUF": np.uint32}


def gradients(pair: Pair, tables: Tables, key: int, tag: int, lanes: int = 4, first: int = 0) -> np.ndarray:
    """g `[lanes, P]` of replicates `first` (a multiple of 4) and on; lanes: a multiple of 4. tag: the phase, in its place."""
    be = plain(pair.dtype)
    made = block(pair, be, lanes)
    kinds = WORDS | {"Z": np.complex64 if be.single else np.complex128}
    scratch = [np.empty(made.scratch[name], kinds.get(name, be.real)) for name in ORDER]
    g = np.empty((pair.P, lanes), be.real)
    with np.errstate(over="ignore"):
        made.gradient(g, *scratch, tables, np.uint64(first // 4), np.uint64(tag), np.uint64(key))
    out = np.empty((lanes, pair.P))
    out[replicates_of(lanes)] = g.T
    return out
