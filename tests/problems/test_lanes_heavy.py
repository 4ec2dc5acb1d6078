"""Lane models written by tiles, against the torch f, its derivatives by autograd, and themselves evaluated again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from estimators.kernels.backend import Backend, cpu, plain
from estimators.kernels.base import Here
from estimators.kernels.lift import kit
from problems import PROBLEMS
from problems.base import Problem

L = 8
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("tiny_sbn", {"hidden": 1, "data": 3}),
    ("tiny_sbn", {"hidden": 6, "data": 3}),
    ("sbn", {"hidden": 16, "data": 2, "batch": 0}),
    ("bayes_logreg", {"data": 70}),
    ("gaussian_cost", {"cost": "square", "dim": 3}),
    ("gaussian_cost", {"cost": "exp", "dim": 3}),
    ("gaussian_cost", {"cost": "cos", "dim": 3, "k": 5.0}),
]
BACKENDS = [plain(), cpu()]


def label(value: Any) -> str:
    return value.name if isinstance(value, Backend) else "-".join([value[0], *map(str, value[1].values())])


class At:
    """A lane model at eight points, of which those of discrete problems are partly relaxed, each lane with a datum of its own."""

    def __init__(self, name: str, settings: dict[str, Any], be: Backend, S: int) -> None:
        self.problem: Problem = PROBLEMS[name](**settings)
        self.model = self.problem.lanes(kit(be, L, S))  # type: ignore[misc]
        rng = np.random.default_rng(5)
        self.D = self.problem.site_parameters(self.problem.theta).shape[-1]
        self.x = rng.normal(size=(self.D, L))
        if "sbn" in name:
            self.x[:, : L // 2] = rng.integers(2, size=(self.D, L // 2))
        self.v, self.w = rng.normal(size=L), rng.normal(size=L)
        data, weights = self.problem.data, self.problem.model
        which = np.arange(L) % max(self.problem.rows, 1) if S else np.zeros(L, int)
        self.row = None if data is None else data[torch.from_numpy(which)]
        self.weights = None if weights is None else weights + torch.from_numpy(rng.normal(size=len(weights)))
        no = np.zeros((1, 1))
        flat = np.zeros(1) if self.weights is None else self.weights.numpy()
        row = no if self.row is None else np.ascontiguousarray(self.row.numpy().T[:, : L if S else 1])
        table = no if self.model.table is None else self.model.table
        room = np.full((max(self.model.rooms, 1), L), np.nan)
        self.c = Here(no, row, no, flat, table, no, no, no, no, room, no, no, no)

    def torch_f(self, x: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """f of points `[L, D]`, each with the datum of its lane."""
        return self.problem.value(x, self.weights if weights is None else weights, self.row)

    def leaf(self) -> torch.Tensor:
        return torch.from_numpy(self.x.T.copy()).requires_grad_()


def models(S: int) -> list[tuple[str, dict[str, Any]]]:
    return [one for one in MODELS if not S or "sbn" in one[0]]


CASES = [(one, be, S) for S in (0, 1) for one in models(S) for be in BACKENDS]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{label(case[0])}-{label(case[1])}-{case[2]}")
def there(request: pytest.FixtureRequest) -> At:
    (name, settings), be, S = request.param
    return At(name, settings, be, S)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with np.errstate(over="ignore"):
        yield


def test_f_and_its_gradient(there: At) -> None:
    x, out, slope = there.leaf(), np.empty(L), np.empty((there.D, L))
    fx = there.torch_f(x)
    there.model.f(out, there.x, there.c)
    np.testing.assert_allclose(out, fx.detach().numpy(), rtol=1e-10)  # torch's softplus leaves out 2e-9 above 20
    there.model.df(slope, there.x, there.c)
    (wanted,) = torch.autograd.grad(fx.sum(), x)
    np.testing.assert_allclose(slope.T, wanted.numpy(), rtol=0, atol=1e-7)


def test_a_site_is_moved(there: At) -> None:
    found, again = np.empty(L), np.empty(L)
    there.model.begin(there.x, there.c)
    for d in range(there.D):
        there.model.moved(found, there.x, d, there.v, there.c)
        other = there.x.copy()
        other[d] = there.v
        apart = there.c._replace(room=np.empty_like(there.c.room))
        there.model.f(again, other, apart)
        np.testing.assert_allclose(found, again, rtol=1e-12)


def test_a_begun_point_outlives_f_and_credit(there: At) -> None:
    found, again = np.empty(L), np.empty(L)
    there.model.begin(there.x, there.c)
    there.model.moved(found, there.x, 0, there.v, there.c)
    there.model.f(again, there.x + 1, there.c)
    if there.model.credit is not None:
        there.model.credit(np.zeros((len(there.weights), L)), there.x + 1, there.w, there.c)
    there.model.moved(again, there.x, 0, there.v, there.c)
    assert np.array_equal(found, again)


def test_the_gradient_in_the_model_is_added(there: At) -> None:
    assert (there.model.credit is None) == (there.weights is None)
    if there.weights is None:
        return
    m = np.ones((len(there.weights), L))
    there.model.credit(m, there.x, there.w, there.c)
    for l in range(L):
        weights = there.weights.clone().requires_grad_()
        fx = there.problem.value(there.leaf().detach()[l : l + 1], weights, there.row[l : l + 1])
        (wanted,) = torch.autograd.grad(fx.sum(), weights)
        np.testing.assert_allclose(m[:, l] - 1, there.w[l] * wanted.numpy(), rtol=0, atol=1e-12)


def test_second_derivatives(there: At) -> None:
    assert (there.model.hessian is None) == (there.problem.family_name == "bernoulli")
    if there.model.hessian is None:
        return
    h = np.full((there.D**2 + 1, L), np.nan)
    there.model.hessian(h, there.x, there.c)
    assert np.isnan(h[-1]).all()
    for l, x in enumerate(there.leaf().detach()):
        wanted = torch.autograd.functional.hessian(lambda y: there.torch_f(y[None]).sum(), x)
        np.testing.assert_allclose(
            h[:-1, l].reshape(there.D, there.D), wanted.numpy(), rtol=0, atol=1e-12 * float(wanted.abs().max()) + 1e-7
        )
