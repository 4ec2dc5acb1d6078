"""Straight-through: exact for linear f, and for any f its mean is the slope at the samples through the derivative of the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch, target_of
from estimators.noise import MEASURE
from estimators.straight_through import decoupled_straight_through, simple, straight_through
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.families.subset import Subset
from problems.objectives import Elbo, Expectation
from problems.truth import log_probability, true_gradient

NAMES = ["bits", "bits elbo", "categories", "categories elbo"]


def probabilities(problem: Problem, theta: torch.Tensor) -> torch.Tensor:
    return theta.sigmoid() if problem.family is Bernoulli else theta.softmax(-1)


def mean_of_straight_through(problem: Problem) -> torch.Tensor:
    """d/dtheta of p . E grad [f - log q](x), the slope held fixed, over the whole support."""
    theta = problem.theta.clone().requires_grad_()
    q = problem.bind(problem.theta)
    x = q.support().requires_grad_()
    fx = problem.f(x) - q.log_prob(x) if problem.objective.ratio else problem.f(x)
    (slope,) = torch.autograd.grad(fx.sum(), x)
    chance = log_probability(q, x.detach()).exp()
    expected = torch.einsum("s,s...->...", chance, slope)
    return torch.autograd.grad((expected * probabilities(problem, theta)).sum(), theta)[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_its_own_and_not_the_gradient(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    mean = mean_of_straight_through(problem)
    found = agreement(straight_through(), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    for degree in (None, 2):
        assert claim_of(straight_through(), replace(problem, degree=degree)) == "biased"
    against_truth = agreement(straight_through(), problem)
    assert against_truth.z > against_truth.allowed


@pytest.mark.parametrize("name", NAMES)
def test_it_is_exact_where_f_is_linear(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Without variance, for the slope is everywhere the same."""
    weights = torch.linspace(-1, 2, small(name).theta.numel(), dtype=torch.float64).reshape(small(name).theta.shape)

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x * weights.to(x)).flatten(x.ndim - weights.ndim).sum(-1) + 0.3

    problem = replace(small(name), f=f, degree=1)
    found = agreement(straight_through(), problem)
    assert claim_of(straight_through(), problem) == "unbiased"
    assert torch.allclose(found.mean, found.truth, rtol=1e-12)
    assert found.total_variance < 1e-25


