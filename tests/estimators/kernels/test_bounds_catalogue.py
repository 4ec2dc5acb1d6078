"""Kernel forms of Renyi's bounds, RWS-DReG, DReG(alpha) and the tail-adaptive gradient are their torch forms, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients
from estimators.kernels import cpu
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

INCLUSIVE = ("linear_gaussian", {"dim": 3, "data": 2, "objective": "inclusive_kl"})
RENYI = ("linear_gaussian", {"dim": 2, "data": 2, "samples": 3, "objective": "renyi", "alpha": -0.7})
CATEGORIES = ("mixture", {"samples": 4, "data": 3, "objective": "renyi", "alpha": 2.5})
BOUND = ("linear_gaussian", {"dim": 3, "data": 2, "samples": 3})
ELBO = ("linear_gaussian", {"dim": 2, "data": 3})
CASES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]] = [
    (("iwae_score", {}), RENYI, "mid"),
    (("iwae_score", {}), CATEGORIES, "init"),
    (("vimco", {}), RENYI, "converged"),
    (("vimco", {"mean": "arithmetic"}), CATEGORIES, "init"),
    (("iwae_pathwise", {}), RENYI, "mid"),
    (("dreg", {"alpha": 0.3}), BOUND, "mid"),
    (("dreg", {"normalised": True}), BOUND, "converged"),
    (("rws_dreg", {"samples": 4}), INCLUSIVE, "mid"),
    (("rws_dreg", {"samples": 1}), INCLUSIVE, "init"),
    (("rws_dreg", {"samples": 3, "normalised": True}), INCLUSIVE, "converged"),
    (("wake_phi", {"samples": 3}), INCLUSIVE, "mid"),
    (("tail_adaptive", {"samples": 4}), ELBO, "mid"),
    (("tail_adaptive", {"samples": 3, "beta": -0.4}), ELBO, "init"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    """One sample of RWS-DReG is nil but for rounding."""
    trial, kernel = pair(estimator, problem, point)
    replicates = range(1021, 1055)
    wanted = gradients(trial, replicates).numpy()
    size = max(np.abs(wanted).max(), 1e-3)
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("case", [CASES[9], CASES[11]], ids=lambda c: c[0][0])
def test_compiled_without_contraction_is_plain_python_to_the_bit(pair: Any, case: Any) -> None:
    trial, _ = pair(*case)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", [CASES[3]], ids=lambda c: c[0][0])
def test_in_float32(pair: Any, case: Any) -> None:
    """But for a draw at a threshold."""
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(2000)).double().numpy()
    off = np.abs(kernel.gradients(range(2000)) - wanted).max(-1) > 1e-3 * np.abs(wanted).max()
    assert off.sum() <= 2
