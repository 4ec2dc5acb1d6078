"""The delta method and its pathwise form in lanes are their torch forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients, prepare
from bench.kernels import kernel_for, why_no_kernel
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

COST = "gaussian_cost"
CASES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]] = [
    (("delta_method", {}), (COST, {"cost": "exp", "dim": 2}), "init"),
    (("delta_method", {"samples": 3, "fresh": 4}), (COST, {"cost": "cos", "dim": 5}), "narrow"),
    (("delta_method", {"fresh": 3}), ("bayes_logreg", {"data": 20}), "init"),
    (("delta_pathwise", {}), (COST, {"dim": 3}), "wide"),
    (("delta_pathwise", {"fresh": 2}), ("linear_gaussian", {"dim": 3}), "mid"),
    (("delta_pathwise", {"samples": 2}), ("bayes_logreg", {"data": 20}), "init"),
    (("delta_pathwise", {"samples": 2, "fresh": 3}), (COST, {"cost": "exp", "dim": 6}), "narrow"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(251, 263)
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=lambda case: case[0][0])
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Any) -> None:
    (estimator, settings), (problem, sizes), point = case
    small = {"samples": settings["samples"], "fresh": 2}
    there = PROBLEMS[problem](**sizes | {"dim": 2}).at(point)
    trial = prepare(ESTIMATORS[estimator](**small), there, 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=lambda case: case[0][0])
def test_in_float32(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case, dtype="float32")
    replicates = range(0, 2000)
    wanted = gradients(trial, replicates).numpy()
    far = np.abs(kernel.gradients(replicates) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 2


def test_without_second_derivatives_there_is_no_kernel() -> None:
    there = replace(PROBLEMS["gaussian_cost"](), lanes=None)
    trial = prepare(ESTIMATORS["delta_pathwise"](), there)
    assert "no second derivatives" in str(why_no_kernel(trial))
    assert kernel_for(trial) is None