def test_a_wrong_derivative_of_the_mean_is_seen(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """The identity in place of p (1 - p)."""
    problem = small("bits")
    mean = mean_of_straight_through(problem)
    wrong = replace(straight_through(), combine=lambda dfx: dfx[0])
    found = agreement(wrong, replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories elbo"])
def test_amortised_gradients_are_those_of_plain_autograd(
    name: str, batch: int, small: Callable[[str], Problem]
) -> None:
    """Encoder and decoder at x + p - sg(p), on the same samples, to rounding; log q's own theta held fixed."""
    problem = replace(small(name), batch=batch)
    assert problem.model is not None
    trial = prepare(straight_through(), problem)
    g = gradients(trial, range(4))
    answers = ask(trial, range(4), None, MEASURE, Count())
    for r in range(4):
        data = problem.data if answers.given.data is None else answers.given.data[r]
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w, data)
        p = probabilities(problem, theta)
        x = answers.known["x"][0, r] + p - p.detach()
        L = (problem.value(x, model, data) - problem.bind(theta.detach()).log_prob(x)).sum()
        L = L * (problem.rows / batch if batch else 1)
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("family", [Bernoulli, Categorical], ids=lambda f: f.name)
def test_it_is_exact_where_f_is_quadratic_and_every_site_fair(family: Any, objective: Any) -> None:
    theta = torch.zeros(3, dtype=torch.float64)
    theta = theta if family is Bernoulli else torch.stack([theta, theta], -1)
    weights = torch.linspace(-1, 2, theta.numel(), dtype=torch.float64)

    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(x.ndim - theta.ndim)
        return (y @ weights) ** 2 - y[..., 0] * y[..., -1] + 0.2 * y[..., 1]

    problem = Problem("quadratic", family, theta, f, objective, smooth=2, relaxed=True, degree=2)
    for at, claim in (
        (theta, "unbiased"),
        (theta + torch.linspace(0, 1, theta.numel()).reshape(theta.shape), "biased"),
    ):
        there = replace(problem, theta=at)
        assert claim_of(straight_through(), there) == claim
        truth = true_gradient(there)
        assert truth is not None
        gap = float((mean_of_straight_through(there).reshape(-1) - truth.gradient).norm())
        assert (gap < 1e-13) == (claim == "unbiased")
    assert claim_of(straight_through(), replace(problem, degree=3)) == "biased"


def subset(k: int, objective: Any = None) -> Problem:
    """A cubic of five sites, of which k are chosen."""
    weights = torch.linspace(-1, 1.5, 5, dtype=torch.float64)
    theta = torch.tensor([0.4, -0.8, 1.0, 0.1, -0.2], dtype=torch.float64)

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x @ weights.to(x) - 0.4) ** 3 + x[..., 0] * x[..., 2]

    return Problem("subset", Subset(k), theta, f, objective or Expectation(), smooth=2, relaxed=True)


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
def test_the_mean_of_simple(objective: Any, agreement: Callable[..., Any]) -> None:
    """d mu/dtheta of the marginals, by enumeration and autograd, times the mean slope at the subsets."""
    problem = subset(2, objective)
    theta = problem.theta.clone().requires_grad_()
    x = problem.bind(problem.theta).support()
    chance = (x @ theta).softmax(0)
    leaf = x.clone().requires_grad_()
    fx = problem.f(leaf) - (problem.bind(problem.theta).log_prob(leaf) if objective.ratio else 0)
    (slope,) = torch.autograd.grad(fx.sum(), leaf)
    expected = chance.detach() @ slope
    mean = torch.autograd.grad((chance @ x) @ expected, theta)[0]
    found = agreement(simple(), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    assert claim_of(simple(), problem) == "biased"
    against_truth = agreement(simple(), problem)
    assert against_truth.z > against_truth.allowed


def test_simple_is_exact_where_f_is_linear(agreement: Callable[..., Any]) -> None:
    weights = torch.linspace(-1, 2, 5, dtype=torch.float64)
    problem = replace(subset(2, Elbo()), f=lambda x: x @ weights.to(x), degree=1)
    found = agreement(simple(), problem)
    assert claim_of(simple(), problem) == "unbiased"
    assert torch.allclose(found.mean, found.truth, rtol=1e-12)
    assert found.total_variance < 1e-25


def test_simple_for_one_site_is_straight_through() -> None:
    """A subset of one is a category: the same gradient at every point."""
    of_one = subset(1)
    category = replace(
        of_one, family=Categorical, theta=of_one.theta[None], f=lambda x: of_one.f(x[..., 0, :]), name="category"
    )
    x = torch.eye(5, dtype=torch.float64)
    first = gradients(prepare(replace(simple(), draw=lambda: x[None]), of_one), range(5))
    second = gradients(prepare(replace(straight_through(), draw=lambda: x[None, :, None]), category), range(5))
    assert torch.allclose(first, second, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [*NAMES, "amortised bits elbo", "amortised categories"])
def test_both_temperatures_one_is_straight_through(name: str, small: Callable[[str], Problem]) -> None:
    problem = small(name)
    both = [gradients(prepare(e, problem), range(64)) for e in (decoupled_straight_through(), straight_through())]
    assert torch.allclose(*both, rtol=1e-13)
    assert claim_of(decoupled_straight_through(), replace(problem, degree=1)) == "unbiased"


@pytest.mark.parametrize(("forward", "backward"), [(1.0, 2.0), (0.7, 1.0), (1.5, 0.6)])
@pytest.mark.parametrize("name", ["bits", "categories", "bits elbo"])
def test_the_mean_of_decoupled_temperatures(
    name: str, forward: float, backward: float, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """d/dtheta of softmax(theta / tau_b) . E grad f, over the support weighed by softmax(theta / tau_f)."""
    problem = small(name)
    x = problem.bind(problem.theta).support().requires_grad_()
    fx = problem.f(x) - (problem.bind(problem.theta).log_prob(x) if problem.objective.ratio else 0)
    (slope,) = torch.autograd.grad(fx.sum(), x)
    chance = log_probability(problem.bind(problem.theta / forward), x.detach()).exp()
    theta = problem.theta.clone().requires_grad_()
    expected = torch.einsum("s,s...->...", chance, slope)
    mean = torch.autograd.grad((expected * probabilities(problem, theta / backward)).sum(), theta)[0]
    estimator = decoupled_straight_through(forward, backward)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    assert claim_of(estimator, replace(problem, degree=1)) == "biased"
    assert target_of(estimator, replace(problem, degree=1)) is None
    swapped = agreement(decoupled_straight_through(backward, forward), replace(problem, exact=lambda _: mean))
    assert swapped.z > swapped.allowed


@pytest.mark.parametrize("name", ["bits", "amortised categories"])
def test_one_temperature_is_exact_for_the_distribution_drawn_from(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Where f is linear; and what it draws from is not q."""
    weights = torch.linspace(-1, 2, small(name).bind(small(name).theta).theta.numel(), dtype=torch.float64)
    decode = {"bits": lambda x: x @ weights, "amortised categories": linear_decoder}[name]
    problem = replace(small(name), f=decode, degree=1)
    estimator = decoupled_straight_through(1.6, 1.6)
    claimed = target_of(estimator, problem)
    assert claimed is not None
    assert claimed[1] == "E f under the distribution drawn from, where f is linear"
    found = agreement(estimator, replace(problem, exact=lambda _: claimed[0]))
    assert found.z < found.allowed
    against_truth = agreement(estimator, problem)
    assert against_truth.z > against_truth.allowed


def linear_decoder(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    return (x.flatten(-2) @ model.reshape(6, 2) * data).sum(-1)


@pytest.mark.parametrize("family", [Bernoulli, Categorical], ids=lambda f: f.name)
def test_logits_of_thirty(family: Any) -> None:
    theta = torch.tensor([30.0, -30.0]) if family is Bernoulli else torch.tensor([[30.0, -30.0, -30.0]])
    axes = 1 if family is Bernoulli else 2
    problem = Problem("far", family, theta.double(), lambda x: x.flatten(-axes).square().sum(-1), smooth=2)
    for dtype in ("float64", "float32"):
        g = gradients(prepare(decoupled_straight_through(0.1, 3.0), problem, dtype=dtype), range(256))
        assert g.isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    sentence = r"decoupled_straight_through\[backward=0\]: the temperature must be positive"
    with pytest.raises(ValueError, match=sentence):
        decoupled_straight_through(1, 0)
    why = mismatch(straight_through(), small("normals"))
    assert why == "straight_through is for bernoulli or categorical variables; normals's are normal"
