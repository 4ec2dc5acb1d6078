"""A problem's plain f(x) of one point, lifted over lanes, with its gradient; and a digest of what it computes.

The gradient is the complex step: f at x + i h e_d, of which the imaginary part is h df/dx_d, exact to rounding as h is tiny. f may
use + - * / **, abs, and of `math` what `stepped` has; numba refuses what has no complex form, a comparison of x for one.
Squire & Trapp 1998.
"""

from __future__ import annotations

import hashlib
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function, plain
from estimators.kernels.base import FamilyLanes, Shape
from problems.lanes import Kit, LaneModel

STEP = {np.float64: 2.0**-600, np.float32: 2.0**-60}
# Of modules and classes a digest has the names alone: these change with a library's version, or with `cpu.sources`.
KNOWN = ("builtins", "math", "numpy", "problems.lanes")
OURS = "estimators.kernels."


def model_of(
    be: Backend, scalar_f: Function | None, lanes: Callable[[Kit], LaneModel] | None, shape: Shape, L: int, S: int
) -> LaneModel:
    """A problem's f over lanes, by hand or lifted, with what it does not offer made of f."""
    if lanes is not None:
        found = lanes(kit(be, L, S))
    else:
        assert scalar_f is not None
        found = LaneModel(lifted(be, scalar_f, shape, L), differentiated(be, scalar_f, shape, L))
    if found.df is None:
        found = replace(found, df=_absent(be))
    if found.credit is None:
        found = replace(found, credit=_no_model(be))
    if found.begin is None:
        begin, moved = evaluated_again(be, found.f, shape, L)
        found = replace(found, begin=begin, moved=moved)
    return found


def kit(be: Backend, L: int, S: int) -> Kit:
    """What lane models are made with."""
    return Kit(
        be.jit,
        be.real,
        L,
        S,
        vmath.exp(be),
        vmath.log(be),
        vmath.sigmoid(be),
        vmath.softplus(be),
        vmath.sincos_turns(be),
    )


def looked_at(lanes: Callable[[Kit], LaneModel]) -> LaneModel:
    """A lane model that nothing is run with."""
    return lanes(kit(plain(), 4, 0))


def integrand(be: Backend, model: LaneModel, q: FamilyLanes, ratio: bool, shape: Shape, L: int, S: int) -> LaneModel:
    """f, df and moved of the integrand: f itself, or f - log q of a bound (theta held fixed)."""
    if not ratio:
        return model
    f, df, begin, moved, log_prob, slope = model.f, model.df, model.begin, model.moved, q.log_prob, q.slope
    assert df is not None
    assert begin is not None
    assert moved is not None
    assert slope is not None
    own_begin, own_moved = evaluated_again(be, log_prob, shape, L)
    rooms = model.rooms

    @be.jit
    def f_less(out, x, c):  # type: ignore[no-untyped-def]
        log_q = c.room[rooms]
        f(out, x, c)
        log_prob(log_q, x, c)
        for l in range(L):
            out[l] -= log_q[l]

    @be.jit
    def df_less(out, x, c):  # type: ignore[no-untyped-def]
        df(out, x, c)
        slope(out, x, c)

    @be.jit
    def begin_both(x, c):  # type: ignore[no-untyped-def]
        begin(x, c)
        own_begin(x, c)

    @be.jit
    def moved_less(out, x, d, v, c):  # type: ignore[no-untyped-def]
        log_q = c.room[rooms]
        moved(out, x, d, v, c)
        own_moved(log_q, x, d, v, c)
        for l in range(L):
            out[l] -= log_q[l]

    hessian = None if model.hessian is None else curved(be, model.hessian, q)
    return replace(model, f=f_less, df=df_less, begin=begin_both, moved=moved_less, rooms=rooms + 1, hessian=hessian)


def curved(be: Backend, hessian: Function, q: FamilyLanes) -> Function:
    """Second derivatives of f - log q."""
    curve = q.curve
    if curve is None:
        return hessian

    @be.jit
    def hessian_less(h, x, c):  # type: ignore[no-untyped-def]
        hessian(h, x, c)
        curve(h, x, c)

    return hessian_less


