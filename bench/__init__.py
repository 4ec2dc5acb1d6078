"""Bias, variance and wall-clock of Monte Carlo gradient estimators. Importing this package imports nothing heavy."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.measure import measure
    from bench.measurement import Measurement

_HOME = {"measure": "bench.measure", "Measurement": "bench.measurement"}

__all__ = ["Measurement", "measure"]


class _Package(ModuleType):
    """`bench.measure` is the function, also after its module, which has the same name, was imported by whomever."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.measure if name == "measure" and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
