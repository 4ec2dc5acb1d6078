"""Kernels of Gumbel-Rao and of gapped and decoupled straight-through: the torch form's gradient of the same replicate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import Trial, gradients, prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from estimators.kernels import cpu
from problems import PROBLEMS
from problems.objectives import Elbo
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Named = tuple[str, dict[str, Any]]

TOY, SITES = ("bernoulli_toy", {}), ("quadratic", {"family": "categorical", "dim": 2})
EVERY: list[Named] = [
    ("gumbel_rao", {"temperature": 0.6, "samples": 3}),
    ("gapped_straight_through", {"temperature": 0.7, "gap": 0.4}),
    ("gapped_straight_through", {"adaptive": True}),
    ("decoupled_straight_through", {"forward": 1.6, "backward": 0.8}),
    ("decoupled_straight_through", {"backward": 2.0}),
]
SUMS: list[tuple[Named, Named]] = [
    (EVERY[0], ("alignment", {})),
    (EVERY[1], ("mixture", {"data": 3})),
    (EVERY[2], ("sbn", {"data": 6, "batch": 2})),
    (EVERY[3], ("tiny_sbn", {})),
    (EVERY[3], ("alignment", {})),
]
PAIR: Named = ("bernoulli_toy", {"dim": 2})
EXACT = [(EVERY[0], SITES), (EVERY[1], SITES), (EVERY[2], PAIR), (EVERY[3], SITES), (EVERY[3], PAIR)]
SINGLE = [(EVERY[0], TOY), (EVERY[2], SITES), (EVERY[3], TOY)]


def agree(trial: Trial, replicates: range) -> None:
    kernel = lazy_kernel_for(trial, None)
    assert kernel is not None
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("problem", [TOY, SITES], ids=label)
@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_kernel_is_the_torch_form(estimator: Named, problem: Named) -> None:
    """Of an expectation, and of a bound."""
    there = PROBLEMS[problem[0]](**problem[1]).at("converged")
    for objective in (there.objective, Elbo()):
        agree(prepare(ESTIMATORS[estimator[0]](**estimator[1]), replace(there, objective=objective)), range(1021, 1055))


@pytest.mark.parametrize(("estimator", "problem"), SUMS, ids=label)
def test_kernel_of_a_sum_over_data_is_the_torch_form(pair: Any, estimator: Named, problem: Named) -> None:
    agree(pair(estimator, problem)[0], range(253, 265))


@pytest.mark.parametrize(("estimator", "problem"), EXACT, ids=label)
def test_compiled_without_contraction_is_plain_python_to_the_bit(estimator: Named, problem: Named) -> None:
    there = PROBLEMS[problem[0]](**problem[1]).at("mid")
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), there, 7, "mid")
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize(("estimator", "problem"), SINGLE, ids=label)
def test_in_float32(pair: Any, estimator: Named, problem: Named) -> None:
    trial, kernel = pair(estimator, problem, "mid", "float32")
    replicates = range(0, 4096)
    wanted = gradients(trial, replicates).numpy()
    error = np.abs(kernel.gradients(replicates) - wanted).max(-1)
    assert (error > 1e-3 * np.abs(wanted).max()).sum() <= 4  # draws at a threshold


@pytest.mark.parametrize("problem", [TOY, SITES], ids=label)
@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_probabilities_that_round_to_0_and_1_lose_nothing(estimator: Named, problem: Named) -> None:
    there = PROBLEMS[problem[0]](**problem[1])
    theta = torch.tensor([-800.0, -38.0, -2.0, 1.0, 38.0, 800.0], dtype=torch.float64).reshape(there.theta.shape)
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), replace(there, theta=theta))
    kernel, replicates = lazy_kernel_for(trial, None), range(60)
    assert kernel is not None
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=1e-9, atol=1e-15)
