"""ReinMax: exact for quadratic f at temperature 1, and for any f its mean is the trapezoid rule's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import Estimator, claim_of, mismatch
from estimators.noise import MEASURE
from estimators.reinmax import reinmax
from estimators.relaxation import jacobian
from estimators.straight_through import straight_through
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.objectives import Elbo, Expectation, Objective
from problems.truth import log_probability, true_gradient


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


THETA = {Bernoulli: tensor(-0.8, 0.3, 1.1), Categorical: tensor([0.3, -0.5, 0.8], [-0.2, 1.0, 0.1])}


def problem_of(family: type, f: Callable[[torch.Tensor], torch.Tensor], degree: int, objective: Objective) -> Problem:
    """f of the flattened point."""
    axes = 1 if family is Bernoulli else 2
    return Problem(
        f.__name__,
        family,
        THETA[family],
        lambda x: f(x.flatten(x.ndim - axes)),
        objective,
        smooth=2,
        relaxed=True,
        degree=degree,
    )


def coupled(x: torch.Tensor) -> torch.Tensor:
    """x'Ax + c'x with every pair of entries coupled, those of one site as well."""
    n = x.shape[-1]
    A = torch.linspace(-1, 1.5, n * n, dtype=torch.float64).sin().reshape(n, n).to(x)
    return (x @ A * x).sum(-1) + x @ A[0]


def multilinear(x: torch.Tensor) -> torch.Tensor:
    """Degree 3, but 1 in each site given the others."""
    return 2 * x[..., 0] * x[..., 1] * x[..., 2] - x[..., 0] * x[..., 2]


def cubic(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[-1]
    return (x @ torch.linspace(-1, 1, n, dtype=torch.float64).to(x) - 0.4) ** 3 + x[..., 0] * x[..., -1]


def enumerated_mean(estimator: Estimator, problem: Problem) -> torch.Tensor:
    """The exact mean of a combine that reads no noise: replicate r is given point r of the support, weighed by its probability."""
    q = problem.bind(problem.theta)
    x = q.support()
    g = gradients(prepare(replace(estimator, draw=lambda: x[None]), problem), range(len(x)))
    return log_probability(q, x).exp() @ g


def gap(estimator: Estimator, problem: Problem) -> float:
    """|mean - gradient| / |gradient|, both exact."""
    truth = true_gradient(problem)
    assert truth is not None
    return float((enumerated_mean(estimator, problem) - truth.gradient).norm() / truth.gradient.norm())


def trapezoid(problem: Problem) -> torch.Tensor:
    """p_a sum_b p_b E 1/2 (grad_i f(x^a) + grad_i f(x^b)) . (a - b) for site i and category a; a bit's second is 0."""
    q = problem.bind(problem.theta)
    x = q.support()
    chance = log_probability(q, x).exp()
    p = torch.stack([q.p, 1 - q.p], -1) if problem.family is Bernoulli else q.p
    values = tensor([1.0], [0.0]) if problem.family is Bernoulli else torch.eye(p.shape[-1], dtype=torch.float64)
    out = torch.zeros_like(p)
    for i in range(p.shape[0]):
        at, slope = [], []
        for value in values:
            moved = x.clone()
            moved[:, i] = value.squeeze()
            moved.requires_grad_()
            fx = problem.f(moved) - (q.log_prob(moved) if problem.objective.ratio else 0)
            (df,) = torch.autograd.grad(fx.sum(), moved)
            at.append(value)
            slope.append(df[:, i].reshape(len(x), -1))
        for a in range(len(values)):
            for b in range(len(values)):
                difference = 0.5 * ((slope[a] + slope[b]) * (at[a] - at[b])).sum(-1)
                out[i, a] += p[i, a] * p[i, b] * (chance * difference).sum()
    return out[:, 0] if problem.family is Bernoulli else out


OBJECTIVES = [Expectation(), Elbo()]
FAMILIES = [Bernoulli, Categorical]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_it_is_unbiased_where_f_is_quadratic(family: type, objective: Objective, agreement: Callable[..., Any]) -> None:
    problem = problem_of(family, coupled, 2, objective)
    assert claim_of(reinmax(), problem) == "unbiased"
    assert gap(reinmax(), problem) < 1e-13
    found = agreement(reinmax(), problem)
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)


