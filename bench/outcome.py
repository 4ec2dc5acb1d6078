"""Outcome: everything measured of a cell but its time, exact, mergeable and storable; no statistics yet."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import msgspec
import numpy as np

from bench.moments import Sums, from_bytes, to_bytes


@dataclass(frozen=True, eq=False)
class Outcome:
    """Sums, truth and counts of one cell.

    truth, truth_se: `[P]`, NaN where there is no truth. f_evals, gradient_evals, hessian_evals: for one estimate, of one datum.
    learn_*: what learning the state cost, in all, of one datum. cold_s: the first call, in seconds, which compiles what the
    process has not compiled yet.
    peak_bytes: peak of resident memory of the process while measuring. state: what was learned.
    rounding: of a float32 cell, the root mean square difference of a gradient from the same replicate's in float64, relative to its
    standard deviation.
    subsampling: of a problem that draws rows of data, the products of `bench.subsampling`; None of another, and where not wanted.
    """

    sums: Sums
    truth: np.ndarray
    truth_se: np.ndarray
    truth_tier: str
    family: str
    objective: str
    claimed: str
    dim: int
    samples: int
    f_evals: float
    gradient_evals: float
    hessian_evals: float
    learn_f_evals: float
    learn_gradient_evals: float
    learn_seconds: float
    cold_s: float
    peak_bytes: int
    backend: str
    device: str
    dtype: str
    threads: int
    state: dict[str, np.ndarray]
    rounding: float = 0.0
    subsampling: Sums | None = None

    @property
    def params(self) -> int:
        """P: entries of the gradient."""
        return len(self.truth)

    @property
    def has_truth(self) -> bool:
        """The exact gradient, or a stored reference, is known."""
        return self.truth_tier != "none"

    @property
    def replicates(self) -> int:
        """Gradients in the sums: those that were finite."""
        return int(self.sums.n.sum())


class _Array(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _Stored(msgspec.Struct):
    sums: bytes
    arrays: dict[str, _Array]
    state: dict[str, _Array]
    scalars: dict[str, str | int | float]
    subsampling: bytes | None = None


_ARRAYS = ("truth", "truth_se")
_DTYPES = ("float64", "float32", "int64", "bool")


def outcome_to_bytes(outcome: Outcome) -> bytes:
    """Exact to the bit; MessagePack, which holds no code."""
    apart = ("sums", "subsampling", "state", *_ARRAYS)
    scalars = {f.name: getattr(outcome, f.name) for f in fields(Outcome) if f.name not in apart}
    arrays = {name: _pack(getattr(outcome, name)) for name in _ARRAYS}
    state = {name: _pack(value) for name, value in outcome.state.items()}
    subsampling = None if outcome.subsampling is None else to_bytes(outcome.subsampling)
    return msgspec.msgpack.encode(_Stored(to_bytes(outcome.sums), arrays, state, scalars, subsampling))


def outcome_from_bytes(data: bytes) -> Outcome:
    """Raises ValueError, in a sentence, where the bytes are no outcome."""
    try:
        stored = msgspec.msgpack.decode(data, type=_Stored)
        arrays: dict[str, Any] = {name: _unpack(stored.arrays[name]) for name in _ARRAYS}
        state = {name: _unpack(value) for name, value in stored.state.items()}
        scalars: dict[str, Any] = stored.scalars
        pairs = None if stored.subsampling is None else from_bytes(stored.subsampling)
        return Outcome(sums=from_bytes(stored.sums), state=state, subsampling=pairs, **arrays, **scalars)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a stored outcome cannot be read: {error}") from error


def _pack(array: np.ndarray) -> _Array:
    return _Array(str(array.dtype), array.shape, np.ascontiguousarray(array).tobytes())


def _unpack(array: _Array) -> np.ndarray:
    if array.dtype not in _DTYPES:
        raise ValueError(f"an array of type {array.dtype!r}")
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape).copy()