def evaluated_again(be: Backend, f: Function, shape: Shape, L: int) -> tuple[Function, Function]:
    """begin and moved by evaluating f. For one-hot sites v is the category."""
    one_hot, C = len(shape.event) == 2, shape.event[-1]
    R = be.real
    ZERO, ONE = R(0), R(1)

    @be.jit
    def begin(x, c):  # type: ignore[no-untyped-def]
        pass

    @be.jit
    def moved(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            c.z[0, l] = x[d, l]
            x[d, l] = v[l]
        f(out, x, c)
        for l in range(L):
            x[d, l] = c.z[0, l].real

    @be.jit
    def moved_one_hot(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for i in range(C):
            for l in range(L):
                c.z[0, i, l] = x[d, i, l]
                x[d, i, l] = ONE if v[l] == R(i) else ZERO
        f(out, x, c)
        for i in range(C):
            for l in range(L):
                x[d, i, l] = c.z[0, i, l].real

    return begin, moved_one_hot if one_hot else moved


def _absent(be: Backend) -> Function:
    @be.jit
    def df(out, x, c):  # type: ignore[no-untyped-def]
        out[:] = math.nan

    return df


def _no_model(be: Backend) -> Function:
    @be.jit
    def credit(m, x, w, c):  # type: ignore[no-untyped-def]
        pass

    return credit


def lifted(be: Backend, scalar_f: Function, shape: Shape, L: int) -> Function:
    """`f(out, x, c)`: out[l] = f(x[..., l])."""
    one = be.jit(_with_math(be, scalar_f, {"exp": vmath.exp(be)}))

    @be.jit
    def f(out, x, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[l] = one(x[:, l])

    @be.jit
    def f_one_hot(out, x, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[l] = one(x[:, :, l])

    return f_one_hot if len(shape.event) == 2 else f


def differentiated(be: Backend, scalar_f: Function, shape: Shape, L: int) -> Function:
    """`df(out, x, c)`: out[d, l] = df/dx_d at x[..., l], in c.z."""
    one, D, C = be.jit(_with_math(be, scalar_f, stepped(be))), shape.D, shape.event[-1]
    H = be.real(STEP[be.real])
    ONE_H = be.real(1 / STEP[be.real])

    @be.jit
    def df(out, x, c):  # type: ignore[no-untyped-def]
        z = c.z
        for d in range(D):
            for l in range(L):
                z[d, l] = x[d, l]
        for d in range(D):
            for l in range(L):
                z[d, l] = complex(x[d, l], H)
            for l in range(L):
                out[d, l] = one(z[:, l]).imag * ONE_H
            for l in range(L):
                z[d, l] = x[d, l]

    @be.jit
    def df_one_hot(out, x, c):  # type: ignore[no-untyped-def]
        z = c.z
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    z[d, i, l] = x[d, i, l]
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    z[d, i, l] = complex(x[d, i, l], H)
                for l in range(L):
                    out[d, i, l] = one(z[:, :, l]).imag * ONE_H
                for l in range(L):
                    z[d, i, l] = x[d, i, l]

    return df_one_hot if len(shape.event) == 2 else df


def stepped(be: Backend) -> dict[str, Function]:
    """Functions of `math`, and abs, at z = a + i b with b tiny: phi(a) + i phi'(a) b."""
    real_exp = vmath.exp(be)
    ZERO, HALF, ONE = be.real(0), be.real(0.5), be.real(1)

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
        return complex(value, HALF * z.imag / value)

    @be.jit
    def sin(z):  # type: ignore[no-untyped-def]
        return complex(math.sin(z.real), math.cos(z.real) * z.imag)

    @be.jit
    def cos(z):  # type: ignore[no-untyped-def]
        return complex(math.cos(z.real), -math.sin(z.real) * z.imag)

    @be.jit
    def tanh(z):  # type: ignore[no-untyped-def]
        value = math.tanh(z.real)
        return complex(value, (ONE - value * value) * z.imag)

    @be.jit
    def absolute(z):  # type: ignore[no-untyped-def]
        return z if z.real >= ZERO else -z

    return {"exp": exp, "log": log, "sqrt": sqrt, "sin": sin, "cos": cos, "tanh": tanh, "abs": absolute}


def _with_math(be: Backend, function: Function, replaced: dict[str, Function]) -> Function:
    """The same function, but with these in place of what `math` has by their names; its numbers in the lanes' precision."""
    if not isinstance(function, types.FunctionType):
        return function
    known = dict(function.__globals__)
    if known.get("math") is math:
        lanes = types.ModuleType("math")
        own = {name: value for name, value in vars(math).items() if not name.startswith("__")}
        lanes.__dict__.update(own, **replaced)
        known["math"] = lanes
    if "abs" in replaced:  # the modulus of a complex number has no derivative to give
        known["abs"] = replaced["abs"]
    code, closure = function.__code__, function.__closure__
    if be.single:
        code = code.replace(co_consts=tuple(map(_single, code.co_consts)))
        closure = None if closure is None else tuple(types.CellType(_single(cell.cell_contents)) for cell in closure)
        known = {name: _single(value) for name, value in known.items()}
    return types.FunctionType(code, known, function.__name__, function.__defaults__, closure)


def _single(value: Any) -> Any:
    """A number, or an array of them, as float32; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32) if value.dtype == np.float64 else value
    return np.float32(value) if type(value) is float else value


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
    elif isinstance(value, types.ModuleType) and _known(value.__name__):
        yield f"module {value.__name__}"
    elif isinstance(value, type) and _known(value.__module__):
        yield f"class {value.__module__}.{value.__qualname__}"
    elif isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType):
        yield f"builtin {value.__module__}.{value.__qualname__}"
    elif isinstance(value, types.CodeType):
        yield value.co_code.hex()
        yield from _parts(value.co_names + value.co_varnames)
        yield from _parts(value.co_consts)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    else:
        raise Opaque(
            f"{value!r}: a kernel's f may close over numbers, arrays, plain functions, and the modules math and numpy"
        )


def _known(module: str) -> bool:
    return module in KNOWN or module.startswith(OURS)


def _of_function(function: types.FunctionType) -> Iterator[str]:
    yield from _parts(function.__code__)
    yield from _parts(function.__defaults__)
    yield from _parts(tuple(sorted((function.__kwdefaults__ or {}).items())))
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