def test_quadratic_in_each_site_is_enough() -> None:
    problem = problem_of(Bernoulli, multilinear, 3, Expectation())
    assert gap(reinmax(), problem) < 1e-13
    assert claim_of(reinmax(), problem) == "biased"  # the degree in all sites is what a problem states


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_its_mean_is_that_of_the_trapezoid_rule(
    family: type, objective: Objective, agreement: Callable[..., Any]
) -> None:
    problem = problem_of(family, cubic, 3, objective)
    mean = trapezoid(problem)
    assert torch.allclose(enumerated_mean(reinmax(), problem), mean.reshape(-1), rtol=1e-12)
    found = agreement(reinmax(), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    against_truth = agreement(reinmax(), problem)
    assert claim_of(reinmax(), problem) == "biased"
    assert against_truth.z > against_truth.allowed


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_at_another_temperature_a_quadratic_is_no_exception(family: type, agreement: Callable[..., Any]) -> None:
    problem, warm = problem_of(family, coupled, 2, Expectation()), reinmax(1.3)
    assert claim_of(warm, problem) == "biased"
    assert gap(warm, problem) > 0.02
    mean = enumerated_mean(warm, problem)
    found = agreement(warm, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed


@pytest.mark.parametrize(("pi", "half"), [(0.6, 0.5), (0.5, 0.6)])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_a_wrong_constant_is_seen(family: type, pi: float, half: float, agreement: Callable[..., Any]) -> None:
    def combine(q: Any, x: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        middle = pi * (q.mean + x[0])
        return 2 * jacobian(q, middle, dfx[0]) - half * jacobian(q, q.mean, dfx[0])

    problem, wrong = problem_of(family, coupled, 2, Expectation()), replace(reinmax(), combine=combine)
    assert gap(wrong, problem) > 0.02
    found = agreement(wrong, problem)
    assert found.z > found.allowed


def test_of_fair_bits_it_is_straight_through() -> None:
    """2 pi (1 - pi) - p (1 - p) / 2 = 1/4 = p (1 - p) for either bit, and the bias of a quadratic f is hidden there."""
    uneven = problem_of(Bernoulli, coupled, 2, Expectation())
    fair = replace(uneven, theta=torch.zeros(3, dtype=torch.float64))
    second, first = (gradients(prepare(e, fair), range(64)) for e in (reinmax(), straight_through()))
    assert torch.allclose(second, first, rtol=1e-12)
    assert gap(straight_through(), fair) < 1e-13
    assert gap(straight_through(), uneven) > 0.02


def test_a_bit_is_a_category_of_two() -> None:
    """The same f of the first of two categories, whose second logit is 0: the same gradient at every point."""
    bits = problem_of(Bernoulli, cubic, 3, Elbo())
    theta = torch.stack([bits.theta, torch.zeros_like(bits.theta)], -1)
    pairs = replace(bits, family=Categorical, theta=theta, f=lambda x: bits.f(x[..., 0]))
    x = bits.bind(bits.theta).support()
    two = torch.stack([x, 1 - x], -1)
    for temperature in (1.0, 1.3):
        estimator = reinmax(temperature)
        of_bits = gradients(prepare(replace(estimator, draw=lambda: x[None]), bits), range(8))
        of_pairs = gradients(prepare(replace(estimator, draw=lambda: two[None]), pairs), range(8))
        assert torch.allclose(of_bits, of_pairs.unflatten(-1, (3, 2))[..., 0], rtol=1e-12)


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories elbo"])
def test_amortised_gradients_are_those_of_the_published_algorithm(
    name: str, batch: int, small: Callable[[str], Problem]
) -> None:
    """pi1 = softmax(sg(log pi - theta) + theta), pi2 = 2 pi1 - p / 2, f at x + pi2 - sg(pi2): plain autograd, same samples."""
    problem, temperature = replace(small(name), batch=batch), 1.2
    assert problem.model is not None
    trial = prepare(reinmax(temperature), problem)
    g = gradients(trial, range(4))
    answers = ask(trial, range(4), None, MEASURE, Count())
    bits = problem.family is Bernoulli
    for r in range(4):
        data = problem.data if answers.given.data is None else answers.given.data[r]
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w, data)
        x = answers.known["x"][0, r]
        logits = torch.stack([theta, torch.zeros_like(theta)], -1) if bits else theta
        point = torch.stack([x, 1 - x], -1) if bits else x
        pi = 0.5 * ((logits / temperature).softmax(-1) + point)
        pi1 = ((pi.log() - logits).detach() + logits).softmax(-1)
        pi2 = 2 * pi1 - 0.5 * logits.softmax(-1)
        moving = point + pi2 - pi2.detach()
        moving = moving[..., 0] if bits else moving
        L = (problem.value(moving, model, data) - problem.bind(theta.detach()).log_prob(moving)).sum()
        L = L * (problem.rows / batch if batch else 1)
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"reinmax\[temperature=-1\]: the temperature must be positive"):
        reinmax(-1)
    why = mismatch(reinmax(), small("counts"))
    assert why == "reinmax is for bernoulli or categorical variables; counts's are poisson"
