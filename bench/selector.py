"""Selectors: `rloo[samples=2,4]`, `bernoulli_toy[dim=6,200]`, `*` globs. A list of values is a grid.

Commas separate values and settings alike: a token without `=` is one more value of the setting before it, so that
`rebar[eta=1,temperature=.5,1]` is one eta and two temperatures.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from bench.errors import Refusal, nearest
from problems.settings import settings_text

Value = bool | int | float | str | tuple | None
MOST_CHOICES = 10_000


class Described(Protocol):
    """What a selector must know of a member."""

    @property
    def lacks(self) -> str:
        """The library that it needs and that is not installed; empty where there is none."""

    def settings(self) -> Mapping[str, Value]:
        """Names of its settings, with their defaults."""


@dataclass(frozen=True)
class Selector:
    """One selector as typed: a name or a glob, and for each setting the texts of its values."""

    text: str
    pattern: str
    grid: Mapping[str, tuple[str, ...]]

    @property
    def exact(self) -> bool:
        """It names one member, rather than whichever match."""
        return not any(sign in self.pattern for sign in "*?")


@dataclass(frozen=True)
class Choice:
    """A member with all its settings; `exact` where it was asked for by name."""

    name: str
    settings: Mapping[str, Value]
    exact: bool


def parse(text: str) -> list[Selector]:
    """The selectors of a text; commas outside brackets separate them. Raises Refusal."""
    return [_one(part.strip(), text) for part in _split(text, text)]


def written(name: str, settings: Mapping[str, Value]) -> str:
    """`name[a=1,b=x]`."""
    return f"{name}[{settings_text(settings)}]" if settings else name


def choose(text: str, members: Mapping[str, Described], kind: str) -> list[Choice]:
    """The members that a text selects, in the order of the catalogue, each with every setting. kind: as errors name them."""
    return [choice for selector in parse(text) for choice in _choices(selector, members, kind)]


def _split(text: str, whole: str) -> list[str]:
    """Parts between the commas that are outside brackets and parentheses."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in "[(") - (sign in "])")
        if depth < 0:
            raise Refusal(f"{whole!r}: a bracket closes that was never opened")
        if sign == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    if depth:
        raise Refusal(f"{whole!r}: a bracket is not closed; write it as name[setting=value]")
    return [*parts, text[start:]]


def _one(part: str, whole: str) -> Selector:
    pattern, bracket, rest = part.partition("[")
    pattern = pattern.strip()
    if not pattern:
        raise Refusal(f"{whole!r}: a name is missing; write it as name or name[setting=value]")
    if not bracket:
        return Selector(part, pattern, {})
    if not rest.endswith("]"):
        raise Refusal(f"{whole!r}: nothing may follow the closing bracket of {pattern}[...]")
    grid: dict[str, list[str]] = {}
    name = ""
    for token in _split(rest[:-1], whole):
        left, equals, right = token.partition("=")
        if equals:
            name, value = left.strip(), right.strip()
            if not name.isidentifier():
                raise Refusal(f"{whole!r}: {name!r} is no name of a setting; write it as name[setting=value]")
            if name in grid:
                raise Refusal(
                    f"{whole!r}: {name} is given twice; write its values as {name}={','.join(grid[name])},..."
                )
            grid[name] = []
        else:
            value = token.strip()
        if not name:
            raise Refusal(
                f"{whole!r}: {value!r} belongs to no setting; write it as {pattern}[setting={value or 'value'}]"
            )
        if not value:
            raise Refusal(f"{whole!r}: a value of {name} is empty")
        grid[name].append(value)
    return Selector(part, pattern, {n: tuple(dict.fromkeys(values)) for n, values in grid.items()})


def _choices(selector: Selector, members: Mapping[str, Described], kind: str) -> list[Choice]:
    if selector.exact:
        if selector.pattern not in members:
            raise Refusal(f"there is no {kind} {selector.pattern!r}{nearest(selector.pattern, members)}")
        if lacks := members[selector.pattern].lacks:
            raise Refusal(f"{selector.pattern} needs {lacks}, which is not installed: pip install '.[peers]'")
        return _grid(selector, selector.pattern, members[selector.pattern].settings(), kind)
    matching = [name for name in members if fnmatchcase(name, selector.pattern)]
    names = [name for name in matching if not members[name].lacks]
    if matching and not names:
        lacks = " and ".join(dict.fromkeys(members[name].lacks for name in matching))
        raise Refusal(
            f"what matches {selector.pattern!r} needs {lacks}, which is not installed: pip install '.[peers]'"
        )
    if not names:
        raise Refusal(f"no {kind} matches {selector.pattern!r}{nearest(selector.pattern.strip('*?'), members)}")
    able = [name for name in names if set(selector.grid) <= set(members[name].settings())]
    if not able:
        raise Refusal(
            f"{selector.text!r}: no {kind} that matches {selector.pattern!r} has {' and '.join(selector.grid)}"
        )
    return [choice for name in able for choice in _grid(selector, name, members[name].settings(), kind)]


def _grid(selector: Selector, name: str, defaults: Mapping[str, Value], kind: str) -> list[Choice]:
    for setting in selector.grid:
        if setting not in defaults:
            has = f"its settings are {', '.join(defaults)}" if defaults else "it has no settings"
            near = nearest(setting, defaults) if defaults else ""
            hint = near if near.startswith("; did") else ""
            raise Refusal(f"{selector.text!r}: the {kind} {name} has no setting {setting!r}; {has}{hint}")
    values = [
        tuple(dict.fromkeys(read(text, defaults[setting], f"{name}[{setting}={text}]") for text in texts))
        for setting, texts in selector.grid.items()
    ]
    count = 1
    for found in values:
        count *= len(found)
    if count > MOST_CHOICES:
        raise Refusal(f"{selector.text!r} is a grid of {count:,} members; at most {MOST_CHOICES:,} can be asked for")
    return [
        Choice(name, {**defaults, **dict(zip(selector.grid, point, strict=True))}, selector.exact)
        for point in itertools.product(*values)
    ]


def read(text: str, default: Value, where: str) -> Value:
    """A value as the default's type says; where the default is None, the literal that the text looks like."""
    if isinstance(default, bool):
        return _boolean(text, where)
    if isinstance(default, int):
        return _whole(text, where)
    if isinstance(default, float):
        return _real(text, where)
    if isinstance(default, str):
        return text
    return _literal(text)


def _boolean(text: str, where: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise Refusal(f"{where}: {text!r} is neither true nor false")
    return known[text.lower()]


def _whole(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise Refusal(f"{where}: {text!r} is not a whole number")


def _real(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Refusal(f"{where}: {text!r} is not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise Refusal(f"{where}: {text!r} is not a finite number")
    return value


def _literal(text: str) -> Value:
    words: dict[str, Value] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text
    plain = (bool, int, float, str)
    if isinstance(value, plain):
        return value
    if isinstance(value, Sequence) and all(isinstance(v, plain) for v in value):
        return tuple(value)
    return text
