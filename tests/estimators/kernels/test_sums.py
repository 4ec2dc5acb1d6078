"""Sums taken by a kernel are `block_sums` of its gradients, to rounding, and the same bits however the range is cut."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients, prepare
from bench.kernels import block_sums_by_kernel, kernel_for, lazy_kernel_for
from bench.moments import Sums, block_sums, fold, to_bytes
from estimators import ESTIMATORS
from estimators.kernels import tally
from estimators.kernels.backend import plain
from estimators.kernels.cpu import CHUNK, Kernel
from estimators.kernels.philox import replicates_of
from problems import PROBLEMS

BITS = (("disarm", {}), ("quadratic", {"dim": 5}), "mid")
NORMALS = (("rloo", {"samples": 3}), ("gaussian_cost", {"dim": 3}), "wide")
HUGE = 2 * CHUNK + 900


def centre(g: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    mean = g.mean(0)
    scale = float(np.linalg.norm(mean))
    return g[:100].mean(0), mean / scale, scale


def assert_close(found: Sums, wanted: Sums) -> None:
    for field in fields(Sums):
        a, b = np.asarray(getattr(found, field.name), float), np.asarray(getattr(wanted, field.name), float)
        order = {"q1": 2, "s2": 2, "top": 2, "s3": 3, "s4": 4}.get(field.name, 1)
        counts = field.name in ("n", "nonfinite", "zero", "pilot", "axis")
        tolerance = 0 if counts else 1e-13 * float(wanted.n.sum()) * max(float(wanted.high.max()), 1.0) ** order
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=field.name)


@pytest.mark.parametrize("case", [BITS, NORMALS], ids=["bits", "normals"])
def test_sums_are_those_of_the_gradients(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case)
    g = gradients(trial, range(HUGE)).numpy()
    around = centre(g)
    assert_close(block_sums_by_kernel(kernel, *around, range(HUGE)), block_sums(g, *around, 0))
    later = range(CHUNK + 77, HUGE)
    assert_close(block_sums_by_kernel(kernel, *around, later), block_sums(g[later.start :], *around, later.start))


def test_cut_in_chunks_or_over_threads_the_bits_are_the_same(pair: Any) -> None:
    _, kernel = pair(*BITS)
    around = centre(kernel.gradients(range(CHUNK)))
    whole = to_bytes(block_sums_by_kernel(kernel, *around, range(HUGE)))
    starts = range(0, HUGE, CHUNK)
    cut = fold(block_sums_by_kernel(kernel, *around, range(a, min(a + CHUNK, HUGE))) for a in starts)
    assert to_bytes(cut) == whole
    assert all(to_bytes(block_sums_by_kernel(kernel, *around, range(HUGE), n)) == whole for n in (2, 3))


def test_zero_gradients_are_counted(pair: Any) -> None:
    _, kernel = pair(("disarm", {}), ("bernoulli_toy", {"dim": 2}), "converged")
    g = kernel.gradients(range(CHUNK))
    around = centre(g)
    found = block_sums_by_kernel(kernel, *around, range(CHUNK))
    assert found.zero == int((np.linalg.norm(g, axis=1) < 1e-10 * around[2]).sum()) > 0
    assert_close(found, block_sums(g, *around, 0))


def with_poles(which: float) -> Kernel:
    """f divides by zero at one of the eight points."""

    def scalar_f(x: Any) -> float:
        return x[0] / (1.0 - x[0] * x[1] * x[2] * which)

    p = replace(PROBLEMS["bernoulli_toy"](dim=3), f=scalar_f, lanes=None, scalar_f=scalar_f)
    kernel = lazy_kernel_for(prepare(ESTIMATORS["reinforce"](), p))
    assert kernel is not None
    return kernel


def test_gradients_that_are_not_finite_are_left_out_and_counted() -> None:
    kernel = with_poles(1.0)
    with np.errstate(invalid="ignore"):
        g = kernel.gradients(range(HUGE))
    lost = ~np.isfinite(g).all(1)
    around = (np.zeros(3), np.array([1.0, 0.0, 0.0]), 1.0)
    found = block_sums_by_kernel(kernel, *around, range(HUGE))
    assert found.nonfinite == int(lost.sum()) > HUGE / 16
    assert_close(found, block_sums(g, *around, 0))


@pytest.mark.parametrize("P", [1, 6, 11])
def test_tally_of_any_gradients_in_plain_python(P: int) -> None:
    """Groups, powers, maxima and the largest, of heavy tails; 64 lanes."""
    L, blocks = 64, 2
    g = np.random.default_rng(P).standard_cauchy((blocks * L, P))
    pilot, axis = g[:9].mean(0), np.eye(P)[0]
    added, high, top = np.zeros(tally.added(P)), np.zeros(P + 1), np.zeros(tally.TOP)
    take = tally.tally(plain(), P, L)
    lane = np.empty((4, L))
    for b in range(blocks):
        block = np.ascontiguousarray(g[b * L : (b + 1) * L][replicates_of(L)].T)
        assert take(added, high, top, lane, block, np.append(pilot, 1.0), axis, float(pilot @ axis), 0.0)
    wanted = block_sums(g, pilot, axis, 0.0, 0)
    group = tally.group_order()
    s1 = added[3 * 64 : 3 * 64 + 64 * (P + 1)].reshape(P + 1, 64)
    np.testing.assert_allclose(s1, wanted.s1[group].T, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(added[64:128], wanted.q1[group], rtol=1e-12)
    np.testing.assert_allclose(top, wanted.top, rtol=1e-12)
    np.testing.assert_allclose(high, wanted.high, rtol=1e-14)


def test_mean_of_a_kernel_agrees_with_the_exact_gradient(pair: Any) -> None:
    trial, kernel = pair(*NORMALS)
    exact = trial.problem.exact(trial.problem).reshape(-1).numpy()
    n = 16 * CHUNK
    sums = block_sums_by_kernel(kernel, exact, np.zeros(len(exact)), 1.0, range(n))
    z = sums.s1.sum(0)[:-1] / np.sqrt(sums.s2[:-1])
    assert np.abs(z).max() < 4.5


def test_kernel_for_compiles(pair: Any) -> None:
    trial, _ = pair(*BITS)
    assert kernel_for(trial) is not None
