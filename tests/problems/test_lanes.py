"""f over lanes is f: its values and its gradients in x and in the model, where lanes share a datum and where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from estimators.base import size_of
from estimators.kernels.backend import plain
from estimators.kernels.base import Here, Shape
from estimators.kernels.lift import model_of
from problems import PROBLEMS
from problems.base import Problem

L = 4
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("linear_gaussian", {"dim": 3, "data": 2}, "converged"),
    ("linear_gaussian", {"dim": 2, "samples": 3}, "mid"),
    ("linear_gaussian", {"dim": 2, "objective": "inclusive_kl"}, "mid"),
    ("mixture", {}, "init"),
    ("mixture", {"categories": 4, "dim": 3, "data": 5}, "init"),
    ("mixture", {"objective": "inclusive_kl"}, "mid"),
    ("alignment", {}, "init"),
    ("alignment", {"words": 3, "vocabulary": 5, "sentences": 2}, "init"),
    ("shared_logit_toy", {}, "init"),
    ("shared_logit_toy", {"form": "categorical"}, "low_entropy"),
]


def points(problem: Problem) -> torch.Tensor:
    """One point off the support for each lane: `[L, *event]`."""
    return torch.randn(L, *size_of(problem).event, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def here(problem: Problem, rows: torch.Tensor | None, rooms: int, table: np.ndarray | None) -> Here:
    """rows `[L or 1, F]`: the datum of each lane, or of all."""
    event, none, M = size_of(problem).event, np.zeros((1, 1)), 0 if problem.model is None else problem.model.numel()
    return Here(
        par=none,
        row=none if rows is None else np.ascontiguousarray(rows.T),
        datum=none,
        model=np.zeros(1) if problem.model is None else problem.model.numpy(),
        table=none if table is None else table,
        state=none,
        moved=np.zeros((M, L)),
        buf=none,
        z=np.zeros((*event, L), complex),
        room=np.full((rooms + 1, L), np.nan),
        first=none,
        tag=none,
        key=none,
    )


def with_rows(problem: Problem) -> list[tuple[int, torch.Tensor | None]]:
    """S, and rows of data: the last one for all lanes; a row for each."""
    if problem.data is None:
        return [(0, None)]
    return [(0, problem.data[-1:]), (1, problem.data[torch.arange(L) % problem.rows])]


def title(value: Any) -> str:
    return str(value).replace(" ", "")


@pytest.mark.parametrize(("name", "settings", "point"), CASES, ids=title)
def test_lanes_are_f_and_its_gradients(name: str, settings: dict[str, Any], point: str) -> None:
    problem = PROBLEMS[name](**settings).at(point)
    size = size_of(problem)
    for S, rows in with_rows(problem):
        shape = Shape(size.event, int(np.prod(size.theta)), size.samples)
        own = model_of(plain(), problem.scalar_f, problem.lanes, shape, L, S)
        c = here(problem, rows, own.rooms, own.table)
        x = points(problem)
        lanes = np.ascontiguousarray(x.movedim(0, -1).numpy())
        out, slope, weight = np.empty(L), np.empty_like(lanes), np.linspace(-1, 2, L)
        f, df, credit = own.f, own.df, own.credit
        assert df is not None
        assert credit is not None
        with np.errstate(over="ignore"):
            f(out, lanes, c)
            df(slope, lanes, c)
            c.moved[:] = 1
            credit(c.moved, lanes, weight, c)
        fx, dfx, dmodel = by_torch(problem, x, rows, weight)
        np.testing.assert_allclose(out, fx, rtol=1e-13)
        np.testing.assert_allclose(slope, np.moveaxis(dfx, 0, -1), rtol=1e-12, atol=1e-13)
        if problem.model is not None:
            np.testing.assert_allclose(c.moved - 1, dmodel, rtol=1e-12, atol=1e-13)


def by_torch(
    problem: Problem, x: torch.Tensor, rows: torch.Tensor | None, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f `[L]`, its gradient in x `[L, *event]`, and weight times that in the model `[M, L]`, lane by lane."""
    found: list[tuple[Any, ...]] = []
    for l in range(L):
        at = x[l].clone().requires_grad_()
        model = None if problem.model is None else problem.model.clone().requires_grad_()
        row = None if rows is None else rows[l % len(rows)][None]
        value = problem.value(at if row is None else at[None], model, row).sum()
        leaves = [at] if model is None else [at, model]
        dx, *dmodel = torch.autograd.grad(value, leaves)
        found.append((value.item(), dx.numpy(), *(weight[l] * g.numpy() for g in dmodel)))
    fx, dfx, *rest = (np.stack(part) for part in zip(*found, strict=True))
    return fx, dfx, rest[0].T if rest else np.zeros((0, L))


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, settings, _ in CASES], ids=title)
def test_every_point_has_the_same_lanes(name: str, settings: dict[str, Any]) -> None:
    """What is compiled is found again by what it computes, which is not where the problem is."""
    from estimators.kernels.lift import digest

    def one(problem: Problem) -> str:
        return digest(problem.lanes or problem.scalar_f)  # type: ignore[arg-type]

    problem = PROBLEMS[name](**settings)
    assert {one(problem.at(point)) for point in problem.point_names()} == {one(PROBLEMS[name](**settings))}
