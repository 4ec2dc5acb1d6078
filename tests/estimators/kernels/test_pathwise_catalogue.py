"""In lanes: Bonnet's and Price's theorems, shifted Sobol points, GO, Gauss-Hermite rules and antithetic pairs of any family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri

from bench.evaluate import gradients, prepare
from bench.kernels import why_no_kernel
from estimators import ESTIMATORS
from estimators.kernels import cpu
from estimators.kernels.backend import plain
from estimators.kernels.randomised_quasi_monte_carlo import quantile
from problems import PROBLEMS
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

Case = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]

COST, TOY = "gaussian_cost", ("bernoulli_toy", {"dim": 3})
REGRESSION, LINEAR = ("bayes_logreg", {"data": 20}), ("linear_gaussian", {"dim": 3})
ROWS = ("sbn", {"hidden": 4, "data": 6, "batch": 3})
RQMC = "randomised_quasi_monte_carlo"
CASES: list[Case] = [
    (("bonnet_price", {}), (COST, {"cost": "exp", "dim": 2}), "init"),
    (("bonnet_price", {"samples": 3}), (COST, {"cost": "cos", "dim": 3}), "narrow"),
    (("bonnet_price", {"samples": 2}), REGRESSION, "init"),
    (("bonnet_price", {}), LINEAR, "mid"),
    (("randomised_quasi_monte_carlo", {"samples": 8}), (COST, {"cost": "exp", "dim": 3}), "wide"),
    ((RQMC, {"samples": 4, "shifts": 2}), (COST, {"dim": 2}), "init"),
    ((RQMC, {"samples": 4}), REGRESSION, "init"),
    ((RQMC, {"samples": 2}), LINEAR, "mid"),
    ((RQMC, {"samples": 8, "randomised": False}), (COST, {"cost": "cos", "dim": 2}), "narrow"),
    ((RQMC, {"samples": 6, "shifts": 3, "gradient": "score"}), (COST, {"cost": "exp", "dim": 2}), "init"),
    ((RQMC, {"samples": 4, "gradient": "score"}), TOY, "mid"),
    ((RQMC, {"samples": 6, "shifts": 3, "gradient": "score"}), TOY, "converged"),
    ((RQMC, {"samples": 4, "shifts": 2, "gradient": "score"}), ROWS, "init"),
    ((RQMC, {"samples": 4, "gradient": "score", "randomised": False}), TOY, "mid"),
    (("go", {}), TOY, "converged"),
    (("go", {"samples": 3}), ("quadratic", {"dim": 5}), "mid"),
    (("go", {"samples": 2}), ROWS, "init"),
    (("go", {}), ("quadratic", {"family": "categorical", "dim": 3, "categories": 4}), "converged"),
    (("go", {"samples": 2}), ("mixture", {"data": 5}), "init"),
    (("quadrature_expectation", {}), (COST, {"cost": "exp", "dim": 3}), "wide"),
    (("quadrature_expectation", {"nodes": 3, "samples": 2}), REGRESSION, "init"),
    (("quadrature_expectation", {"nodes": 4}), LINEAR, "mid"),
    (("antithetic", {"samples": 4}), (COST, {"cost": "exp", "dim": 2}), "narrow"),
    (("antithetic", {"samples": 4, "gradient": "score"}), (COST, {"cost": "exp", "dim": 2}), "init"),
    (("antithetic", {"samples": 2, "gradient": "score"}), LINEAR, "mid"),
    (("antithetic", {"samples": 4, "gradient": "score"}), TOY, "converged"),
    (("antithetic", {"gradient": "score"}), ROWS, "init"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(251, 263)
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


SMALL = [CASES[1], CASES[4], CASES[11], CASES[17], CASES[19], CASES[23]]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case[0][0])
def test_compiled_without_contraction_is_plain_python_to_the_bit(case: Case) -> None:
    (estimator, settings), (problem, sizes), point = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**sizes).at(point), 7, point)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


@pytest.mark.parametrize("case", SMALL[1::2], ids=lambda case: case[0][0])
def test_in_float32(pair: Any, case: Case) -> None:
    trial, kernel = pair(*case, dtype="float32")
    wanted = gradients(trial, range(4096)).numpy()
    far = np.abs(kernel.gradients(range(4096)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 4


@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 2e-15), ("float32", 1e-6)])
def test_the_quantile(dtype: str, allowed: float) -> None:
    """Relative to 1 + |eps|; odd about one half, from one end to the other."""
    found = quantile(plain(dtype))
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, int(0.075 * 2**32), int(0.925 * 2**32)]
    words = np.array([*edges, *np.random.default_rng(1).integers(0, 2**32, 4000)], dtype=np.uint32)
    with np.errstate(over="ignore"):
        eps = np.array([found(w) for w in words], dtype=np.float64)
    wanted = ndtri((words.astype(np.float64) + 0.5) * 2.0**-32)
    assert (np.abs(eps - wanted) <= allowed * (1 + np.abs(wanted))).all()
    assert eps[0] == -eps[4]


def test_families_without_lanes_keep_to_the_torch_form() -> None:
    for estimator, settings, problem in (
        (RQMC, {"samples": 4}, "gamma_cost"),
        (RQMC, {"samples": 4, "gradient": "score"}, "poisson_cost"),
    ):
        assert why_no_kernel(prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem]()))
