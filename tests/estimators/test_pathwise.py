"""Pathwise gradients: against quadrature and closed forms, plain autograd, and where their variance vanishes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import Estimator, mismatch
from estimators.noise import MEASURE
from estimators.pathwise import pathwise, pathwise_total
from problems.base import Problem
from problems.families.base import Family
from problems.families.beta import Beta
from problems.families.dirichlet import Dirichlet
from problems.families.normal import Normal
from problems.families.von_mises import VonMises
from problems.families.weibull import Weibull
from problems.objectives import Elbo, Expectation


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def title(value: object) -> str:
    if isinstance(value, Estimator):
        return value.name + "".join(f"-{v}" for v in value.settings.values())
    return str(value)


DATA = tensor([0.9, -0.4], [-1.1, 0.2], [0.3, 1.3])


@dataclass(frozen=True)
class Grid:
    """A family on points `[S, *event]` with weights `[S]` that integrate over its support; f couples the numbers of a point."""

    family: type[Family]
    law: Callable[[torch.Tensor], Any]
    theta: torch.Tensor
    x: torch.Tensor
    weight: torch.Tensor
    f: Callable[[torch.Tensor], torch.Tensor]


def wavy(x: torch.Tensor) -> torch.Tensor:
    y, z = x[..., 0], x[..., 1]
    return (3 * y + z).sin() + y * z - 0.3 * z * z


def round_the_circle(x: torch.Tensor) -> torch.Tensor:
    y, z = x[..., 0], x[..., 1]
    return (y - z).cos() + 0.5 * (2 * y).sin() - 0.7 * (z.cos() + y.sin()).square()


def on_the_simplex(x: torch.Tensor) -> torch.Tensor:
    a, b, c = x[..., 0, :].unbind(-1)
    return (4 * a).sin() + b * c - (1 + c).log() + a * a


class Angles:
    """von Mises variables in double precision, which torch's are not."""

    def __init__(self, theta: torch.Tensor) -> None:
        self.mu, self.kappa = theta[..., 0, :], theta[..., 1, :].exp()

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.kappa * ((x - self.mu).cos() - 1) - (2 * math.pi * torch.special.i0e(self.kappa)).log()


