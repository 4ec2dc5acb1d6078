"""Kernels of the coupled estimators of bits and of categories: the torch form's gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients, prepare
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Named = tuple[str, dict[str, Any]]
Case = tuple[Named, Named, str]

TOY: Named = ("bernoulli_toy", {})
QUADRATIC: Named = ("quadratic", {"dim": 5})
CASES: list[Case] = [
    (("ar", {}), TOY, "converged"),
    (("ar", {"samples": 3}), QUADRATIC, "mid"),
    (("bitflip", {}), TOY, "converged"),
    (("bitflip", {}), ("bernoulli_toy", {"dim": 1}), "mid"),
    (("ugc", {}), QUADRATIC, "converged"),
    (("ugc", {"clip": 1.5}), QUADRATIC, "mid"),
]
ROWS = ("sbn", {"hidden": 4, "data": 6, "batch": 3})
DATA: list[Case] = [  # a bound, an encoder and a model; the rows of ROWS are drawn for each replicate
    (("ar", {"samples": 2}), ROWS, "init"),
    (("bitflip", {}), ROWS, "init"),
    (("ugc", {"clip": 1.9}), ROWS, "init"),
]
SMALL: list[Case] = [
    (("ar", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("bitflip", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("ugc", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(509, 543)
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize(("estimator", "problem", "point"), DATA, ids=label)
def test_of_data_as_well(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    wanted = gradients(trial, range(250, 264)).numpy()
    np.testing.assert_allclose(
        in_plain_python(kernel, range(250, 264)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max()
    )


@pytest.mark.parametrize("case", SMALL, ids=lambda case: label(case[0]))
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Any) -> None:
    (estimator, settings), (problem, dim), point = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**dim).at(point), 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: label(case[0]))
def test_in_single_precision_it_is_the_torch_form_but_for_draws_at_a_threshold(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(4096)).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4
