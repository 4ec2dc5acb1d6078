"""Stored parameter points: places along a training run, kept as numbers in JSON with a record of how they were made.

`points/<problem>.json`: settings as text, but for batch -> name of the point -> theta, model and record (command, estimator, steps,
seed, versions, date). Rankings of estimators change along training, so one point is not enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from problems.base import DEFAULT_POINT, Point
from problems.settings import place_text
from problems.storage import read_json, significant, write_json

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent / "points"
Entries = dict[str, dict[str, dict[str, Any]]]


def stored_points(name: str, settings: Mapping[str, Any], init: Point) -> dict[str, Point]:
    """`init` as it is given, then the points stored for these settings (whatever the batch), in the order of the file.

    Raises ValueError where a stored point has not the shape of `init`.
    """
    points = {DEFAULT_POINT: init}
    for point, entry in read_points(name).get(place_text(settings), {}).items():
        found = Point(_tensor(entry["theta"]), None if entry["model"] is None else _tensor(entry["model"]))
        if [_shape(t) for t in found] != [_shape(t) for t in init]:
            shapes = " and ".join(str(_shape(t)) for t in found)
            wanted = " and ".join(str(_shape(t)) for t in init)
            raise ValueError(
                f"{_path(name)}: point {point!r} of {place_text(settings) or 'no settings'} has theta and model of shape "
                f"{shapes}, the problem {wanted}; delete the entry and make it again"
            )
        points[point] = found
    return points


def read_points(name: str) -> Entries:
    """Everything stored for a problem: settings as text -> point -> theta, model, record."""
    return read_json(_path(name))


def write_points(
    name: str, settings: Mapping[str, Any], points: Mapping[str, Point], records: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Store points, rounded to 8 significant digits, in place of those that these settings had; `init` is not stored."""
    entries = read_points(name)
    entries[place_text(settings)] = {
        point: {"record": dict(records[point]), "theta": _numbers(there.theta), "model": _numbers(there.model)}
        for point, there in points.items()
        if point != DEFAULT_POINT
    }
    path = _path(name)
    write_json(path, entries, depth=3)
    return path


def _path(name: str) -> Path:
    return FOLDER / f"{name}.json"


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _numbers(tensor: Tensor | None) -> Any:
    """Nested lists of rounded numbers."""
    if tensor is None:
        return None
    rounded = [significant(v) for v in tensor.detach().double().reshape(-1).tolist()]
    return torch.tensor(rounded, dtype=torch.float64).reshape(tensor.shape).tolist()
