"""Sums of replicate gradients that merge: all that the statistics of a cell are read from.

With d = g - pilot and h = d . axis, "[P+1]" means the P coordinates of d and then h. Replicate r belongs to group
r mod 64: groups stay balanced, survive extension of a run, and pair two cells measured on the same noise.
Floating addition is not associative: fold blocks in index order, and equal blocks give equal bits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

GROUPS = 64
TOP = 64
ZERO = 1e-10  # |g| below ZERO * scale is rounding noise, which has no direction
LARGEST = 1e120  # |d|^2 beyond this has fourth powers whose sums could leave float64


@dataclass(frozen=True, eq=False)
class Sums:
    """Grouped sums of the finite replicates of one cell.

    pilot: [P], a rough mean; the same in every block of a cell.
    axis: [P], unit vector along the truth; zeros where the truth is zero or unknown.
    n: [64], replicates. s1: [64, P+1], sum d. q1: [64], sum |d|^2. cos: [64], sum cos(g, truth), 0 for a zero gradient.
    s2, s3, s4: [P+1], sum d^2, d^3, d^4. high: [P+1], max |d|. top: [64], the largest |d|^2, ascending.
    nonfinite: replicates left out, for a value that is not finite (or |d| > 1e60). zero: those with a zero gradient.
    scale: size of a gradient, against which rounding is judged; 0 where it was not given.
    """

    pilot: np.ndarray
    axis: np.ndarray
    n: np.ndarray
    s1: np.ndarray
    q1: np.ndarray
    cos: np.ndarray
    s2: np.ndarray
    s3: np.ndarray
    s4: np.ndarray
    high: np.ndarray
    top: np.ndarray
    nonfinite: int = 0
    zero: int = 0
    scale: float = 0.0


def empty(pilot: np.ndarray, axis: np.ndarray, scale: float = 0.0) -> Sums:
    """Sums of no replicate."""
    return block_sums(np.zeros((0, len(pilot))), pilot, axis, scale, 0)


def block_sums(g: np.ndarray, pilot: np.ndarray, axis: np.ndarray, scale: float, start: int) -> Sums:
    """Sums of the gradients g [R, P] of replicates start, start + 1, ...

    scale: the size of a gradient; |g| < 1e-10 scale counts as a zero gradient. A row left out, and a place of the first
    or last round of 64 groups that is not in the range, is a row of zeros: it adds nothing.
    """
    pilot, axis = _centre(pilot, axis)
    g = np.asarray(g, dtype=np.float64)
    if g.ndim != 2 or g.shape[1] != len(pilot):
        raise ValueError(
            f"gradients of shape {g.shape} do not fit a pilot of {len(pilot)} coordinates: [R, P] is wanted"
        )
    first = start % GROUPS
    places = -(-(first + len(g)) // GROUPS) * GROUPS
    here = slice(first, first + len(g))
    d = np.zeros((places, len(pilot) + 1))
    squares, cos, live = np.zeros(places), np.zeros(places), np.zeros(places, dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(g, pilot, out=d[here, :-1])
        squares[here] = _dot(d[here, :-1], d[here, :-1])
        live[here] = squares[here] <= LARGEST
        cos[here], zero = _cosines(g, axis, scale, live[here])
    if live.sum() < len(g):
        d[~live], squares[~live] = 0.0, 0.0
    d[:, -1] = _along(d[:, :-1], axis)
    d2 = d * d
    return Sums(
        pilot=pilot,
        axis=axis,
        n=live.reshape(-1, GROUPS).sum(0),
        s1=d.reshape(-1, GROUPS, d.shape[1]).sum(0),
        q1=squares.reshape(-1, GROUPS).sum(0),
        cos=cos.reshape(-1, GROUPS).sum(0),
        s2=d2.sum(0),
        s3=np.einsum("rp,rp->p", d2, d),
        s4=np.einsum("rp,rp->p", d2, d2),
        high=np.maximum(d.max(0, initial=0.0), -d.min(0, initial=0.0)),
        top=_largest(squares),
        nonfinite=len(g) - int(live.sum()),
        zero=zero,
        scale=float(scale),
    )


def merge(a: Sums, b: Sums) -> Sums:
    """Sums of the replicates of both, which must have one pilot and one axis."""
    for name in ("pilot", "axis"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise ValueError(f"sums around a different {name} cannot be merged: they belong to different cells")
    return Sums(
        pilot=a.pilot,
        axis=a.axis,
        n=a.n + b.n,
        s1=a.s1 + b.s1,
        q1=a.q1 + b.q1,
        cos=a.cos + b.cos,
        s2=a.s2 + b.s2,
        s3=a.s3 + b.s3,
        s4=a.s4 + b.s4,
        high=np.maximum(a.high, b.high),
        top=_largest(np.concatenate([a.top, b.top])),
        nonfinite=a.nonfinite + b.nonfinite,
        zero=a.zero + b.zero,
        scale=max(a.scale, b.scale),
    )


def fold(blocks: Iterable[Sums]) -> Sums:
    """Merge blocks one after the other, in the order given: the index order, where runs are to agree bit for bit."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        raise ValueError("no block to fold: sums of nothing have no pilot")
    return reduce(merge, blocks, first)


