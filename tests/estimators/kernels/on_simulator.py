"""Run by test_cuda_simulator.py, in a process of its own where numba simulates CUDA: plain Python, a thread of it for each."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import learn, prepare
from bench.kernels import block_sums_by_kernel
from bench.moments import Sums, block_sums
from estimators import ESTIMATORS
from estimators.kernels import cpu, cuda, cuda_noise, tally
from estimators.kernels.backend import plain
from estimators.kernels.block import Tables, block
from estimators.kernels.philox import replicates_of
from estimators.noise import KINDS, addressed, rows_without_replacement
from problems import PROBLEMS
from problems.families.base import Noise

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

QUADRATIC = ("quadratic", {"dim": 3})
CATEGORICAL = ("quadratic", {"family": "categorical", "dim": 2})
NORMAL = ("gaussian_cost", {"cost": "exp", "dim": 2})
Case = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str, str]
COMPILED: list[Case] = [
    (("reinforce", {"samples": 2, "baseline": 0.25}), QUADRATIC, "mid", "float64"),
    (("disarm", {}), QUADRATIC, "converged", "float32"),
    (("rloo", {"samples": 2}), CATEGORICAL, "mid", "float64"),
    (("pathwise", {}), NORMAL, "narrow", "float64"),
]
PLAIN: list[Case] = [
    (("measure_valued_normal", {}), NORMAL, "narrow", "float32"),
    (("rloo", {"samples": 2}), ("mixture", {"data": 3}), "init", "float64"),
    (("pathwise", {}), ("linear_gaussian", {"dim": 2}), "init", "float64"),
    (("disarm", {}), ("tiny_sbn", {"hidden": 2, "data": 2}), "init", "float64"),
    (("reinforce", {}), ("sbn", {"hidden": 2, "data": 4, "batch": 2}), "init", "float64"),
]


def label(case: Case) -> str:
    return f"{case[0][0]}-{case[1][0]}-{case[3]}"


def arguments(case: Case) -> tuple[Any, ...]:
    """Of `cpu.kernel` and of `cuda.kernel`."""
    (estimator, settings), (problem, its), point, dtype = case
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**its).at(point), 7, "", dtype)
    return trial.estimator, trial.problem, learn(trial)[0], trial.key, 0, dtype


def on_cuda(case: Case) -> cuda.Kernel:
    return replace(cuda.kernel(*arguments(case)), threads=16, chunk=256)


@pytest.mark.parametrize("case", COMPILED, ids=label)
def test_gradients_are_the_cpus_to_the_bit(case: Case) -> None:
    wanted = cpu.kernel(*arguments(case), contract=False).gradients(range(5, 90))
    assert np.array_equal(on_cuda(case).gradients(range(5, 90)), wanted)


@pytest.mark.parametrize("case", PLAIN, ids=label)
def test_gradients_are_those_of_another_width_to_the_bit(case: Case) -> None:
    """Of 64 lanes in plain Python, which the tests of every form hold against the CPU's."""
    kernel = on_cuda(case)
    wanted = by_plain_python(kernel, lanes=64, first=64)
    assert np.array_equal(kernel.gradients(range(69, 90)), wanted[5:26])


