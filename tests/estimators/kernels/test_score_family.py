"""Kernels of the score function's kin: the torch form's gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients, learn, prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from problems.objectives import Elbo
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Case = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]

TOY, QUADRATIC = ("bernoulli_toy", {}), ("quadratic", {"dim": 5})
SITES = ("quadratic", {"family": "categorical", "dim": 3, "categories": 4})
NORMALS = ("gaussian_cost", {"cost": "exp", "dim": 2})
ROWS, MIXTURE = (
    ("sbn", {"hidden": 4, "data": 6, "batch": 3}),
    ("mixture", {"data": 5}),
)  # rows drawn a replicate; a bound
CASES: list[Case] = [
    (("reinforce_plus", {}), TOY, "converged"),
    (("reinforce_plus", {"samples": 3}), SITES, "mid"),
    (("reinforce_plus", {"samples": 2}), NORMALS, "wide"),
    (("reinforce_plus", {"samples": 2}), ROWS, "init"),
    (("reinforce_plus", {}), ("linear_gaussian", {"dim": 3}), "mid"),
    (("group_advantage", {}), QUADRATIC, "mid"),
    (("group_advantage", {"scale": "std"}), QUADRATIC, "converged"),
    (("group_advantage", {"samples": 3, "scale": "std", "eps": 0.5}), SITES, "mid"),
    (("group_advantage", {"samples": 5, "scale": "std"}), NORMALS, "init"),
    (("group_advantage", {"samples": 2, "scale": "mean"}), TOY, "mid"),
    (("group_advantage", {"samples": 3}), MIXTURE, "init"),
    (("group_advantage", {"samples": 3, "scale": "std"}), ROWS, "init"),
    (("group_advantage", {"scale": "mean"}), ROWS, "init"),
    (("off_policy", {}), TOY, "converged"),
    (("off_policy", {"samples": 1, "temperature": 3.0}), SITES, "mid"),
    (("off_policy", {"samples": 3, "baseline": "leave_one_out"}), SITES, "converged"),
    (("off_policy", {"samples": 3, "self_normalised": True}), QUADRATIC, "mid"),
    (("off_policy", {"samples": 3, "baseline": "leave_one_out", "self_normalised": True}), NORMALS, "init"),
    (("off_policy", {"baseline": "leave_one_out"}), ROWS, "init"),
    (("off_policy", {"self_normalised": True}), MIXTURE, "init"),
    (("off_policy", {"temperature": 2.0}), ("linear_gaussian", {"dim": 3}), "mid"),
    (("optimal_baseline", {"samples": 2, "steps": 3, "batch": 50, "shared": True}), SITES, "mid"),
    (("optimal_baseline", {"steps": 3, "shared": True}), MIXTURE, "init"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    wanted = gradients(trial, range(250, 274), learn(trial)[0]).numpy()
    found = in_plain_python(kernel, range(250, 274))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


SMALL: list[Case] = [
    (("reinforce_plus", {"samples": 2}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("group_advantage", {"scale": "std"}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("off_policy", {"baseline": "leave_one_out"}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
    (("off_policy", {"self_normalised": True}), NORMALS, "narrow"),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: label(case[0]))
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Any) -> None:
    (estimator, settings), (problem, dim), point = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**dim).at(point), 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, learn(trial)[0], trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", SMALL[1:3], ids=lambda case: label(case[0]))
def test_in_single_precision_it_is_the_torch_form_but_for_draws_at_a_threshold(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(4096), learn(trial)[0]).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4


@pytest.mark.parametrize(
    "estimator", [("reinforce_plus", {}), ("group_advantage", {"scale": "std"}), ("off_policy", {})], ids=label
)
def test_a_bound_without_data(estimator: Any) -> None:
    problem = replace(PROBLEMS["quadratic"](dim=3).at("mid"), objective=Elbo(), exact=None)
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), problem, 7, "mid")
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(24)).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, range(24)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
