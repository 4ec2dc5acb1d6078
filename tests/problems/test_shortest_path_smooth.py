"""Paths by enumeration, and the quadrature against its limits, its invariances and shifted Sobol points."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import qmc

from bench.conformance import check, failures
from estimators.control_variate_regression import control_variate_regression
from estimators.measure_valued import measure_valued_normal
from estimators.score_function import rloo
from problems.base import Problem
from problems.shortest_path_smooth import mean_of_six, paths, shortest_path_smooth
from problems.truth import true_gradient

POINTS = ["init", "mid", "converged", "narrow"]


def every_path(side: int) -> np.ndarray:
    """One row of cells 0 and 1 for each way right and down: `[paths, n n]`."""
    rows = []
    for downs in itertools.combinations(range(2 * side - 2), side - 1):
        i = j = 0
        row = np.zeros((side, side))
        row[0, 0] = 1
        for step in range(2 * side - 2):
            i, j = (i + 1, j) if step in downs else (i, j + 1)
            row[i, j] = 1
        rows.append(row.ravel())
    return np.array(rows)


def by_enumeration(x: np.ndarray, side: int, loss: str) -> np.ndarray:
    """f `[n]` of costs `[n, n n]`: the path of least sum, of all of them."""
    listed, made = every_path(side), paths(side, loss)
    best = listed[(x @ listed.T).argmin(1)]
    target = listed[(listed @ made.costs).argmin()]
    if loss == "hamming":
        return np.asarray((best * (1 - target)).sum(1))
    return np.asarray(best @ made.costs - target @ made.costs)


def gradient(problem: Problem) -> torch.Tensor:
    truth = true_gradient(problem)
    assert truth is not None
    return truth.gradient.reshape(2, -1)


@pytest.mark.parametrize("loss", ["hamming", "regret"])
@pytest.mark.parametrize("side", [2, 3, 4])
def test_f_is_the_loss_of_the_best_of_all_paths(side: int, loss: str) -> None:
    problem = shortest_path_smooth(side, loss)
    x = np.random.default_rng(5).standard_normal((400, side * side))
    wanted = by_enumeration(x, side, loss)
    assert len(every_path(side)) == math.comb(2 * side - 2, side - 1)
    assert len(set(wanted.round(9).tolist())) > 1
    there = torch.from_numpy(x)
    np.testing.assert_allclose(problem.f(there).numpy(), wanted, atol=1e-12)
    assert problem.scalar_f is not None
    assert [problem.scalar_f(row) for row in x.tolist()] == pytest.approx(wanted.tolist(), abs=1e-12)
    single = problem.f(there.reshape(2, 200, -1).float())
    assert (single.shape, single.dtype) == ((2, 200), torch.float32)
    assert torch.equal(torch.func.vmap(problem.f)(there), problem.f(there))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("side", "loss"), [(2, "regret"), (3, "hamming"), (3, "regret"), (4, "hamming")])
def test_the_gradient_is_that_of_shifted_sobol_points(side: int, loss: str, point: str) -> None:
    """E f grad log q over 16 scrambled Sobol sequences of 2^13 points, f by enumeration: |z| of Student's t of 15 below 7.

    One entry fails with probability 4e-6. side=4 has a stored reference, whose standard error counts as well.
    """
    problem = shortest_path_smooth(side, loss).at(point)
    mu, sigma = problem.theta[0].numpy(), problem.theta[1].exp().numpy()
    found = []
    for seed in range(16):
        eps = ndtri(qmc.Sobol(side * side, seed=seed).random(2**13))
        f = by_enumeration(mu + sigma * eps, side, loss)
        f = f - f.mean()
        found.append(np.stack([f @ eps / sigma, f @ (eps * eps - 1)]) / len(f))
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == {2: "closed form", 3: "quadrature", 4: "reference"}[side]
    mean, known = np.mean(found, 0), truth.gradient.reshape(2, -1).numpy()
    se = np.hypot(np.std(found, 0, ddof=1) / 4, truth.se.reshape(2, -1).numpy())
    assert float((np.abs(mean - known) / se.clip(1e-12)).max()) < 7
    assert float(np.linalg.norm(known)) > 5 * float(np.linalg.norm(se))


@pytest.mark.parametrize("loss", ["hamming", "regret"])
@pytest.mark.parametrize("point", POINTS)
def test_no_path_changes_where_an_antidiagonal_is_shifted_or_all_is_stretched(loss: str, point: str) -> None:
    problem = shortest_path_smooth(loss=loss).at(point)
    of_mu, of_log_sigma = gradient(problem)
    size = float(of_mu.norm())
    diagonal = (torch.arange(9) // 3 + torch.arange(9) % 3)[None] == torch.arange(5)[:, None]
    assert float((diagonal.double() @ of_mu).abs().max()) < 1e-10 * size
    assert abs(float((problem.theta[0] * of_mu).sum() + of_log_sigma.sum())) < 1e-10 * size
    assert not of_mu[[0, 8]].any()
    assert not of_log_sigma[[0, 8]].any()


def test_two_limits_of_the_grid_of_six() -> None:
    """A middle that is free: four paths of two independent choices. A middle that is barred: two paths."""
    losses = torch.arange(9, dtype=torch.float64).reshape(3, 3) ** 2
    theta = torch.stack([torch.linspace(-1, 1, 9).sin(), torch.linspace(0.3, -0.3, 9)]).double()
    v = (2 * theta[1]).exp()

    def better(one: list[int], other: list[int]) -> torch.Tensor:
        gap = theta[0, other].sum() - theta[0, one].sum()
        return torch.special.ndtr(gap / v[one + other].sum().sqrt())

    flat = losses.flatten()
    theta[0, 4] = -60
    p, r = better([1], [3]), better([5], [7])
    free = flat[3] + p * (flat[1] - flat[3]) + flat[4] + flat[7] + r * (flat[5] - flat[7])
    torch.testing.assert_close(mean_of_six(theta, losses, 40), free, rtol=1e-11, atol=0)
    theta[0, 4] = 60
    p = better([1, 2, 5], [3, 6, 7])
    barred = p * flat[[1, 2, 5]].sum() + (1 - p) * flat[[3, 6, 7]].sum()
    torch.testing.assert_close(mean_of_six(theta, losses, 40), barred, rtol=1e-11, atol=0)


def test_the_truth_of_larger_grids_is_no_quadrature() -> None:
    assert shortest_path_smooth(3).exact is not None
    assert shortest_path_smooth(4).exact is None
    assert true_gradient(replace(shortest_path_smooth(5), name="unheard of")) is None


def test_scales_that_the_quadrature_cannot_resolve_are_refused() -> None:
    problem = shortest_path_smooth()
    theta = problem.theta.clone()
    theta[1, ::2] = -5
    with pytest.raises(ArithmeticError, match="quadrature with 36 nodes is off by"):
        true_gradient(replace(problem, theta=theta))


def test_the_guess_has_another_path() -> None:
    for side in (2, 3, 4, 5):
        problem = shortest_path_smooth(side, "regret")
        assert float(problem.f(problem.points["narrow"].theta[0])) > 0
        assert float(problem.f(problem.points["converged"].theta[0])) == pytest.approx(0, abs=1e-12)


def test_estimators_of_three_kinds_reach_the_truth() -> None:
    for estimator in (rloo(4), measure_valued_normal(), control_variate_regression()):
        findings = check(estimator, [shortest_path_smooth(loss="regret")], replicates=2048, level=1e-4)
        assert failures(findings) == []
        assert len({f.point for f in findings}) == 4


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shortest_path_smooth\[side=1\]: side must be at least 2"):
        shortest_path_smooth(1)
    with pytest.raises(ValueError, match=r"shortest_path_smooth\[loss=length\]: loss is hamming or regret"):
        shortest_path_smooth(loss="length")
