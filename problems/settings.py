"""Settings of a factory: how they are written, and the one sentence about one that it cannot take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def at_least(problem: str, least: float, **settings: float) -> None:
    """Raises ValueError where a setting is below `least`, or no number."""
    for name, value in settings.items():
        if not value >= least:
            raise ValueError(f"{problem}[{name}={value}]: {name} must be at least {least}")


def positive(problem: str, **settings: float) -> None:
    """Raises ValueError where a setting is not above 0, or is infinite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{problem}[{name}={value}]: {name} must be positive and finite")


def finite(problem: str, **settings: float) -> None:
    """Raises ValueError where a setting is infinite, or no number."""
    for name, value in settings.items():
        if not math.isfinite(value):
            raise ValueError(f"{problem}[{name}={value}]: {name} must be finite")


def one_of(problem: str, choices: tuple[Any, ...], **settings: Any) -> None:
    """Raises ValueError where a setting is none of `choices`."""
    for name, value in settings.items():
        if value not in choices:
            raise ValueError(
                f"{problem}[{name}={value}]: {name} is {', '.join(map(str, choices[:-1]))} or {choices[-1]}"
            )


def rows_drawn(problem: str, batch: int, **rows: int) -> None:
    """Raises ValueError where `batch` is no number of the rows of data, the one other setting."""
    ((name, most),) = rows.items()
    if not isinstance(batch, int) or not 0 <= batch <= most:
        raise ValueError(f"{problem}[batch={batch}]: batch is 0 (all) or a number of rows up to {name}={most}")


def place_text(settings: Mapping[str, Any]) -> str:
    """The settings that a parameter point and its gradient depend on: how many rows each replicate draws is none of them."""
    return settings_text({name: value for name, value in settings.items() if name != "batch"})


def settings_text(settings: Mapping[str, Any]) -> str:
    """`a=1,b=x`, sorted by name: how settings are written wherever they are part of a name."""
    return ",".join(f"{k}={settings[k]}" for k in sorted(settings))
