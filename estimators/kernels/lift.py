"""A problem's plain f(x) of one point, lifted over lanes, with its gradient; and a digest of what it computes.

The gradient is the complex step: f at x + i h e_d, of which the imaginary part is h df/dx_d, exact to rounding as h = 2^-600. f may
use + - * / **, and of `math` what `stepped` has; numba refuses what has no complex form, a comparison of x for one.
Squire & Trapp 1998.
"""

from __future__ import annotations

import hashlib
import math
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function

STEP = 2.0**-600


def lifted(be: Backend, scalar_f: Function, L: int) -> Function:
    """`f(out, x)`: out[l] = f(x[:, l])."""
    one = be.jit(_with_math(scalar_f, {"exp": vmath.exp(be)}))

    @be.jit
    def f(out, x):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[l] = one(x[:, l])

    return f


def differentiated(be: Backend, scalar_f: Function, D: int, L: int) -> Function:
    """`df(out, x, z)`: out[d, l] = df/dx_d at x[:, l]; z `[D, L]` complex, to work in."""
    one = be.jit(_with_math(scalar_f, stepped(be)))

    @be.jit
    def df(out, x, z):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                z[d, l] = x[d, l]
        for d in range(D):
            for l in range(L):
                z[d, l] = complex(x[d, l], STEP)
            for l in range(L):
                out[d, l] = one(z[:, l]).imag / STEP
            for l in range(L):
                z[d, l] = x[d, l]

    return df


def stepped(be: Backend) -> dict[str, Function]:
    """Functions of `math` at z = a + i b with b tiny: phi(a) + i phi'(a) b."""
    real_exp = vmath.exp(be)

    @be.jit
    def exp(z):  # type: ignore[no-untyped-def]
        value = real_exp(z.real)
        return complex(value, value * z.imag)

    @be.jit
    def log(z):  # type: ignore[no-untyped-def]
        return complex(math.log(z.real), z.imag / z.real)

    @be.jit
    def sqrt(z):  # type: ignore[no-untyped-def]
        value = math.sqrt(z.real)
        return complex(value, 0.5 * z.imag / value)

    @be.jit
    def sin(z):  # type: ignore[no-untyped-def]
        return complex(math.sin(z.real), math.cos(z.real) * z.imag)

    @be.jit
    def cos(z):  # type: ignore[no-untyped-def]
        return complex(math.cos(z.real), -math.sin(z.real) * z.imag)

    @be.jit
    def tanh(z):  # type: ignore[no-untyped-def]
        value = math.tanh(z.real)
        return complex(value, (1.0 - value * value) * z.imag)

    return {"exp": exp, "log": log, "sqrt": sqrt, "sin": sin, "cos": cos, "tanh": tanh}


def _with_math(function: Function, replaced: dict[str, Function]) -> Function:
    """The same function, but with these in place of what `math` has by their names."""
    if not isinstance(function, types.FunctionType) or function.__globals__.get("math") is not math:
        return function
    lanes = types.ModuleType("math")
    lanes.__dict__.update({name: value for name, value in vars(math).items() if not name.startswith("__")}, **replaced)
    known = {**function.__globals__, "math": lanes}
    return types.FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)


class Opaque(ValueError):
    """A value in a function whose content cannot be told from another's."""


def digest(function: Function) -> str:
    """SHA-256 of a plain function's code, and of the values it closes over and refers to. Raises Opaque."""
    return hashlib.sha256("\x1f".join(_parts(function)).encode()).hexdigest()


def _parts(value: Any) -> Iterator[str]:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        yield repr(value)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} {len(value)}"
        for item in value:
            yield from _parts(item)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, types.BuiltinFunctionType):
        yield f"builtin {value.__module__}.{value.__qualname__}"
    elif isinstance(value, types.CodeType):
        yield value.co_code.hex()
        yield from _parts(value.co_names + value.co_varnames)
        yield from _parts(value.co_consts)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    else:
        raise Opaque(f"{value!r}: a kernel's f may close over numbers, arrays, modules and plain functions")


def _of_function(function: types.FunctionType) -> Iterator[str]:
    yield from _parts(function.__code__)
    yield from _parts(function.__defaults__)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents)
    known = function.__globals__
    for name in sorted(_names(function.__code__) & known.keys()):
        yield name
        if known[name] is not function:
            yield from _parts(known[name])


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)
