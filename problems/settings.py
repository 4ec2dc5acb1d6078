"""What is said of a setting that a factory cannot take: one sentence, with what was typed."""

from __future__ import annotations

from typing import Any


def at_least(problem: str, least: float, **settings: float) -> None:
    """Raises ValueError where a setting is below `least`."""
    for name, value in settings.items():
        if value < least:
            raise ValueError(f"{problem}[{name}={value}]: {name} must be at least {least}")


def one_of(problem: str, choices: tuple[Any, ...], **settings: Any) -> None:
    """Raises ValueError where a setting is none of `choices`."""
    for name, value in settings.items():
        if value not in choices:
            raise ValueError(
                f"{problem}[{name}={value}]: {name} is {', '.join(map(str, choices[:-1]))} or {choices[-1]}"
            )
