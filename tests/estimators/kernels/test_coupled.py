"""Kernels of coupled samples, of sites replaced one at a time, and of baselines learned before: the torch form's gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

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
CASES: list[Case] = [
    (("arms", {"samples": 2}), QUADRATIC, "mid"),
    (("arms", {}), TOY, "converged"),
    (("arms", {"samples": 7}), TOY, "mid"),
    (("arms", {"samples": 3}), ("bernoulli_toy", {"dim": 1}), "mid"),
    (("local_expectation", {}), TOY, "converged"),
    (("local_expectation", {"samples": 3}), QUADRATIC, "mid"),
    (("local_expectation", {}), SITES, "mid"),
    (("local_expectation", {"samples": 2}), ("quadratic", {"family": "categorical", "dim": 1}), "converged"),
    (("measure_valued_bernoulli", {}), TOY, "mid"),
    (("measure_valued_bernoulli", {}), QUADRATIC, "converged"),
    (("moving_average_baseline", {"samples": 2, "decay": 0.9, "steps": 50}), TOY, "mid"),
    (("moving_average_baseline", {}), SITES, "mid"),
    (("moving_average_baseline", {"steps": 0}), NORMALS, "init"),
    (("optimal_baseline", {"samples": 2, "steps": 3, "batch": 50}), TOY, "converged"),
    (("optimal_baseline", {}), SITES, "mid"),
    (("optimal_baseline", {}), NORMALS, "wide"),
    (("antithetic_normal", {}), NORMALS, "narrow"),
    (("antithetic_normal", {"samples": 6}), ("gaussian_cost", {"dim": 3}), "wide"),
]
ROWS, MIXTURE = ("sbn", {"hidden": 4, "data": 6, "batch": 3}), ("mixture", {"data": 5})
DATA: list[Case] = [  # a bound, an encoder and a model; the rows of ROWS are drawn for each replicate
    (("arms", {"samples": 3}), ROWS, "init"),
    (("local_expectation", {"samples": 2}), ROWS, "init"),
    (("local_expectation", {}), MIXTURE, "init"),
    (("local_expectation", {"samples": 2}), ("alignment", {}), "mid"),
    (("measure_valued_bernoulli", {}), ROWS, "init"),
    (("moving_average_baseline", {"samples": 2}), MIXTURE, "init"),
    (("optimal_baseline", {"samples": 2, "steps": 3}), MIXTURE, "init"),
    (("optimal_baseline", {"steps": 3}), ROWS, "init"),
    (("antithetic_normal", {}), ("linear_gaussian", {"dim": 3}), "mid"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(509, 543)
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize(("estimator", "problem", "point"), DATA, ids=label)
def test_of_data_as_well(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    wanted = gradients(trial, range(250, 264), learn(trial)[0]).numpy()
    np.testing.assert_allclose(
        in_plain_python(kernel, range(250, 264)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max()
    )


SMALL: list[Case] = [
    (("arms", {"samples": 3}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("local_expectation", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("local_expectation", {}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
    (("measure_valued_bernoulli", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("optimal_baseline", {"steps": 2}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("moving_average_baseline", {"steps": 2}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("antithetic_normal", {}), NORMALS, "narrow"),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case[0][0])
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Any) -> None:
    (estimator, settings), (problem, dim), point = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**dim).at(point), 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, learn(trial)[0], trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case[0][0])
def test_in_single_precision_it_is_the_torch_form_but_for_draws_at_a_threshold(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(4096), learn(trial)[0]).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4


@pytest.mark.parametrize("samples", [2, 3, 16])
def test_arms_of_bits_that_hardly_ever_turn(samples: int) -> None:
    """|theta| up to 800, where p and 1 - p leave the range of float64."""
    toy = PROBLEMS["bernoulli_toy"](dim=6)
    theta = torch.tensor([30.0, -30.0, 800.0, -800.0, 12.0, 0.3], dtype=torch.float64)
    trial = prepare(ESTIMATORS["arms"](samples=samples), replace(toy, theta=theta, points={}), 7)
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(2048)).numpy()
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(kernel.gradients(range(2048)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_a_bound_of_categories_and_of_bits(pair: Any) -> None:
    """f - log q with a site changed."""
    for name, settings in (("quadratic", {"dim": 3}), ("quadratic", {"family": "categorical", "dim": 2})):
        problem = replace(PROBLEMS[name](**settings).at("mid"), objective=Elbo(), exact=None)
        for estimator in ("local_expectation", "arms", "measure_valued_bernoulli"):
            if estimator == "local_expectation" or "family" not in settings:
                trial = prepare(ESTIMATORS[estimator](), problem, 7, "mid")
                kernel = lazy_kernel_for(trial)
                assert kernel is not None
                wanted = gradients(trial, range(300)).numpy()
                size = np.abs(wanted).max()
                np.testing.assert_allclose(kernel.gradients(range(300)), wanted, rtol=0, atol=1e-12 * size)
