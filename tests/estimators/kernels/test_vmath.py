"""Accuracy of the polynomials, against many digits: in units of the last place, or of 2^-53 where the value passes through zero."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, cpu, plain

BACKENDS = [plain(), cpu(contract=False), cpu()]
NAMES = ["plain", "cpu", "contracted"]


def ulps(found: np.ndarray, x: np.ndarray, exact: Callable[[mpmath.mpf], mpmath.mpf]) -> float:
    with mpmath.workdps(40):
        wanted = [exact(mpmath.mpf(float(v))) for v in x]
        return max(
            abs(float((mpmath.mpf(float(a)) - b) / float(np.spacing(abs(float(b))))))
            for a, b in zip(found, wanted, strict=True)
        )


def at(function: Callable[[float], float], x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.array([function(v) for v in x])


@pytest.mark.parametrize("be", BACKENDS, ids=NAMES)
def test_exp(be: Backend) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-700, 700, 1000), rng.normal(size=1000), rng.normal(size=200) * 1e-9, [0.0]])
    found = at(vmath.exp(be), x)
    assert ulps(found, x, mpmath.exp) <= 1.5
    assert at(vmath.exp(be), np.array([-1e5, 1e5, np.inf])) == pytest.approx([3.3e-308, 8.2e307, 8.2e307], rel=0.01)
    assert np.isnan(at(vmath.exp(be), np.array([np.nan]))).all()


@pytest.mark.parametrize("be", BACKENDS, ids=NAMES)
def test_log(be: Backend) -> None:
    rng = np.random.default_rng(1)
    uniforms = (rng.integers(0, 2**32, 1500) + 0.5) * 2.0**-32
    x = np.concatenate([uniforms, [2.0**-33, 1 - 2.0**-33, 0.5, 2.0, 1e300, 1e-300], 1 + rng.normal(size=300) * 1e-6])
    assert ulps(at(vmath.log(be), x), x, mpmath.log) <= 1.5


@pytest.mark.parametrize("be", BACKENDS, ids=NAMES)
def test_inverse_root(be: Backend) -> None:
    x = np.exp(np.random.default_rng(3).uniform(-600, 250, 1000))
    assert ulps(at(vmath.inverse_root(be), x), x, lambda v: 1 / mpmath.sqrt(v)) <= 3


@pytest.mark.parametrize("be", BACKENDS, ids=NAMES)
def test_sine_and_cosine_of_turns(be: Backend) -> None:
    rng = np.random.default_rng(2)
    u = np.concatenate([(rng.integers(0, 2**32, 1500) + 0.5) * 2.0**-32, [2.0**-33, 0.125, 0.25, 0.5, 1 - 2.0**-33]])
    sincos = vmath.sincos_turns(be)
    with np.errstate(over="ignore"):
        found = [sincos(v) for v in u]
    with mpmath.workdps(40):
        turns = [2 * mpmath.pi * mpmath.mpf(float(v)) for v in u]
        errors = [
            max(abs(float(s - mpmath.sin(t))), abs(float(c - mpmath.cos(t))))
            for (s, c), t in zip(found, turns, strict=True)
        ]
    assert max(errors) <= 4e-16


def test_a_wrong_digit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmath, "LN2_LOW", vmath.LN2_LOW * (1 + 1e-5))
    x = np.array([300.3])
    assert ulps(at(vmath.exp(plain()), x), x, mpmath.exp) > 1.5
