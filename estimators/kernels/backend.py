"""What a lane function is compiled with: numba for the CPU, or nothing at all, which is plain Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[..., Any]

# Not 'reassoc', which may legally undo magic-number rounding; not 'nnan', 'ninf': what is not finite is counted.
FAST = frozenset({"contract", "nsz", "arcp"})


@dataclass(frozen=True, eq=False)
class Backend:
    """jit makes a function callable from other lane functions; bits and unbits reinterpret a float64 as a uint64, and back."""

    name: str
    jit: Callable[[Function], Function]
    bits: Function
    unbits: Function


def plain() -> Backend:
    """Plain Python, one number at a time: what the compiled forms are held against. Run it under `np.errstate(over="ignore")`."""
    return Backend(
        "plain",
        lambda function: function,
        lambda x: np.float64(x).view(np.uint64),
        lambda u: np.uint64(u).view(np.float64),
    )


def cpu(contract: bool = True) -> Backend:
    """numba for this CPU. contract: a b + c may be rounded once; without, results are plain Python's to the bit."""
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic

    @intrinsic
    def bits(context, x):  # type: ignore[no-untyped-def]
        return types.uint64(types.float64), lambda _, builder, signature, args: builder.bitcast(args[0], ir.IntType(64))

    @intrinsic
    def unbits(context, u):  # type: ignore[no-untyped-def]
        return types.float64(types.uint64), lambda _, builder, signature, args: builder.bitcast(
            args[0], ir.DoubleType()
        )

    # error_model: Python's raises on division by zero, and a loop that may raise is not vectorised. forceinline, and not
    # inline="always", which would take the caller's flags.
    jit = njit(error_model="numpy", fastmath=set(FAST) if contract else False, forceinline=True)
    return Backend("cpu", jit, bits, unbits)
