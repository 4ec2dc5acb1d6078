"""Images of the user's own, from a file: MNIST's idx format, plain or gzipped, and numpy's npz and npy.

Nothing is downloaded. `binarised_images("train-images-idx3-ubyte.gz")` gives the rows of a problem, as scikit-learn's digits do.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
NPY = b"\x93NUMPY"
MOST_AXES = 8
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    MemoryError,
    BadZipFile,
    TokenError,
    zlib.error,
)  # of numpy


def binarised_images(path: str | Path, rows: int = 0, threshold: float = 0.5) -> torch.Tensor:
    """The first `rows` images (0: all) as bits `[N, V]` in float64: 1 where a pixel is above `threshold` of the brightest possible.

    The brightest possible is 255 for bytes, the largest of the type for other integers, and 1 for floats.
    Raises ValueError, in a sentence, where the file cannot be read, is no such file, or holds fewer images.
    """
    pixels = load_images(path)
    if not 0 <= rows <= len(pixels):
        raise ValueError(f"{path}: {rows} images are asked for; it holds {len(pixels)}")
    chosen = pixels[: rows or None]
    brightest = float(np.iinfo(chosen.dtype).max) if chosen.dtype.kind in "iu" else 1.0
    return torch.from_numpy((chosen > threshold * brightest).astype(np.float64))


def load_images(path: str | Path) -> np.ndarray:
    """The images of an idx, idx.gz, npz or npy file, a row each: `[N, V]` in the type of the file, booleans as bytes 0 and 255.

    An npz file with several arrays of images is told apart as `file.npz:name`. Raises ValueError as `binarised_images` does.
    """
    file, name = _split(str(path))
    found = _decoded(file, name, _bytes(file))
    if found.dtype == bool:
        found = found.astype(np.uint8) * np.uint8(255)
    if found.dtype.kind not in "iuf":
        raise ValueError(f"{path}: its entries are {found.dtype}, no numbers")
    if found.ndim < 2 or found.size == 0:
        raise ValueError(f"{path}: an array of shape {found.shape} holds no images [N, ...]")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{path}: not all of its entries are finite")
    return found.reshape(len(found), -1)


def _split(path: str) -> tuple[Path, str]:
    """The file, and the name of an array in it where one is given as `file.npz:name`."""
    head, colon, name = path.rpartition(":")
    return (Path(head), name) if colon and head.endswith(".npz") else (Path(path), "")


def _bytes(file: Path) -> bytes:
    """What the file holds, unpacked where it is gzipped."""
    try:
        found = file.read_bytes()
        return gzip.decompress(found) if found.startswith(GZIP) else found
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read: {str(error) or 'it is too large'}") from None


def _decoded(file: Path, name: str, content: bytes) -> np.ndarray:
    if content.startswith((ZIP, NPY)):
        return _numpy(file, name, content)
    if content[:2] == b"\0\0" and len(content) >= 4 and content[2] in IDX_TYPES and 0 < content[3] <= MOST_AXES:
        return _idx(file, content)
    raise ValueError(f"{file} is neither an idx file (plain or gzipped) nor a npz or npy file")


def _idx(file: Path, content: bytes) -> np.ndarray:
    """Two zero bytes, the type, the number of axes, each axis as a big-endian 32-bit integer, and then the entries."""
    dtype, axes = np.dtype(IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{file} ends within its header")
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    wanted = math.prod(shape) * dtype.itemsize
    if len(content) - start != wanted:
        raise ValueError(
            f"{file} is broken: its header says {' x '.join(map(str, shape))} entries, {wanted:,} bytes, "
            f"and {len(content) - start:,} follow"
        )
    found: np.ndarray = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return found.astype(dtype.newbyteorder("="))


def _numpy(file: Path, name: str, content: bytes) -> np.ndarray:
    """The one array of images in it, or the one that is named. Nothing in it is executed: no pickles."""
    try:
        stored: Any = np.load(BytesIO(content), allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        with stored:
            arrays = {one: np.asarray(stored[one]) for one in ([name] if name in stored.files else stored.files)}
    except DAMAGE as error:
        raise ValueError(
            f"{file} cannot be read: {str(error).splitlines()[0] if str(error) else 'it is broken'}"
        ) from None
    return _chosen(file, name, arrays)


def _chosen(file: Path, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array that is named, or the only one of at least two axes."""
    if name:
        if name not in arrays:
            raise ValueError(f"{file} has no array {name!r}; it has {', '.join(arrays) or 'none'}")
        return arrays[name]
    images = [one for one, array in arrays.items() if array.ndim > 1]
    if not images:
        raise ValueError(f"{file} has no images")
    if len(images) > 1:
        raise ValueError(f"{file} has several arrays of images ({', '.join(images)}); say which, as {file}:{images[0]}")
    return arrays[images[0]]
