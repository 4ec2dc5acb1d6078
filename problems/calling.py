"""Functions are given what they name: a signature is the whole declaration of what a member needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any


class UnknownName(TypeError):
    """A member's function names something that nobody offers."""


@lru_cache(maxsize=4096)
def names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters of `function` that must be given, in order (those with a default are its own business)."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


def call(function: Callable[..., Any], known: Mapping[str, Any], *first: Any) -> Any:
    """`function(*first, ...)` with everything else that it names taken out of `known`.

    Raises UnknownName, in one sentence, where it names something that is not there.
    """
    wanted = names(function)[len(first) :]
    for name in wanted:
        if name not in known:
            where = getattr(function, "__qualname__", repr(function))
            raise UnknownName(f"{where} asks for {name!r}; there are: {', '.join(known)}")
    return function(*first, **{name: known[name] for name in wanted})
