"""Pathwise gradients: against quadrature and closed forms, plain autograd, and where their variance vanishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import Estimator, mismatch
from estimators.noise import MEASURE
from estimators.pathwise import pathwise, pathwise_total
from problems.base import Problem
from problems.families.normal import Normal
from problems.objectives import Elbo


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def title(value: object) -> str:
    if isinstance(value, Estimator):
        return value.name + "".join(f"-{v}" for v in value.settings.values())
    return str(value)


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
    assert why == "pathwise is for normal or gamma or beta or dirichlet or von_mises or weibull variables; bits's are bernoulli"
    why = mismatch(pathwise(), replace(small("normals"), smooth=0))
    assert why == "pathwise needs 1 derivative of f; normals offers none"
