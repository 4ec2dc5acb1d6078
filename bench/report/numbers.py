"""Numbers as text: three significant digits, an interval to the same digits, units of time."""

from __future__ import annotations

import math
from collections.abc import Callable

DIGITS = 3
UNITS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
NOTHING = "-"


def number(x: float, digits: int = DIGITS) -> str:
    """`x` to so many significant digits: 0.0123, 12.3, 1.23e-5."""
    return _style(x, digits)(x) if math.isfinite(x) else NOTHING


def count(x: float) -> str:
    """A count of evaluations or replicates, which has no interval: 4,096, 1.2e7; 3.61 where it is a mean of random counts."""
    if not math.isfinite(x):
        return NOTHING
    if abs(x) >= 1e6:
        return number(x, 2)
    return f"{x:,.0f}" if x == round(x) else number(x)


def counted(x: float, noun: str) -> str:
    """`1 cell`, `4,096 replicates`."""
    return f"{count(x)} {noun}" + ("" if x == 1 else "s")


def bounded(value: float, low: float, high: float, unit: str = "") -> str:
    """`1.23 [1.10, 1.40] us`; `>= 1.10 us` where there is no upper end; `unbounded` where there is neither."""
    if math.isnan(value):
        return NOTHING
    if low == value == high:
        return _with_unit(number(value) if math.isfinite(value) else str(value), unit)
    if not math.isfinite(high):
        return _with_unit(f">= {number(low)}", unit) if math.isfinite(low) and low != 0 else "unbounded"
    if low <= 0 < value:
        return _with_unit(f"<= {number(high)}", unit)
    write = _style(value if value else high, DIGITS)
    return _with_unit(f"{write(value)} [{_end(low, write)}, {_end(high, write)}]", unit)


def margin(value: float, low: float, high: float, unit: str = "", sign: str = "±", most: float = 2.0) -> str:
    """`1.23 us ±4%`, the larger side of the interval rounded up; as `bounded` where an end is further off than a factor `most`."""
    if not (math.isfinite(high) and 0 < low <= value <= high) or high > most * value or value > most * low:
        return bounded(value, low, high, unit)
    side = 100 * (max(high / value, value / low) - 1)
    step = 10.0 ** max(math.floor(math.log10(side)) - 1, -1) if side > 0 else 1.0
    decimals = 1 if step < 1 else 0
    return f"{_with_unit(number(value), unit)} {sign}{math.ceil(side / step - 1e-9) * step:.{decimals}f}%"


def at_most(value: float, low: float, high: float, unit: str = "", brief: bool = False) -> str:
    """What can be said of a bias: `<= 0.450%` where its interval begins at zero, else as `bounded`; brief: its ends alone."""
    if not (0 < low < high) and math.isfinite(high) and high > value:
        return _with_unit(f"<= {number(high)}", unit)
    text = bounded(value, low, high, unit)
    return text[text.index("[") :] if brief and "[" in text else text


def duration(ns: float, low: float, high: float, form: Callable[..., str] = bounded) -> str:
    """Nanoseconds in the unit that suits them, with their interval; `form` is `bounded` or `margin`."""
    unit, scale = unit_of(ns)
    return form(ns / scale, low / scale, high / scale, unit)


def unit_of(ns: float) -> tuple[str, float]:
    """The largest unit not above `ns`, and its length in nanoseconds."""
    found = ("ns", 1.0)
    for unit, scale in UNITS.items():
        if ns >= scale:
            found = (unit, scale)
    return found


def _with_unit(text: str, unit: str) -> str:
    return text + (unit if unit == "%" else f" {unit}" if unit else "")


def _style(x: float, digits: int) -> Callable[[float], str]:
    """How numbers are written beside `x`: to the place of its last significant digit, with its exponent if it has one."""
    if not math.isfinite(x) or x == 0:
        return lambda y: f"{y:.{digits - 1}f}" if y else "0"
    exponent = int(f"{x:.{digits - 1}e}".split("e")[1])
    if -3 <= exponent < 4:
        decimals = max(digits - 1 - exponent, 0)
        return lambda y: f"{y:.{decimals}f}" if y else "0"
    return lambda y: f"{y / 10.0**exponent:.{digits - 1}f}e{exponent}" if y else "0"


def _end(x: float, write: Callable[[float], str]) -> str:
    """An end of an interval; one that would round to zero without being zero keeps digits of its own."""
    if not math.isfinite(x):
        return "-inf" if x < 0 else "inf"
    text = write(x)
    rounds_away = x != 0 and not any(c in "123456789" for c in text.split("e")[0])
    return number(x, 1) if rounds_away else text