def recentre(sums: Sums, pilot: np.ndarray) -> Sums:
    """The same replicates around another pilot; exact for every sum, while `high` and `top` become upper bounds.

    With c -> c + e (as [P+1], e and its projection on the axis), n and S over all replicates, old values on the right:
    S1_b -= n_b e;  Q1_b += n_b |e|^2 - 2 e.S1_b;  S2 += n e^2 - 2 e S1;  S3 += 3 e^2 S1 - 3 e S2 - n e^3;
    S4 += 6 e^2 S2 - 4 e S3 - 4 e^3 S1 + n e^4;  M -> M + |e|;  top -> (sqrt(top) + |e|)^2.
    """
    pilot, axis = _centre(pilot, sums.axis)
    shift = pilot - sums.pilot
    square = np.sum(shift**2)
    e = np.append(shift, np.sum(shift * axis))
    n, s1, s2, s3 = sums.n.sum(), sums.s1.sum(0), sums.s2, sums.s3
    seen = np.arange(TOP) >= TOP - n  # the places of `top` that hold a replicate
    return Sums(
        pilot=pilot,
        axis=axis,
        n=sums.n,
        s1=sums.s1 - sums.n[:, None] * e,
        q1=sums.q1 + sums.n * square - 2 * _along(sums.s1[:, :-1], shift),
        cos=sums.cos,
        s2=s2 + n * e**2 - 2 * e * s1,
        s3=s3 + 3 * e**2 * s1 - 3 * e * s2 - n * e**3,
        s4=sums.s4 + 6 * e**2 * s2 - 4 * e * s3 - 4 * e**3 * s1 + n * e**4,
        high=sums.high + np.abs(e),
        top=np.where(seen, (np.sqrt(sums.top) + np.sqrt(square)) ** 2, 0.0),
        nonfinite=sums.nonfinite,
        zero=sums.zero,
        scale=sums.scale,
    )


_MAGIC = b"gradsums"
_HEADER = struct.Struct("<8sQQQd")  # magic, P, nonfinite, zero, scale
_CHECK = struct.Struct("<I")  # CRC-32 of all before it


def to_bytes(sums: Sums) -> bytes:
    """All of `sums`, exactly: a header, little-endian float64 arrays, a checksum. Equal bytes mean equal bits."""
    header = _HEADER.pack(_MAGIC, len(sums.pilot), sums.nonfinite, sums.zero, sums.scale)
    arrays = [np.ascontiguousarray(getattr(sums, name), dtype="<f8").tobytes() for name in _shapes(len(sums.pilot))]
    data = b"".join([header, *arrays])
    return data + _CHECK.pack(zlib.crc32(data))


def from_bytes(data: bytes) -> Sums:
    """The sums that `to_bytes` wrote; a ValueError where the bytes are not whole."""
    body, check = data[: -_CHECK.size], data[-_CHECK.size :]
    if len(body) < _HEADER.size or _CHECK.pack(zlib.crc32(body)) != check or not body.startswith(_MAGIC):
        raise ValueError(
            f"these {len(data)} bytes are not stored sums: they are cut short, damaged or of another format"
        )
    _, size, nonfinite, zero, scale = _HEADER.unpack_from(body)
    shapes = _shapes(size)
    values = np.frombuffer(body, dtype="<f8", offset=_HEADER.size).astype(np.float64)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    parts = np.split(values, ends[:-1])
    arrays = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    arrays["n"] = arrays["n"].astype(np.int64)
    return Sums(**arrays, nonfinite=nonfinite, zero=zero, scale=scale)


def _shapes(size: int) -> dict[str, tuple[int, ...]]:
    """The arrays of Sums in the order they are stored, for P = size."""
    return {
        "pilot": (size,),
        "axis": (size,),
        "n": (GROUPS,),
        "s1": (GROUPS, size + 1),
        "q1": (GROUPS,),
        "cos": (GROUPS,),
        "s2": (size + 1,),
        "s3": (size + 1,),
        "s4": (size + 1,),
        "high": (size + 1,),
        "top": (TOP,),
    }


def _centre(pilot: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """pilot and axis as float64 vectors of one length, finite."""
    pilot, axis = np.asarray(pilot, dtype=np.float64), np.asarray(axis, dtype=np.float64)
    if pilot.ndim != 1 or pilot.shape != axis.shape:
        raise ValueError(f"pilot {pilot.shape} and axis {axis.shape} are not vectors of one length")
    if not (np.isfinite(pilot).all() and np.isfinite(axis).all()):
        raise ValueError("pilot and axis have values that are not finite: nothing can be measured around them")
    return pilot, axis


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product of each row; not by BLAS, whose last bits depend on the number of threads."""
    return np.einsum("rp,rp->r", a, b)


def _along(a: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Dot product of each row with one direction; not by BLAS, as in `_dot`."""
    return np.einsum("rp,p->r", a, direction)


def _cosines(g: np.ndarray, axis: np.ndarray, scale: float, live: np.ndarray) -> tuple[np.ndarray, int]:
    """cos(g, axis) of each row, from the raw g, 0 for a zero gradient and a row left out; number of zero gradients."""
    length = np.sqrt(_dot(g, g))
    some = (length >= ZERO * scale) & (length > 0)
    cos = np.divide(_along(g, axis), length, out=np.zeros(len(g)), where=some & live)
    return cos, int((live & ~some).sum())


def _largest(squares: np.ndarray) -> np.ndarray:
    """The TOP largest, ascending; zeros in front where there are fewer."""
    if len(squares) > TOP:
        squares = np.partition(squares, -TOP)[-TOP:]
    return np.sort(np.concatenate([np.zeros(TOP - len(squares)), squares]))
