"""The numbers of a pair at its parameters, as its kernel reads them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators.base import size_of
from estimators.kernels.block import Pair, Tables
from estimators.kernels.families import FAMILIES
from estimators.kernels.lift import looked_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.base import Estimator
    from estimators.kernels.base import Form
    from problems.base import Problem

MOST_ENTRIES = 2**25  # of a Jacobian that is looked at whole


def pair_and_tables(
    estimator: Estimator, problem: Problem, state: Mapping[str, Tensor] | None, dtype: str
) -> tuple[Pair, Tables]:
    """What a kernel is compiled for, and what it is run on. The problem's tensors are in the cell's dtype, on the CPU."""
    size, theta = size_of(problem), problem.theta.detach()
    sites = problem.site_parameters(theta).detach()
    jac, which, source, start = jacobian(problem, size.theta)
    if not (problem.encode is not None and problem.rows):
        sites = sites[None].expand(max(problem.rows, 1), *sites.shape)
    real: Any = getattr(np, dtype)
    bound = problem.objective
    model, rows = problem.model, problem.data
    pair = Pair(
        estimator=str(estimator.kernel),
        settings=tuple(sorted(estimator.settings.items())),
        family=problem.family_name,
        event=size.event,
        sites=int(np.prod(size.theta)),
        samples=bound.samples,
        ratio=bound.ratio,
        scalar_f=None if problem.lanes is not None else problem.scalar_f,
        lanes=problem.lanes,
        theta=theta.numel(),
        model=0 if model is None else model.numel(),
        N=problem.rows,
        batch=problem.batch,
        features=0 if rows is None else rows.shape[1],
        distinct=jac.shape[1],
        dtype=dtype,
        alpha=bound.alpha,
    )
    read = pair.form.state
    learned = np.zeros(1) if read is None or state is None else read(state)
    count = max(problem.rows, 1)
    tables = Tables(
        par=lane(FAMILIES[pair.family].prepare(sites), real),
        row=lane(np.zeros((count, 1)) if rows is None else rows.double().numpy(), real),
        datum=np.arange(count, dtype=np.uint64)[:, None],
        jac=lane(jac, real),
        which=which,
        source=source,
        start=start,
        model=np.ascontiguousarray(np.zeros(1) if model is None else model.detach().double().numpy(), real),
        table=np.ascontiguousarray(table(problem), real),
        state=np.ascontiguousarray(learned, real),
    )
    return pair, tables


def form_of(estimator: Estimator) -> Form:
    """The estimator's form in lanes."""
    module, factory = str(estimator.kernel).split(":")
    found: Form = getattr(import_module(module), factory)(**estimator.settings)
    return found


def lane(values: np.ndarray, real: Any) -> np.ndarray:
    """With a last axis of one, which all lanes share."""
    return np.ascontiguousarray(values[..., None], real)


def table(problem: Problem) -> np.ndarray:
    """The constants of the problem's lane model."""
    if problem.lanes is None:
        return np.zeros((1, 1))
    found = looked_at(problem.lanes).table
    return np.zeros((1, 1)) if found is None else found


def offers_hessian(problem: Problem) -> bool:
    """The problem's lane model gives second derivatives."""
    return problem.lanes is not None and looked_at(problem.lanes).hessian is not None


def jacobian(problem: Problem, site: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(jac `[N, U]`, which, source, start) of `Tables`; U = 0 without an encoder. Raises ValueError where it is too large."""
    none = np.zeros(1, np.int64)
    if problem.encode is None:
        return np.zeros((max(problem.rows, 1), 0)), none, none, np.zeros(2, np.int64)
    import torch

    theta, rows, sites = problem.theta.detach(), problem.data, int(np.prod(site))
    count = max(problem.rows, 1)
    if count * sites * theta.numel() > MOST_ENTRIES:
        raise ValueError(f"{problem.name}: the encoder's Jacobian has {count} x {sites} x {theta.numel()} entries")
    whole: torch.Tensor = torch.func.jacrev(lambda w: problem.site_parameters(w, rows).reshape(-1))(theta)
    dense = whole.double().numpy().reshape(count, sites, theta.numel()).transpose(2, 1, 0)  # [P, sites, N]
    p, s = np.nonzero((dense != 0).any(-1))
    if not len(p):
        return np.zeros((count, 1)), none, none, np.zeros(theta.numel() + 1, np.int64)
    distinct, which = np.unique(dense[p, s], axis=0, return_inverse=True)
    start = np.searchsorted(p, np.arange(theta.numel() + 1))
    return distinct.T.copy(), which.reshape(-1).astype(np.int64), s.astype(np.int64), start.astype(np.int64)
