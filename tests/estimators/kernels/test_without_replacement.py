"""Kernels of samples without replacement, of strata, and of states summed beside a sample: the torch form's gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import gradients, prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS, sum_and_sample
from estimators.kernels import cpu, enumeration
from problems import PROBLEMS
from problems.objectives import Elbo
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Case = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]

TOY, QUADRATIC = ("bernoulli_toy", {}), ("quadratic", {"dim": 4})
SITES = ("quadratic", {"family": "categorical", "dim": 3, "categories": 3})
ROWS, MIXTURE = ("sbn", {"hidden": 4, "data": 6, "batch": 3}), ("mixture", {"data": 5})
CASES: list[Case] = [
    (("sum_and_sample", {}), TOY, "converged"),
    (("sum_and_sample", {"samples": 1}), QUADRATIC, "mid"),
    (("sum_and_sample", {"samples": 4, "baseline": True}), QUADRATIC, "mid"),
    (("sum_and_sample", {"samples": 3, "chosen": "drawn"}), TOY, "mid"),
    (("sum_and_sample", {"samples": 5, "chosen": "drawn", "baseline": True}), SITES, "mid"),
    (("sum_and_sample", {"samples": 3}), SITES, "mid"),
    (("sum_and_sample", {"samples": 3}), ROWS, "init"),
    (("sum_and_sample", {"samples": 3, "chosen": "drawn", "baseline": True}), ROWS, "init"),
    (("sum_and_sample", {}), MIXTURE, "init"),
    (("score_without_replacement", {}), QUADRATIC, "mid"),
    (("score_without_replacement", {"samples": 1, "baseline": False}), TOY, "converged"),
    (("score_without_replacement", {"normalised": True}), SITES, "mid"),
    (("score_without_replacement", {"samples": 3, "baseline": False, "normalised": True}), QUADRATIC, "converged"),
    (("score_without_replacement", {"samples": 3}), MIXTURE, "init"),
    (("score_without_replacement", {"normalised": True}), ROWS, "init"),
    (("unordered_set", {}), TOY, "mid"),
    (("unordered_set", {"samples": 4}), QUADRATIC, "converged"),
    (("unordered_set", {"samples": 1, "baseline": False}), SITES, "mid"),
    (("unordered_set", {"samples": 3, "baseline": False}), QUADRATIC, "mid"),
    (("unordered_set", {"samples": 3}), MIXTURE, "init"),
    (("unordered_set", {"samples": 3}), ROWS, "init"),
    (("stratified", {}), TOY, "converged"),
    (("stratified", {"samples": 5, "baseline": 0.5}), SITES, "mid"),
    (("stratified", {"samples": 3, "design": "systematic"}), QUADRATIC, "mid"),
    (("stratified", {"samples": 3}), ROWS, "init"),
    (("stratified", {"design": "systematic"}), MIXTURE, "init"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(250, 264)
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("estimator", ["sum_and_sample", "score_without_replacement", "unordered_set", "stratified"])
@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("logit", [0.0, 1.0, 30.0, 200.0])
def test_of_a_bound_and_of_states_that_hardly_ever_come(estimator: str, family: str, logit: float) -> None:
    problem = PROBLEMS["quadratic"](family=family, dim=2, categories=3).at("mid")
    spread = torch.linspace(-1, 0.7, problem.theta.numel(), dtype=torch.float64).reshape(problem.theta.shape)
    theta = logit * spread if logit else problem.theta
    trial = prepare(ESTIMATORS[estimator](), replace(problem, theta=theta, objective=Elbo(), exact=None, points={}), 7)
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(40)).numpy()
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(in_plain_python(kernel, range(40)), wanted, rtol=0, atol=2e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_states_as_likely_as_one_another_are_summed_in_their_order(family: str, dtype: str) -> None:
    """Whatever the rounding of log q."""
    assert enumeration.STEPS == sum_and_sample.STEPS
    problem = PROBLEMS["quadratic"](family=family, dim=4, categories=3).at("mid")
    level = torch.full_like(problem.theta, 0.37)
    level[1:3] -= 1.1
    even = replace(problem, theta=level, points={})
    trial = prepare(ESTIMATORS["sum_and_sample"](samples=6, baseline=True), even, 7, "", dtype)
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    g, wanted = in_plain_python(kernel, range(40)), gradients(trial, range(40)).numpy()
    far = np.abs(g - wanted).max(1) > (1e-12 if dtype == "float64" else 1e-4) * np.abs(wanted).max()
    assert far.sum() <= (0 if dtype == "float64" else 1)


@pytest.mark.parametrize("estimator", ["sum_and_sample", "score_without_replacement", "unordered_set"])
def test_the_whole_support(pair: Any, estimator: str) -> None:
    trial, kernel = pair((estimator, {"samples": 4}), ("quadratic", {"dim": 2}), "mid")
    wanted = gradients(trial, range(8)).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, range(8)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


BITWISE: list[Case] = [  # these and the next share all of their parts
    (("score_without_replacement", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("stratified", {}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
]
SINGLE: list[Case] = [
    (("sum_and_sample", {"samples": 3}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("unordered_set", {"samples": 3}), ("bernoulli_toy", {"dim": 3}), "mid"),
]


@pytest.mark.parametrize("case", BITWISE, ids=lambda case: label(case[0]))
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Any) -> None:
    (estimator, settings), (problem, dim), point = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**dim).at(point), 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", SINGLE, ids=lambda case: label(case[0]))
def test_in_single_precision_it_is_the_torch_form_but_for_draws_at_a_threshold(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(4096)).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4
