"""Suites: which cells a run measures, as TOML, strictly validated.

    name = "mine"
    replicates = 65_536         # gradients a cell
    seed = 0
    rounds = 15                 # of timing; 0 does not time

    [[cells]]
    problems = ["bernoulli_toy[dim=6,200]"]
    estimators = ["rloo[samples=2,4]", "disarm"]
    points = ["init"]           # default: every point
    replicates = 262_144        # default: the suite's; also dtype, backend

A pair asked for by name must fit; a pair that a glob brings in and that does not fit is skipped, with its reason. A cell that an
earlier table has named already takes its replicates from the later one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bench.errors import Refusal, nearest, one_line

BUILT_IN = Path(__file__).parent / "suites"
DEFAULT = "standard"
ALL = "*"

Replicates = Annotated[int, Meta(ge=64, le=2**40)]
Texts = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]
Backend = Literal["auto", "torch", "numba", "cuda"]
Dtype = Literal["float64", "float32"]


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One `[[cells]]`: a grid of problems, estimators and points. None: as the suite says."""

    problems: Texts
    estimators: Texts
    points: Texts | Literal["*"] = "*"
    replicates: Replicates | None = None
    dtype: Dtype = "float64"
    backend: Backend = "auto"


class Suite(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Tables of cells, and what they have in common. `source`: what errors call it, a name or a path."""

    name: str
    cells: Annotated[list[Table], Meta(min_length=1)]
    replicates: Replicates = 65_536
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    rounds: Annotated[int, Meta(ge=0, le=1000)] = 15
    description: str = ""


def names() -> list[str]:
    """The built-in suites."""
    return sorted(file.stem for file in BUILT_IN.glob("*.toml"))


def read_suite(name: str) -> Suite:
    """A built-in suite by name, or any by the path of its .toml. Raises Refusal."""
    file = BUILT_IN / f"{name}.toml"
    if name not in names():
        file = Path(name).expanduser()
        if not name.endswith(".toml"):
            raise Refusal(f"there is no suite {name!r}{nearest(name, names())} (a file of your own ends in .toml)")
        if not file.is_file():
            raise Refusal(f"there is no file {name}{nearest(name, names()) if '/' not in name else ''}")
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{name}: {one_line(error)}") from error
    return parse_suite(text, file.name if name in names() else name)


def parse_suite(text: str, source: str) -> Suite:
    """The suite of a TOML text. source: how errors name it. Raises Refusal, with the path to the key."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise Refusal(f"{source}: not TOML: {one_line(error)}") from error
    try:
        return msgspec.convert(raw, Suite)
    except msgspec.ValidationError as error:
        raise Refusal(f"{source}: {_explain(str(error), raw)}") from error


def _explain(message: str, raw: dict[str, Any]) -> str:
    """msgspec's message with the path first: `cells[0].replicates: Expected int, got str`."""
    what, _, place = message.partition(" - at `")
    path = place.rstrip("`").removeprefix("$").removeprefix(".")
    if unknown := re.search(r"unknown field `(.*)`", what):
        key = unknown[1]
        fields = Table.__struct_fields__ if path else Suite.__struct_fields__
        return f"{path + '.' if path else ''}{key}: there is no such key{nearest(key, fields)}"
    if missing := re.search(r"missing required field `(.*)`", what):
        return f"{path + '.' if path else ''}{missing[1]}: this key is missing"
    shown = _at(raw, path)
    what = what.replace("`", "")
    return f"{path or 'the file'}: {what[:1].lower()}{what[1:]}" + (f" (it is {shown!r})" if shown is not None else "")


def _at(raw: Any, path: str) -> Any:
    """What stands at a path of the TOML text, where it is short enough to be shown."""
    for step in re.findall(r"[^.\[\]]+", path):
        try:
            raw = raw[int(step)] if isinstance(raw, list) else raw[step]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return raw if isinstance(raw, str | int | float) and len(str(raw)) < 60 else None


def narrowed(suite: Suite, problems: Sequence[str], estimators: Sequence[str]) -> Suite:
    """The suite with its cells replaced by the grid of these selectors; where one side is not given, by all of it."""
    if not problems and not estimators:
        return suite
    table = Table(list(problems) or [ALL], list(estimators) or [ALL])
    return msgspec.structs.replace(suite, cells=[table])
