"""The one error that people see: a sentence that says what was typed, what is wrong with it, and the nearest right thing."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_NAMED = 20


class Refusal(Exception):
    """What was asked cannot be done. The message is one sentence for the person who asked; the exit code is 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'rloo'?`, or the names that there are where none is near and they are few enough to read."""
    names = sorted(known)
    near = get_close_matches(word, names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if len(names) > MOST_NAMED:
        return f"; `python -m bench list` names all {len(names)}"
    return f"; there are: {', '.join(names)}" if names else "; there are none"


def one_line(error: BaseException) -> str:
    """The message of an error on one line, its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class Broken(Refusal):
    """A member that cannot be imported or built, through no fault of its settings."""
