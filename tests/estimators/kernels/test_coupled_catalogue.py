"""Kernels of the coupled estimators of bits and of categories: the torch form's gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import gradients, prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from problems.base import Problem
from problems.objectives import ImportanceWeighted
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Named = tuple[str, dict[str, Any]]
Case = tuple[Named, Named, str]

TOY: Named = ("bernoulli_toy", {})
QUADRATIC: Named = ("quadratic", {"dim": 5})
SITES: Named = ("quadratic", {"family": "categorical", "dim": 3, "categories": 4})
MANY = {"family": "categorical", "dim": 2, "categories": 7}
PAIRS: Named = ("quadratic", {"family": "categorical", "dim": 2, "categories": 2})
BOUND: Named = ("tiny_sbn", {"hidden": 3, "data": 2, "samples": 3})
CASES: list[Case] = [
    (("ar", {}), TOY, "converged"),
    (("ar", {"samples": 3}), QUADRATIC, "mid"),
    (("bitflip", {}), TOY, "converged"),
    (("bitflip", {}), ("bernoulli_toy", {"dim": 1}), "mid"),
    (("ugc", {}), QUADRATIC, "converged"),
    (("ugc", {"clip": 1.5}), QUADRATIC, "mid"),
    (("ars", {}), SITES, "mid"),
    (("ars", {"plus": True}), SITES, "mid"),
    (("ars", {"plus": True}), PAIRS, "mid"),
    (("arsm", {"plus": True}), SITES, "mid"),
    (("arsm", {}), SITES, "converged"),
    (("arsm", {}), PAIRS, "mid"),
    (("disarm_categorical", {}), SITES, "mid"),
    (("disarm_categorical", {"samples": 4, "order": "descending"}), SITES, "converged"),
    (("disarm_categorical", {"order": "given"}), SITES, "mid"),
    (("disarm_categorical", {"form": "importance_weighted"}), SITES, "init"),
    (("disarm_categorical", {"form": "tree", "samples": 4}), SITES, "mid"),
    (("disarm_categorical", {"form": "tree", "order": "given"}), ("quadratic", MANY), "mid"),
    (("disarm_categorical", {"order": "descending"}), ("quadratic", MANY), "mid"),
    (("disarm_categorical", {"form": "importance_weighted", "samples": 4}), PAIRS, "mid"),
]
ROWS: Named = ("sbn", {"hidden": 4, "data": 6, "batch": 3})
MIXTURE: Named = ("mixture", {"data": 5})
DATA: list[Case] = [  # a bound, an encoder and a model; the rows of ROWS are drawn for each replicate
    (("ar", {"samples": 2}), ROWS, "init"),
    (("bitflip", {}), ROWS, "init"),
    (("ugc", {"clip": 1.9}), ROWS, "init"),
    (("ars", {}), MIXTURE, "init"),
    (("arsm", {}), MIXTURE, "init"),
    (("disarm_categorical", {"samples": 4}), MIXTURE, "init"),
    (("disarm_categorical", {"form": "importance_weighted"}), ("alignment", {}), "mid"),
    (("vimco_disarm", {}), BOUND, "init"),
    (("vimco_disarm", {"weights": "apart"}), BOUND, "init"),
]
SMALL: list[Case] = [
    (("ar", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("bitflip", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("ugc", {}), ("bernoulli_toy", {"dim": 3}), "mid"),
    (("ars", {"plus": True}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
    (("arsm", {"plus": True}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
    (("disarm_categorical", {"form": "tree"}), ("quadratic", {"family": "categorical", "dim": 2}), "mid"),
    (
        ("disarm_categorical", {"form": "importance_weighted"}),
        ("quadratic", {"family": "categorical", "dim": 2}),
        "mid",
    ),
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


CATEGORIES: list[Named] = [
    ("ars", {}),
    ("ars", {"plus": True}),
    ("arsm", {}),
    ("arsm", {"plus": True}),
    ("disarm_categorical", {"samples": 4}),
    ("disarm_categorical", {"form": "importance_weighted"}),
    ("disarm_categorical", {"form": "tree"}),
]


@pytest.mark.parametrize(("estimator", "settings"), CATEGORIES, ids=str)
def test_categories_whose_rows_are_drawn_for_each_replicate(estimator: str, settings: dict[str, Any]) -> None:
    problem = replace(PROBLEMS["mixture"](data=5), batch=2)
    trial = prepare(ESTIMATORS[estimator](**settings), problem, 7)
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(9, 30)).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, range(9, 30)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize(("estimator", "settings"), CATEGORIES, ids=str)
def test_categories_that_are_certain_and_ties(estimator: str, settings: dict[str, Any]) -> None:
    """Logits up to 800; every entry finite."""
    sites = PROBLEMS["quadratic"](family="categorical", dim=3)
    theta = torch.tensor([[30.0, -30.0, 0.0], [-800.0, 800.0, 800.0], [0.3, 0.3, 0.3]], dtype=torch.float64)
    trial = prepare(ESTIMATORS[estimator](**settings), replace(sites, theta=theta, points={}), 7)
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(60)).numpy()
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(in_plain_python(kernel, range(60)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("weights", ["paired", "apart"])
def test_bounds_of_bits(samples: int, weights: str) -> None:
    problem = bounded(samples)
    trial = prepare(ESTIMATORS["vimco_disarm"](weights=weights), problem, 7)
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(50)).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, range(50)), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def bounded(samples: int) -> Problem:
    """The bound of so many samples of three bits."""
    return replace(PROBLEMS["quadratic"](dim=3).at("mid"), objective=ImportanceWeighted(samples), exact=None)


def test_a_bound_of_bits_compiled() -> None:
    trial = prepare(ESTIMATORS["vimco_disarm"](), bounded(2), 7)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


def test_a_bound_of_bits_in_single_precision() -> None:
    trial = prepare(ESTIMATORS["vimco_disarm"](), bounded(2), 7, dtype="float32")
    kernel = lazy_kernel_for(trial)
    assert kernel is not None
    wanted = gradients(trial, range(4096)).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4
