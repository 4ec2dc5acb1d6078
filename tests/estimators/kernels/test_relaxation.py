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
from problems.base import Problem
from problems.objectives import Elbo
from tests.estimators.kernels.test_parity import by_plain_python, label

Named = tuple[str, dict[str, Any]]

TOY, BITS = ("bernoulli_toy", {}), ("quadratic", {"dim": 5})
SITES = ("quadratic", {"family": "categorical", "dim": 3, "categories": 4})
PAIRS = ("quadratic", {"family": "categorical", "dim": 2, "categories": 2})
CASES: list[tuple[Named, Named, str]] = [
    (("gumbel_softmax", {}), TOY, "mid"),
    (("gumbel_softmax", {"temperature": 0.3}), BITS, "converged"),
    (("gumbel_softmax", {"temperature": 0.3}), SITES, "converged"),
    (("gumbel_straight_through", {}), BITS, "mid"),
    (("gumbel_straight_through", {"temperature": 2.0}), TOY, "converged"),
    (("gumbel_straight_through", {"temperature": 0.5}), SITES, "mid"),
    (("straight_through", {}), BITS, "mid"),
    (("straight_through", {}), SITES, "converged"),
    (("reinmax", {}), BITS, "converged"),
    (("reinmax", {"temperature": 1.5}), TOY, "mid"),
    (("reinmax", {"temperature": 0.7}), SITES, "mid"),
    (("rebar", {}), TOY, "mid"),
    (("rebar", {"temperature": 0.1, "eta": 0.3}), BITS, "converged"),
    (("rebar", {"steps": 5}), BITS, "mid"),
    (("rebar", {}), SITES, "converged"),
    (("rebar", {"temperature": 2.0, "eta": 1.7}), PAIRS, "mid"),
    (("relax", {"steps": 5}), TOY, "converged"),
    (("relax", {"hidden": 3, "steps": 20}), SITES, "mid"),
    (("muprop", {}), BITS, "mid"),
    (("muprop", {"samples": 3}), SITES, "converged"),
    (("double_cv", {"steps": 20}), BITS, "converged"),
    (("double_cv", {"samples": 4, "steps": 20, "lr": 0.05}), SITES, "mid"),
]
EVERY: list[Named] = [
    ("gumbel_softmax", {"temperature": 0.6}),
    ("gumbel_straight_through", {"temperature": 0.6}),
    ("straight_through", {}),
    ("reinmax", {"temperature": 1.3}),
    ("rebar", {"eta": 0.8}),
    ("relax", {"hidden": 4, "steps": 3}),
    ("muprop", {"samples": 2}),
    ("double_cv", {"samples": 3, "steps": 10}),
]
SUMS: list[tuple[Named, Named]] = [  # with data, encoders, models: those whose draws differ in kind
    (("gumbel_softmax", {"temperature": 0.6}), ("mixture", {"data": 3})),
    (("gumbel_straight_through", {}), ("mixture", {"data": 3})),
    (("rebar", {}), ("mixture", {"data": 3})),
    (("reinmax", {"temperature": 1.3}), ("alignment", {})),
    (("relax", {"steps": 3}), ("alignment", {})),
    (("muprop", {"samples": 2}), ("alignment", {})),
    (("rebar", {}), ("tiny_sbn", {})),
    (("gumbel_softmax", {}), ("tiny_sbn", {})),
    (("double_cv", {"steps": 10}), ("tiny_sbn", {})),
    (("straight_through", {}), ("shared_logit_toy", {})),
]
DRAWN: list[Named] = [("rebar", {}), ("reinmax", {"temperature": 1.3}), ("muprop", {"samples": 2})]


def agree(trial: Trial, kernel: cpu.Kernel, replicates: range) -> None:
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    np.testing.assert_allclose(kernel.gradients(replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def bound(problem: Problem) -> Problem:
    return replace(problem, objective=Elbo(), name="bound", points={})


def kernel_of(trial: Trial) -> cpu.Kernel:
    kernel = lazy_kernel_for(trial, learn(trial)[0])
    assert kernel is not None
    return kernel


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Named, problem: Named, point: str) -> None:
    agree(*pair(estimator, problem, point), range(1021, 2085))  # neither end at a block's


@pytest.mark.parametrize("problem", [TOY, PAIRS], ids=label)
@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_kernel_of_a_bound_is_the_torch_form(estimator: Named, problem: Named) -> None:
    trial = prepare(
        ESTIMATORS[estimator[0]](**estimator[1]), bound(PROBLEMS[problem[0]](**problem[1]).at("mid")), 3, "mid"
    )
    agree(trial, kernel_of(trial), range(509, 1301))


@pytest.mark.parametrize(("estimator", "problem"), SUMS, ids=label)
def test_kernel_of_a_sum_over_data_is_the_torch_form(pair: Any, estimator: Named, problem: Named) -> None:
    agree(*pair(estimator, problem), range(253, 401))


@pytest.mark.parametrize("estimator", DRAWN, ids=label)
def test_kernel_of_drawn_data_is_the_torch_form(pair: Any, estimator: Named) -> None:
    agree(*pair(estimator, ("sbn", {"data": 6, "batch": 2})), range(253, 401))


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_compiled_without_contraction_is_plain_python_to_the_bit(estimator: Named, family: str) -> None:
    problem = PROBLEMS["quadratic"](family=family, dim=2).at("mid")
    trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), problem, 7, "mid")
    exact = cpu.kernel(trial.estimator, trial.problem, learn(trial)[0], trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("problem", [TOY, SITES], ids=label)
@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_in_float32(pair: Any, estimator: Named, problem: Named) -> None:
    trial, kernel = pair(estimator, problem, "mid", "float32")
    replicates = range(0, 4096)
    wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
    error = np.abs(kernel.gradients(replicates) - wanted).max(-1)
    assert (error > 1e-3 * np.abs(wanted).max()).sum() <= 4


@pytest.mark.parametrize("estimator", EVERY, ids=label)
def test_extreme_logits_lose_nothing(estimator: Named) -> None:
    """Probabilities that round to 0 and 1."""
    for problem in (
        replace(PROBLEMS["bernoulli_toy"](dim=4), theta=torch.tensor([-800.0, -38.0, 38.0, 800.0]).double()),
        replace(PROBLEMS["quadratic"](1, "categorical", 3), theta=torch.tensor([[-800.0, 0.0, -38.0]]).double()),
    ):
        trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), replace(problem, points={}))
        kernel, replicates = kernel_of(trial), range(512)
        wanted = gradients(trial, replicates, learn(trial)[0]).numpy()
        np.testing.assert_allclose(kernel.gradients(replicates), wanted, rtol=1e-9, atol=1e-15)
