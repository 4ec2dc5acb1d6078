"""Kernels of learned control variates, RODEO, LAX and DLAX: the torch form's gradient of the same replicate."""

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

TOY, SITES, NORMAL = (
    ("bernoulli_toy", {}),
    ("quadratic", {"family": "categorical", "dim": 2}),
    ("gaussian_cost", {"dim": 2}),
)
RODEO: Named = ("rodeo", {"samples": 3, "hidden": 4, "steps": 3})
PAIR: Named = ("rodeo", {"hidden": 3, "steps": 3})
LAX: Named = ("lax", {"hidden": 4, "steps": 3})
DLAX: Named = ("dlax", {"hidden": 4, "steps": 3})
EVERY: list[tuple[Named, Named, str]] = [
    (RODEO, TOY, "mid"),
    (PAIR, SITES, "converged"),
    (DLAX, TOY, "converged"),
    (DLAX, SITES, "mid"),
    (LAX, NORMAL, "narrow"),
]
CASES: list[tuple[Named, Named, str]] = [
    *EVERY,
    (PAIR, TOY, "converged"),
    (RODEO, SITES, "mid"),
    (LAX, ("gaussian_cost", {"cost": "exp"}), "wide"),
]
COMPILED: list[tuple[Named, Named, str]] = [
    (PAIR, SITES, "mid"),
    (DLAX, ("bernoulli_toy", {"dim": 2}), "mid"),
    (LAX, ("gaussian_cost", {}), "narrow"),
]
SUMS: list[tuple[Named, Named]] = [
    (PAIR, ("tiny_sbn", {})),
    (PAIR, ("mixture", {"data": 3})),
    (PAIR, ("sbn", {"data": 6, "batch": 2, "hidden": 3})),
    (DLAX, ("sbn", {"data": 6, "batch": 2, "hidden": 3})),
    (DLAX, ("alignment", {})),
    (LAX, ("bayes_logreg", {"data": 20})),
    (LAX, ("linear_gaussian", {"dim": 2, "data": 2})),
]


def strayed(trial: Trial) -> dict[str, torch.Tensor]:
    """What was learned, with coefficients that leave no term out."""
    state = learn(trial)[0]
    assert state is not None
    return {**state, "alpha": torch.tensor(0.7).to(trial.dtype), "beta": torch.tensor(-0.6).to(trial.dtype)}


def agree(trial: Trial, replicates: range) -> None:
    state = strayed(trial)
    kernel = lazy_kernel_for(trial, state)
    assert kernel is not None
    wanted = gradients(trial, replicates, state).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def trial_of(estimator: Named, problem: Named, point: str, dtype: str = "float64") -> Trial:
    return prepare(
        ESTIMATORS[estimator[0]](**estimator[1]), PROBLEMS[problem[0]](**problem[1]).at(point), 7, point, dtype
    )


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(estimator: Named, problem: Named, point: str) -> None:
    agree(trial_of(estimator, problem, point), range(1021, 1055))


@pytest.mark.parametrize(("estimator", "problem", "point"), EVERY, ids=label)
def test_kernel_of_a_bound_is_the_torch_form(estimator: Named, problem: Named, point: str) -> None:
    there = replace(PROBLEMS[problem[0]](**problem[1]).at(point), objective=Elbo())
    agree(prepare(ESTIMATORS[estimator[0]](**estimator[1]), there, 3, point), range(509, 543))


@pytest.mark.parametrize(("estimator", "problem"), SUMS, ids=label)
def test_kernel_of_a_sum_over_data_is_the_torch_form(estimator: Named, problem: Named) -> None:
    agree(trial_of(estimator, problem, "init"), range(253, 265))


@pytest.mark.parametrize(("estimator", "problem", "point"), COMPILED, ids=label)
def test_compiled_without_contraction_is_plain_python_to_the_bit(estimator: Named, problem: Named, point: str) -> None:
    trial = trial_of(estimator, problem, point)
    exact = cpu.kernel(trial.estimator, trial.problem, strayed(trial), trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize(("estimator", "problem", "point"), COMPILED, ids=label)
def test_in_float32(estimator: Named, problem: Named, point: str) -> None:
    trial = trial_of(estimator, problem, point, "float32")
    state, replicates = strayed(trial), range(0, 4096)
    kernel = lazy_kernel_for(trial, state)
    assert kernel is not None
    wanted = gradients(trial, replicates, state).numpy()
    error = np.abs(kernel.gradients(replicates) - wanted).max(-1)
    assert (error > 1e-3 * np.abs(wanted).max()).sum() <= 4  # draws at a threshold


@pytest.mark.parametrize(("estimator", "problem"), [(PAIR, TOY), (PAIR, SITES), (DLAX, TOY), (DLAX, SITES)], ids=label)
def test_probabilities_that_round_to_0_and_1_lose_nothing(estimator: Named, problem: Named) -> None:
    there = PROBLEMS[problem[0]](**problem[1])
    theta = torch.tensor([-800.0, -38.0, -2.0, 1.0, 38.0, 800.0], dtype=torch.float64).reshape(there.theta.shape)
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), replace(there, theta=theta))
    state, replicates = strayed(trial), range(60)
    kernel = lazy_kernel_for(trial, state)
    assert kernel is not None
    wanted = gradients(trial, replicates, state).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=1e-9, atol=1e-13)
