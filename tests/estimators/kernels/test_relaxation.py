"""Kernels of relaxations and of estimators that use f's gradient: the torch form's gradient of the same replicate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import Trial, gradients, learn, prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from problems.objectives import Elbo
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Named = tuple[str, dict[str, Any]]

TOY, SITES = ("bernoulli_toy", {}), ("quadratic", {"family": "categorical", "dim": 2})
EVERY: list[Named] = [
    ("gumbel_softmax", {"temperature": 0.6}),
    ("gumbel_straight_through", {"temperature": 0.5}),
    ("straight_through", {}),
    ("reinmax", {"temperature": 1.3}),
    ("rebar", {"temperature": 0.3, "eta": 0.8}),
    ("relax", {"hidden": 4, "steps": 3}),
    ("muprop", {"samples": 2}),
    ("double_cv", {"samples": 3, "steps": 10}),
]
COUPLED: list[dict[str, Any]] = [
    {"coupling": "tied", "temperature": 0.3, "eta": 0.8},
    {"relaxation": "muprop", "steps": 2},
    {"coupling": "tied", "relaxation": "muprop", "temperature": 2.0},
]
CASES: list[tuple[Named, Named, str]] = [
    *((estimator, TOY, "mid") for estimator in EVERY),
    *((estimator, SITES, "converged") for estimator in EVERY),
    (("reinmax", {}), ("quadratic", {"dim": 5}), "converged"),
    (("rebar", {"steps": 5}), ("quadratic", {"dim": 5}), "mid"),
    (("double_cv", {"steps": 20}), ("quadratic", {"dim": 5}), "converged"),
    (("muprop", {"linear": False, "eta": 0.7}), TOY, "mid"),
    (("muprop", {"linear": False, "steps": 5}), SITES, "mid"),
    (("muprop", {"samples": 2, "steps": 5}), SITES, "mid"),
    *((("rebar", settings), problem, "mid") for settings in COUPLED for problem in (TOY, SITES)),
]
SUMS: list[tuple[Named, Named]] = [
    (("gumbel_softmax", {"temperature": 0.6}), ("mixture", {"data": 3})),
    (("reinmax", {"temperature": 1.3}), ("alignment", {})),
    (("rebar", {}), ("tiny_sbn", {})),
    (("muprop", {"samples": 2}), ("sbn", {"data": 6, "batch": 2})),
    (("rebar", {}), ("sbn", {"data": 6, "batch": 2})),
]
BOUNDS = list(zip(EVERY, [TOY, SITES] * 4, strict=True))
SINGLE = list(zip(EVERY, [SITES, TOY] * 4, strict=True))
EXACT = [
    *((estimator, SITES) for estimator in EVERY),
    *((EVERY[i], ("bernoulli_toy", {"dim": 2})) for i in (1, 3, 4, 5, 6)),
]


def agree(trial: Trial, kernel: cpu.Kernel, replicates: range) -> None:
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def kernel_of(trial: Trial) -> cpu.Kernel:
    kernel = lazy_kernel_for(trial, learn(trial)[0])
    assert kernel is not None
    return kernel


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Named, problem: Named, point: str) -> None:
    agree(*pair(estimator, problem, point), range(1021, 1055))


@pytest.mark.parametrize(("estimator", "problem"), BOUNDS, ids=label)
def test_kernel_of_a_bound_is_the_torch_form(estimator: Named, problem: Named) -> None:
    there = PROBLEMS[problem[0]](**problem[1]).at("mid")
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), replace(there, objective=Elbo()), 3, "mid")
    agree(trial, kernel_of(trial), range(509, 543))


@pytest.mark.parametrize(("estimator", "problem"), SUMS, ids=label)
def test_kernel_of_a_sum_over_data_is_the_torch_form(pair: Any, estimator: Named, problem: Named) -> None:
    agree(*pair(estimator, problem), range(253, 265))


@pytest.mark.parametrize(("estimator", "problem"), EXACT, ids=label)
def test_compiled_without_contraction_is_plain_python_to_the_bit(estimator: Named, problem: Named) -> None:
    there = PROBLEMS[problem[0]](**problem[1]).at("mid")
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), there, 7, "mid")
    exact = cpu.kernel(trial.estimator, trial.problem, learn(trial)[0], trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize(("estimator", "problem"), SINGLE, ids=label)
def test_in_float32(pair: Any, estimator: Named, problem: Named) -> None:
    trial, kernel = pair(estimator, problem, "mid", "float32")
    replicates = range(0, 4096)
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    error = np.abs(kernel.gradients(replicates) - wanted).max(-1)
    assert (error > 1e-3 * np.abs(wanted).max()).sum() <= 4  # draws at a threshold


@pytest.mark.parametrize("problem", [TOY, SITES], ids=label)
@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_probabilities_that_round_to_0_and_1_lose_nothing(estimator: Named, problem: Named) -> None:
    there = PROBLEMS[problem[0]](**problem[1])
    theta = torch.tensor([-800.0, -38.0, -2.0, 1.0, 38.0, 800.0], dtype=torch.float64).reshape(there.theta.shape)
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), replace(there, theta=theta))
    kernel, replicates = kernel_of(trial), range(60)
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=1e-9, atol=1e-15)
