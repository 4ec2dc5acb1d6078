"""Kernels of problems with data, an encoder and a model: the torch form's gradients, of all the data and of rows drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators import ESTIMATORS
from estimators.kernels import block, cpu
from estimators.kernels.backend import Backend, plain
from estimators.kernels.philox import replicates_of
from estimators.noise import PILOT, rows_without_replacement
from problems import PROBLEMS
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.lanes import Kit, LaneModel
from tests.estimators.kernels.test_parity import by_plain_python, in_plain_python, label

TINY, DRAWN = ("tiny_sbn", {}), ("sbn", {"hidden": 4, "data": 6, "batch": 3})
CASES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]] = [
    (("reinforce", {"samples": 2, "baseline": -9.0}), TINY, "init"),
    (("rloo", {"samples": 3}), TINY, "init"),
    (("arm", {}), TINY, "init"),
    (("disarm", {"samples": 4}), TINY, "init"),
    (("rloo", {"samples": 2}), ("sbn", {"data": 4, "batch": 0}), "init"),
    (("disarm", {}), ("sbn", {"data": 1, "batch": 0}), "init"),
    (("reinforce", {}), DRAWN, "init"),
    (("rloo", {"samples": 2}), ("sbn", {}), "init"),
    (("rloo", {"samples": 3}), ("sbn", {"hidden": 3, "data": 2, "batch": 2}), "init"),
    (("arm", {}), DRAWN, "init"),
    (("disarm", {}), ("sbn", {"hidden": 5, "data": 3, "batch": 1}), "init"),
]


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(251, 259)
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(in_plain_python(kernel, replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("problem", [("tiny_sbn", {"hidden": 2, "data": 2}), DRAWN], ids=label)
def test_compiled_without_contraction_is_plain_python_to_the_bit(problem: Any) -> None:
    trial = prepare(ESTIMATORS["rloo"](samples=2), PROBLEMS[problem[0]](**problem[1]), 7, "init")
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


def weighted(kit: Kit) -> LaneModel:
    """f = model . x, of two bits."""
    L, ZERO = kit.L, kit.real(0)

    @kit.jit
    def f(out, x, c):  # type: ignore[no-untyped-def]
        out[:] = ZERO
        for d in range(2):
            for l in range(L):
                out[l] += x[d, l] * c.model[d]

    @kit.jit
    def credit(m, x, w, c):  # type: ignore[no-untyped-def]
        for d in range(2):
            for l in range(L):
                m[d, l] += w[l] * x[d, l]

    return LaneModel(f, credit=credit)


@pytest.mark.parametrize("estimator", ["reinforce", "disarm", "measure_valued_bernoulli"])
def test_a_model_without_data(estimator: str) -> None:
    """In plain Python, which checks bounds."""
    model, theta = torch.tensor([1.0, 3.0]).double(), torch.zeros(2).double()
    problem = Problem("weighted", Bernoulli, theta, lambda x, model: (x * model).sum(-1), model=model, lanes=weighted)
    trial = prepare(ESTIMATORS[estimator](), problem)
    kernel = cpu.kernel(trial.estimator, problem, None, trial.key, 0)
    wanted = gradients(trial, range(kernel.pair.lanes_of_cpu)).numpy()
    np.testing.assert_allclose(by_plain_python(kernel, block=0), wanted, rtol=1e-12)


@pytest.mark.parametrize("problem", [TINY, DRAWN], ids=label)
def test_in_float32(pair: Any, problem: Any) -> None:
    trial, kernel = pair(("rloo", {"samples": 2}), problem, "init", dtype="float32")
    wanted = gradients(trial, range(1000)).numpy()
    far = np.abs(kernel.gradients(range(1000)) - wanted).max(1) > 1e-3 * np.abs(wanted).max()
    assert far.sum() <= 1


@pytest.mark.parametrize("be", [plain(), cpu.cpu()], ids=lambda be: be.name)
@pytest.mark.parametrize(("rows", "batch"), [(1, 1), (5, 5), (30, 7), (100, 20)])
def test_rows_are_drawn_without_replacement(be: Backend, rows: int, batch: int) -> None:
    L, key, first = 64, 0x0123456789ABCDEF, 10
    draw = block.rows_drawn(SimpleNamespace(N=rows, batch=batch), be, L)  # type: ignore[arg-type]
    chosen, datum, buf = np.zeros((batch, L), np.uint64), np.full(L, 9, np.uint64), np.empty(L, np.uint32)
    with np.errstate(over="ignore"):
        draw(chosen, datum, buf, np.uint64(first), np.uint64(PILOT << 30), np.uint64(key))
    wanted = rows_without_replacement(key, PILOT, range(4 * first, 4 * first + L), rows, batch)
    assert np.array_equal(chosen.T, wanted.numpy()[replicates_of(L)])
    assert all(len(set(lane)) == batch for lane in chosen.T)


def test_of_equal_words_the_earlier_row_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def words(be: Backend, lanes: int, S: int = 0) -> Any:
        def fill(out: Any, event: int, tag: int, c: Any) -> None:
            out[:] = (7, 3, 7, 3, 9)[event]

        return fill

    monkeypatch.setattr(block.philox, "words", words)
    draw = block.rows_drawn(SimpleNamespace(N=5, batch=3), plain(), 4)  # type: ignore[arg-type]
    chosen = np.zeros((3, 4), np.uint64)
    zero = np.uint64(0)
    draw(chosen, np.zeros(4, np.uint64), np.zeros(4, np.uint32), zero, zero, zero)
    assert chosen[:, 0].tolist() == [1, 3, 0]
