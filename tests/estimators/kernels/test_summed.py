"""Kernels of sites summed with their probabilities, and of alternatives to a draw: the torch form's gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients, learn, prepare
from bench.kernels import lazy_kernel_for, why_no_kernel
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from problems.objectives import Elbo
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Case = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]

TOY, QUADRATIC = ("bernoulli_toy", {}), ("quadratic", {"dim": 5})
SITES = ("quadratic", {"family": "categorical", "dim": 3, "categories": 4})
ROWS, MIXTURE = ("sbn", {"hidden": 4, "data": 6, "batch": 3}), ("mixture", {"data": 5})
CASES: list[Case] = [
    (("indecater", {}), TOY, "converged"),
    (("indecater", {"samples": 3, "fresh": "value"}), QUADRATIC, "mid"),
    (("indecater", {"samples": 2}), SITES, "mid"),
    (("indecater", {"fresh": "value"}), SITES, "mid"),
    (("stochastic_ad", {}), TOY, "converged"),
    (("stochastic_ad", {"side": "left"}), QUADRATIC, "mid"),
    (("stochastic_ad", {"side": "both"}), ("bernoulli_toy", {"dim": 1}), "mid"),
    (("stochastic_ad", {"keep": "all"}), TOY, "mid"),
    (("stochastic_ad", {"keep": "all", "side": "left"}), QUADRATIC, "converged"),
    (("stochastic_ad", {"keep": "all", "side": "both"}), QUADRATIC, "mid"),
    (("stochastic_ad", {"keep": "smoothed", "side": "left"}), QUADRATIC, "mid"),
    (("stochastic_ad", {"keep": "smoothed", "side": "both"}), TOY, "mid"),
    (("indecater", {"samples": 2}), ROWS, "init"),
    (("indecater", {"fresh": "value"}), MIXTURE, "init"),
    (("stochastic_ad", {}), ROWS, "init"),
    (("stochastic_ad", {"keep": "all", "side": "both"}), ROWS, "init"),
    (("stochastic_ad", {"keep": "smoothed"}), ROWS, "init"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(250, 264)
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("estimator", ["indecater", "stochastic_ad"])
@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_of_a_bound_as_well(estimator: str, family: str) -> None:
    problem = replace(PROBLEMS["quadratic"](family=family, dim=2).at("mid"), objective=Elbo(), exact=None)
    trial = prepare(ESTIMATORS[estimator](), problem, 7, "mid")
    kernel = lazy_kernel_for(trial)
    if kernel is None:
        assert (why_no_kernel(trial) or "").endswith("kernel form for bernoulli variables only")
        return
    wanted = gradients(trial, range(40)).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, range(40)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


SMALL: list[Case] = [
    (("indecater", {}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
    (("stochastic_ad", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: label(case[0]))
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Any) -> None:
    (estimator, settings), (problem, dim), point = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**dim).at(point), 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, learn(trial)[0], trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: label(case[0]))
def test_in_single_precision_it_is_the_torch_form_but_for_draws_at_a_threshold(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(4096), learn(trial)[0]).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4