def pairs(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cartesian_prod(x, x), torch.cartesian_prod(weight, weight).prod(-1)


def grid(name: str) -> Grid:
    """Trapezium rules in the logit, the angle, the logarithm, and the logits of three entries of which the last is 0."""
    y = torch.arange(-30, 20, 0.2, dtype=torch.float64)
    if name == "betas":
        x, weight = pairs(y.sigmoid(), 0.2 * y.sigmoid() * (-y).sigmoid())
        law = lambda t: torch.distributions.Beta(t[..., 0, :].exp(), t[..., 1, :].exp(), validate_args=False)  # noqa: E731
        return Grid(Beta, law, tensor([0.2, 0.6], [0.7, 0.1]), x, weight, wavy)
    if name == "angles":
        circle = torch.arange(-math.pi, math.pi, math.pi / 60, dtype=torch.float64)
        x, weight = pairs(circle, torch.full_like(circle, math.pi / 60))
        return Grid(VonMises, Angles, tensor([0.3, 2.8], [-0.2, 0.9]), x, weight, round_the_circle)
    if name == "weibulls":
        y = torch.arange(-30, 3, 0.08, dtype=torch.float64)
        x, weight = pairs(y.exp(), 0.08 * y.exp())
        law = lambda t: torch.distributions.Weibull((-t / 1.5).exp(), t.new_tensor(1.5))  # noqa: E731
        return Grid(Weibull(1.5), law, tensor(0.4, -0.3), x, weight, wavy)
    x = torch.nn.functional.pad(torch.cartesian_prod(y, y), (0, 1)).softmax(-1)
    law = lambda t: torch.distributions.Dirichlet(t.exp(), validate_args=False)  # noqa: E731
    return Grid(Dirichlet, law, tensor([0.5, 0.1, 0.9]), x[:, None], 0.04 * x.prod(-1), on_the_simplex)


def on_grid(name: str) -> Problem:
    """The grid's f and family, alone or for each of three data with an encoder, with the exact gradient by the grid's rule."""
    objective = Elbo() if name.endswith("elbo") else Expectation()
    at = grid(name.removeprefix("amortised ").removesuffix(" elbo"))
    shape, amortised = at.theta.shape, name.startswith("amortised")

    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return at.f(x) * (1 + 0.5 * data.sum(-1))

    def encode(w: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return at.theta + 0.3 * (data @ w.reshape(2, -1)).unflatten(-1, shape)

    def exact(problem: Problem) -> torch.Tensor:
        theta = problem.theta.clone().requires_grad_()
        sites = encode(theta, DATA) if amortised else theta
        total = torch.zeros((), dtype=torch.float64)
        for row in range(len(DATA) if amortised else 1):
            log_q = at.law(sites[row] if amortised else sites).log_prob(at.x).flatten(1).sum(-1)
            fx = f(at.x, DATA[row : row + 1]) if amortised else at.f(at.x)
            total = total + (at.weight * log_q.exp() * (fx - log_q if objective.ratio else fx)).sum()
        return torch.autograd.grad(total, theta)[0]

    weights = torch.linspace(-1, 1, 2 * at.theta.numel(), dtype=torch.float64)
    if not amortised:
        return Problem(name, at.family, at.theta, at.f, objective, smooth=2, exact=exact)
    return Problem(name, at.family, weights, f, objective, smooth=2, exact=exact, encode=encode, data=DATA)


GRIDS = ("betas", "angles", "weibulls", "dirichlet")


@pytest.mark.parametrize("name", [f"{kind}{form}" for kind in GRIDS for form in ("", " elbo")])
def test_the_mean_is_the_gradient_for_every_family(name: str, agreement: Callable[..., Any]) -> None:
    for estimator in (pathwise(2), pathwise_total(2))[: 1 + name.endswith("elbo")]:
        for problem in (on_grid(name), on_grid("amortised " + name)):
            found = agreement(estimator, problem)
            assert found.z < found.allowed, problem.name
            assert (found.f, found.df) == (2 * max(problem.rows, 1),) * 2


@pytest.mark.parametrize("name", GRIDS)
def test_a_path_a_tenth_too_long_is_seen(name: str, agreement: Callable[..., Any]) -> None:
    def combine(q: Family, x: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        return 1.1 * q.path(x, dfx)

    found = agreement(replace(pathwise(1), combine=combine), on_grid(name), replicates=65_536)
    assert found.z > found.allowed


def test_an_f_that_jumps_where_the_circle_is_cut_has_another_path_gradient(agreement: Callable[..., Any]) -> None:
    """E x moves with mu by 1 less the density at the cut times 2 pi; the path says 1."""
    theta = tensor([2.0], [0.3])
    q_cut = float(Angles(theta).log_prob(tensor(math.pi)).exp())

    def exact(problem: Problem) -> torch.Tensor:
        x = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)
        leaf = problem.theta.clone().requires_grad_()
        E = torch.trapezoid(x * Angles(leaf).log_prob(x).exp(), x)
        return torch.autograd.grad(E, leaf)[0]

    problem = Problem("cut", VonMises, theta, lambda x: x[..., 0], smooth=1, exact=exact)
    found = agreement(pathwise(1), problem)
    assert found.z > found.allowed
    assert torch.allclose(found.mean[0], tensor(1.0))
    assert float(found.truth[0]) == pytest.approx(1 - 2 * math.pi * q_cut, abs=1e-6)


EVERYWHERE = [
    "normals",
    "normals elbo",
    "amortised normals",
    "amortised normals elbo",
    "gammas",
    "gammas elbo",
    "amortised gammas elbo",
]


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        *[(pathwise(K), name) for K in (1, 3) for name in EVERYWHERE],
        *[(pathwise_total(K), name) for K in (1, 3) for name in EVERYWHERE if name.endswith("elbo")],
    ],
    ids=title,
)
def test_the_mean_is_the_gradient(
    estimator: Estimator, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(estimator, problem)
    assert found.z < found.allowed
    evaluations = estimator.settings["samples"] * max(problem.rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


@pytest.mark.parametrize("estimator", [pathwise(2), pathwise_total(2)], ids=title)
def test_rows_drawn_for_each_replicate(
    estimator: Estimator, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    found = agreement(estimator, replace(small("amortised normals elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("name", ["normals", "gammas"])
def test_a_path_that_forgets_the_scale_is_seen(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """dx/dtheta a tenth too long, in the second parameter only."""

    def combine(q: Normal, x: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        return q.path(x, dfx) * tensor([1.0], [1.1])

    found = agreement(replace(pathwise(1), combine=combine), small(name))
    assert found.z > found.allowed


@pytest.mark.parametrize("estimator", [pathwise(2), pathwise_total(2)], ids=title)
def test_amortised_gradients_are_those_of_plain_autograd(estimator: Estimator, small: Callable[[str], Problem]) -> None:
    """Encoder and decoder on the same noise, to rounding; the path derivative with log q's own theta held fixed."""
    problem = small("amortised normals elbo")
    assert problem.model is not None
    trial = prepare(estimator, problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    for r in range(4):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w)
        z = Normal(theta).sample(noise[:, r])
        in_log_q = theta if estimator.name == "pathwise_total" else theta.detach()
        L = (problem.value(z, model) - Normal(in_log_q).log_prob(z)).mean(0).sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


def test_the_path_derivative_is_exact_where_q_is() -> None:
    """f = log q + 3: the gradient is nil, and so is every path derivative; the total derivative is the score."""
    theta = tensor([0.3, -0.6], [-0.2, 0.1])
    problem = Problem(
        "exact", Normal, theta, lambda x: Normal(theta.to(x)).log_prob(x) + 3, Elbo(), smooth=2, exact=torch.zeros_like
    )
    assert float(gradients(prepare(pathwise(1), problem), range(256)).abs().max()) < 1e-13
    total = gradients(prepare(pathwise_total(1), problem), range(4096)).var(0)
    fisher = torch.stack([(-2 * theta[1]).exp(), tensor(2.0, 2.0)]).reshape(-1)
    assert torch.allclose(total, fisher, rtol=0.25)


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    for factory in (pathwise, pathwise_total):
        with pytest.raises(ValueError, match=rf"{factory.__name__}\[samples=0\]: samples must be at least 1"):
            factory(0)
    why = mismatch(pathwise_total(), small("normals"))
    assert why == "pathwise_total estimates the gradient of Elbo; normals's objective is Expectation"
    why = mismatch(pathwise(), small("bits"))
    families = "normal or gamma or beta or dirichlet or von_mises or weibull or chain of normal or minibatch"
    assert why == f"pathwise is for {families} variables; bits's are bernoulli"
    why = mismatch(pathwise(), replace(small("normals"), smooth=0))
    assert why == "pathwise needs 1 derivative of f; normals offers none"