def by_plain_python(kernel: cuda.Kernel, lanes: int, first: int) -> np.ndarray:
    be = plain(kernel.pair.dtype)
    made = block(kernel.pair, be, lanes)
    places = zip(cuda.shapes(made), cuda.types(be), strict=True)
    g, space = np.empty((kernel.pair.P, lanes), be.real), [np.empty(shape, kind) for shape, kind in places]
    tables = Tables(*(table.copy_to_host() for table in kernel.tables))
    made.gradient(g, *space, tables, np.uint64(first // 4), np.uint64(kernel.tag), np.uint64(kernel.key))
    out = np.empty((lanes, kernel.pair.P))
    out[replicates_of(lanes)] = g.T
    return out


def test_in_global_memory_they_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    here = on_cuda((("rloo", {"samples": 3}), CATEGORICAL, "mid", "float64"))
    wanted = here.gradients(range(70))
    monkeypatch.setattr(cuda, "MOST_LOCAL", 0)
    there = replace(here, compiled=cuda.compiled(here.pair), space=None)
    assert here.compiled.space is None
    assert there.compiled.space is not None
    assert np.array_equal(there.gradients(range(70)), wanted)


@pytest.mark.parametrize("case", [COMPILED[1], PLAIN[0]], ids=label)
def test_sums_are_those_of_the_gradients(case: Case) -> None:
    kernel = on_cuda(case)
    replicates = range(200, 3 * 256 + 9)
    g = kernel.gradients(replicates)
    mean = g.mean(0)
    around = (g[:50].mean(0), mean / np.linalg.norm(mean), float(np.linalg.norm(mean)))
    assert_close(block_sums_by_kernel(kernel, *around, replicates), block_sums(g, *around, replicates.start))


def assert_close(found: Sums, wanted: Sums) -> None:
    for one in fields(Sums):
        a, b = np.asarray(getattr(found, one.name), float), np.asarray(getattr(wanted, one.name), float)
        order = {"q1": 2, "s2": 2, "top": 2, "s3": 3, "s4": 4}.get(one.name, 1)
        atol = 1e-13 * float(wanted.n.sum()) * max(float(wanted.high.max()), 1.0) ** order
        exact = one.name in ("n", "nonfinite", "zero", "pilot", "axis")
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if exact else atol, err_msg=one.name)


def test_zeros_and_what_is_not_finite_are_counted() -> None:
    """Sums of gradients put where the driver's would be: a chunk of heavy tails, one with an infinity."""
    rng, C, P, quads = np.random.default_rng(3), 2, 2, 32
    g = rng.standard_cauchy((C * quads * 4, P))
    g[rng.random(len(g)) < 0.3] = 0.0
    g[200] = np.inf
    pilot, axis = np.array([0.25, -1.0]), np.array([0.6, 0.8])
    lanes = np.ascontiguousarray(g.reshape(-1, 4, P).transpose(2, 1, 0))
    made, whole = np.zeros((cuda.MADE, 4, C * quads)), np.ones(C, np.int64)
    added, high = np.zeros((C, tally.added(P))), np.zeros((C, P + 1))
    measure, add = cuda.adding()
    measure[4, 16](made, whole, lanes, pilot, axis, float(pilot @ axis), 1e-20, quads)
    add[(C, P + cuda.MADE), cuda.SLOTS](added, high, lanes, made, pilot, quads)
    assert whole.tolist() == [1, 0]
    wanted, group = block_sums(g[:128], pilot, axis, 1.0, 0), tally.group_order()
    assert added[0, -1] == wanted.zero > 20
    for part, of in ((0, wanted.n), (1, wanted.q1), (2, wanted.cos)):
        np.testing.assert_allclose(added[0, 64 * part : 64 * part + 64], of[group], rtol=1e-13)
    s1 = added[0, 192 : 192 + 64 * (P + 1)].reshape(P + 1, 64)
    np.testing.assert_allclose(s1, wanted.s1[group].T, rtol=0, atol=1e-13 * wanted.high.max())
    powers = added[0, 192 + 64 * (P + 1) : -1].reshape(3, P + 1)
    for power, of in zip(powers, (wanted.s2, wanted.s3, wanted.s4), strict=True):
        np.testing.assert_allclose(power, of, rtol=1e-12)
    np.testing.assert_allclose(high[0], wanted.high, rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_the_hosts(kind: str) -> None:
    """The same words; log, sine and cosine are torch's there and numpy's here."""
    noise, cpu_ = Noise(kind, (2,), (3,)), torch.device("cpu")
    own = torch.tensor([[5, 0], [3, 7], [1, 2], [6, 4], [9, 8]])
    for replicates, data in ((range(6, 13), None), (range(6, 13), range(2)), (range(6, 11), own)):
        for dtype in (torch.float64, torch.float32):
            wanted = addressed(noise, 99, 1, 4, replicates, data, dtype)
            found = cuda_noise.addressed(noise, 99, 1, 4, replicates, data, dtype, cpu_)
            torch.testing.assert_close(found, wanted, rtol=1e-14 if dtype == torch.float64 else 1e-6, atol=1e-15)


def test_rows_are_the_hosts() -> None:
    wanted = rows_without_replacement(5, 0, range(3, 14), 7, 3)
    assert torch.equal(cuda_noise.rows_without_replacement(5, 0, range(3, 14), 7, 3, torch.device("cpu")), wanted)


def test_a_pair_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MOST_A_THREAD", 100)
    trial = prepare(ESTIMATORS["reinforce"](), PROBLEMS["quadratic"]())
    with pytest.raises(ValueError, match="reinforce on quadratic: a CUDA thread would work in"):
        cuda.kernel(trial.estimator, trial.problem, None, trial.key, 0)
