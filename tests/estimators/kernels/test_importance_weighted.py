"""Kernel forms of importance-weighted gradients, and of pathwise_total, are their torch forms, to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients
from bench.kernels import lazy_kernel_for
from estimators.kernels import cpu
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

BOUND = ("linear_gaussian", {"dim": 3, "data": 2, "samples": 3})
PAIR = ("linear_gaussian", {"dim": 2, "data": 2, "samples": 2})
ELBO = ("linear_gaussian", {"dim": 2, "data": 3})
MIXTURE = ("mixture", {"samples": 4, "data": 3})
INCLUSIVE = ("mixture", {"objective": "inclusive_kl", "data": 3})
CASES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]] = [
    (("iwae_score", {}), BOUND, "converged"),
    (("vimco", {}), BOUND, "mid"),
    (("vimco", {"mean": "arithmetic"}), MIXTURE, "init"),
    (("vimco", {}), PAIR, "init"),
    (("ovis", {"gamma": 0.5}), MIXTURE, "init"),
    (("ovis_mc", {"auxiliary": 2}), PAIR, "converged"),
    (("dreg", {}), BOUND, "mid"),
    (("stl", {}), PAIR, "init"),
    (("iwae_pathwise", {}), BOUND, "init"),
    (("iwae_pathwise", {}), ELBO, "mid"),
    (("wake_phi", {"samples": 3}), INCLUSIVE, "mid"),
    (("wake_phi", {"samples": 1}), INCLUSIVE, "init"),
    (("pathwise_total", {"samples": 2}), ELBO, "mid"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(1021, 1055)
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("case", [CASES[3], CASES[5], CASES[7], CASES[9], CASES[12]], ids=lambda c: c[0][0])
def test_compiled_without_contraction_is_plain_python_to_the_bit(pair: Any, case: Any) -> None:
    trial, _ = pair(*case)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=lambda c: c[0][0])
def test_in_float32(pair: Any, case: Any) -> None:
    """But for a draw at a threshold."""
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(2000)).double().numpy()
    off = np.abs(kernel.gradients(range(2000)) - wanted).max(-1) > 1e-3 * np.abs(wanted).max()
    assert off.sum() <= 2


def test_log_weights_far_apart(pair: Any) -> None:
    """Weights that are nil beside one another, as at the start of a fit of distant data; log w, of 1e5, has its rounding in v."""
    trial, _ = pair(*CASES[1])
    assert trial.problem.data is not None
    far = replace(trial, problem=replace(trial.problem, data=100 * trial.problem.data))
    kernel = lazy_kernel_for(far)
    assert kernel is not None
    wanted = gradients(far, range(256)).numpy()
    np.testing.assert_allclose(kernel.gradients(range(256)), wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
