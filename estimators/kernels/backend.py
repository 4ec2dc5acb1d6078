"""What a lane function is compiled with: numba for the CPU, or nothing at all, which is plain Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[..., Any]

# Not 'reassoc', which may legally undo magic-number rounding; not 'nnan', 'ninf': what is not finite is counted.
FAST = frozenset({"contract", "nsz", "arcp"})
VECTORS = "NUMBA_CPU_FEATURES"
UNSIGNED = {"float64": np.uint64, "float32": np.uint32}


@dataclass(frozen=True, eq=False)
class Backend:
    """jit makes a function callable from other lane functions; bits and unbits reinterpret a real as an unsigned, and back.

    reordering: the same for sums over lanes, which may be added in any order and are void unless all numbers are finite.

    real: type of the lanes' numbers, numpy.float64 or numpy.float32. Constants of lane functions are made with it: a product with
    a Python float would be a float64.
    """

    name: str
    real: Any
    jit: Callable[[Function], Function]
    bits: Function
    unbits: Function
    reordering: Callable[[Function], Function] | None = None

    @property
    def sum_jit(self) -> Callable[[Function], Function]:
        return self.reordering or self.jit

    @property
    def single(self) -> bool:
        """The lanes' numbers are float32."""
        return self.real is np.float32


def use_whole_vectors() -> bool:
    """Let numba use the CPU's 512-bit vectors, where LLVM would keep to 256 bits, unless the user's environment says otherwise.

    For processes of ours that have not imported numba yet, which reads the environment once: True where it was changed. Kernels
    take 5 to 20% less time on an Intel CPU with AVX-512; their last bits may be others.
    """
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    if VECTORS in os.environ or not features.get("avx512f"):
        return False
    os.environ[VECTORS] = f"{features.flatten()},-prefer-256-bit"
    return True


def plain(dtype: str = "float64") -> Backend:
    """Plain Python, one number at a time: what the compiled forms are held against. Run it under `np.errstate(over="ignore")`."""
    real: Any = getattr(np, dtype)
    unsigned: Any = UNSIGNED[dtype]
    return Backend(
        "plain",
        real,
        lambda function: function,
        lambda x: real(x).view(unsigned),
        lambda u: unsigned(u).view(real),
    )


def cpu(dtype: str = "float64", contract: bool = True, from_python: bool = True) -> Backend:
    """numba for this CPU.

    contract: a b + c may be rounded once; without, results are plain Python's to the bit. from_python: the functions can be called
    from Python as well, for which each needs a wrapper: a quarter of the time of compiling.
    """
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic

    real: Any
    unsigned: Any
    if dtype == "float64":
        real, unsigned, real_ir, unsigned_ir = types.float64, types.uint64, ir.DoubleType(), ir.IntType(64)
    else:
        real, unsigned, real_ir, unsigned_ir = types.float32, types.uint32, ir.FloatType(), ir.IntType(32)

    @intrinsic
    def bits(context, x):  # type: ignore[no-untyped-def]
        return unsigned(real), lambda _, builder, signature, args: builder.bitcast(args[0], unsigned_ir)

    @intrinsic
    def unbits(context, u):  # type: ignore[no-untyped-def]
        return real(unsigned), lambda _, builder, signature, args: builder.bitcast(args[0], real_ir)

    # error_model: Python's raises on division by zero, and a loop that may raise is not vectorised. forceinline, and not
    # inline="always", which would take the caller's flags.
    how: dict[str, Any] = {"error_model": "numpy", "forceinline": True}
    if not from_python:
        how |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    jit = njit(fastmath=set(FAST) if contract else False, **how)
    sum_jit = njit(fastmath={*FAST, "reassoc", "nnan"}, **how) if contract else None
    return Backend("cpu", getattr(np, dtype), jit, bits, unbits, sum_jit)
