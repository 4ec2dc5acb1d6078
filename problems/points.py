"""Stored parameter points: places along a training run, kept as numbers in JSON with a record of how they were made.

`points/<problem>.json`: settings as text -> name of the point -> theta, model and record (command, estimator, steps, seed,
versions, date). Rankings of estimators change along training, so one point is not enough.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from problems.base import DEFAULT_POINT, Point
from problems.reference import settings_text

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent / "points"
DIGITS = 8

Entries = dict[str, dict[str, dict[str, Any]]]


def stored_points(name: str, settings: Mapping[str, Any], init: Point) -> dict[str, Point]:
    """`init` as it is given, then the points stored for exactly these settings, in the order in which they were stored.

    Raises ValueError where a stored point has not the shape of `init`.
    """
    points = {DEFAULT_POINT: init}
    for point, entry in read_points(name).get(settings_text(settings), {}).items():
        found = Point(_tensor(entry["theta"]), None if entry["model"] is None else _tensor(entry["model"]))
        if [_shape(t) for t in found] != [_shape(t) for t in init]:
            shapes = " and ".join(str(_shape(t)) for t in found)
            wanted = " and ".join(str(_shape(t)) for t in init)
            raise ValueError(
                f"{_path(name)}: point {point!r} of {settings_text(settings) or 'no settings'} has theta and model of shape "
                f"{shapes}, the problem {wanted}; delete the entry and make it again"
            )
        points[point] = found
    return points


def read_points(name: str) -> Entries:
    """Everything stored for a problem: settings as text -> point -> theta, model, record."""
    path = _path(name)
    if not path.exists():
        return {}
    entries: Entries = json.loads(path.read_text("utf-8"))
    return entries


def write_points(
    name: str, settings: Mapping[str, Any], points: Mapping[str, Point], records: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Store points, rounded to 8 significant digits, in place of those that these settings had; `init` is not stored."""
    entries = read_points(name)
    entries[settings_text(settings)] = {
        point: {"record": dict(records[point]), "theta": _numbers(there.theta), "model": _numbers(there.model)}
        for point, there in points.items()
        if point != DEFAULT_POINT
    }
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(_text(entries), "utf-8")
    partial.replace(path)
    return path


def _path(name: str) -> Path:
    return FOLDER / f"{name}.json"


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _numbers(tensor: Tensor | None) -> Any:
    """Nested lists of numbers with DIGITS significant digits."""
    if tensor is None:
        return None
    rounded = [float(f"{v:.{DIGITS}g}") for v in tensor.detach().double().reshape(-1).tolist()]
    return torch.tensor(rounded, dtype=torch.float64).reshape(tensor.shape).tolist()


def _text(entries: Entries) -> str:
    """JSON with one line for each of theta, model and record, so that a change of one point changes few lines."""
    settings = [
        f" {json.dumps(text)}: {{\n" + ",\n".join(_point_text(*item) for item in entries[text].items()) + "\n }"
        for text in sorted(entries)
    ]
    return "{\n" + ",\n".join(settings) + "\n}\n"


def _point_text(point: str, entry: Mapping[str, Any]) -> str:
    fields = [f"   {json.dumps(k)}: {json.dumps(entry[k])}" for k in ("record", "theta", "model")]
    return f"  {json.dumps(point)}: {{\n" + ",\n".join(fields) + "\n  }"
