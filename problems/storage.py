"""JSON that people may read and git may compare: each leaf on one line, and a file is replaced whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 8


def significant(value: float, digits: int = DIGITS) -> float:
    """value with so many significant digits."""
    return float(f"{value:.{digits}g}")


def read_json(path: Path) -> dict[str, Any]:
    """What is stored; nothing where there is no file."""
    if not path.exists():
        return {}
    entries: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return entries


def write_json(path: Path, entries: Mapping[str, Any], depth: int) -> None:
    """Write mappings `depth` deep, sorted at the top, each value below them on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(_text(dict(sorted(entries.items())), depth) + "\n", "utf-8")
    partial.replace(path)


def _text(value: Any, depth: int, indent: int = 1) -> str:
    if depth == 0:
        return json.dumps(value)
    space = " " * indent
    lines = [f"{space}{json.dumps(name)}: {_text(inner, depth - 1, indent + 1)}" for name, inner in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{space[1:]}}}"
