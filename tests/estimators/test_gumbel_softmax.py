"""Gumbel-Softmax and its straight-through form: autograd on the same noise, their own exact means, and their bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import Estimator, claim_of, mismatch, target_of
from estimators.gumbel_softmax import gumbel_softmax, gumbel_straight_through
from estimators.noise import MEASURE
from estimators.relaxation import jacobian, perturbed, soft
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.objectives import Elbo, Expectation, Objective
from tests.estimators.relaxed import one_of_three, tensor, two_bits

BOTH = [gumbel_softmax, gumbel_straight_through]


class Nodes(NamedTuple):
    """Values z `[N, C]` of perturbed logits up to a common shift, the largest 0, and their weights in an integral `[N]`."""

    z: torch.Tensor
    weight: torch.Tensor


def nodes_of(C: int) -> Nodes:
    """Gauss-Legendre over the differences to the largest, one region for each place of the largest."""
    pieces = [np.polynomial.legendre.leggauss(n) for n in (40, 40)]
    cuts = [(0, 5), (5, 45)]
    t = torch.cat([torch.from_numpy(a + (b - a) * (x + 1) / 2) for (x, _), (a, b) in zip(pieces, cuts, strict=True)])
    w = torch.cat([torch.from_numpy(v * (b - a) / 2) for (_, v), (a, b) in zip(pieces, cuts, strict=True)])
    below = -torch.cartesian_prod(*[t] * (C - 1)).reshape(-1, C - 1)
    weight = torch.cartesian_prod(*[w] * (C - 1)).reshape(-1, C - 1).prod(-1)
    zero = torch.zeros(len(below), 1, dtype=torch.float64)
    z = torch.cat([torch.cat([below[:, :i], zero, below[:, i:]], -1) for i in range(C)])
    return Nodes(z, weight.repeat(C))


def density(z: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Of the differences of logits + Gumbel noise: (C-1)! prod_c e^{l_c - z_c} / (sum_c e^{l_c - z_c})^C."""
    C = logits.shape[-1]
    log = (logits - z).sum(-1) - C * (logits - z).logsumexp(-1) + torch.lgamma(tensor(float(C)))[0]
    return log.exp()


class Relaxed(NamedTuple):
    """Every combination of the sites' nodes: z `[N, D, C]`, and how likely it is as a function of the logits `[D, C]`."""

    z: torch.Tensor
    chance: Callable[[torch.Tensor], torch.Tensor]


def relaxed_points(D: int, C: int) -> Relaxed:
    site = nodes_of(C)
    index = torch.tensor(list(product(range(len(site.z)), repeat=D)))
    z, weight = site.z[index], site.weight[index].prod(-1)
    return Relaxed(z, lambda logits: weight * density(z, logits).prod(-1))


def as_categories(problem: Problem, theta: torch.Tensor) -> torch.Tensor:
    """Logits `[D, C]`; a bit is a category of two, whose second logit is 0."""
    return torch.stack([theta, torch.zeros_like(theta)], -1) if problem.family is Bernoulli else theta


def as_points(problem: Problem, y: torch.Tensor) -> torch.Tensor:
    return y[..., 0] if problem.family is Bernoulli else y


def integrand(problem: Problem, x: torch.Tensor) -> torch.Tensor:
    return problem.f(x) - problem.bind(problem.theta).log_prob(x) if problem.objective.ratio else problem.f(x)


def gradient_of_relaxed_objective(problem: Problem, temperature: float) -> torch.Tensor:
    """d/dtheta of the integral of f(softmax(z / tau)) against the density of z, through the density alone."""
    theta = problem.theta.clone().requires_grad_()
    logits = as_categories(problem, theta)
    points = relaxed_points(*logits.shape)
    fy = integrand(problem, as_points(problem, (points.z / temperature).softmax(-1)))
    assert float(points.chance(logits.detach()).sum()) == pytest.approx(1, abs=1e-9)
    return torch.autograd.grad((points.chance(logits) * fy).sum(), theta)[0]


def mean_of_straight_through(problem: Problem, temperature: float) -> torch.Tensor:
    """The integral of (dy/dtheta)' grad f(x), x the hard point of z, y = softmax((z + theta) / tau) differentiated by autograd."""
    theta = problem.theta.clone().requires_grad_()
    logits = as_categories(problem, theta)
    points = relaxed_points(*logits.shape)
    hard = torch.nn.functional.one_hot(points.z.argmax(-1), points.z.shape[-1]).double()
    x = as_points(problem, hard).requires_grad_()
    (slope,) = torch.autograd.grad(integrand(problem, x).sum(), x)
    y = as_points(problem, ((points.z + logits - logits.detach()) / temperature).softmax(-1))
    inner = (slope * y).flatten(1).sum(-1)
    return torch.autograd.grad((points.chance(logits.detach()) * inner).sum(), theta)[0]


MEANS = {gumbel_softmax: gradient_of_relaxed_objective, gumbel_straight_through: mean_of_straight_through}


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("make", [two_bits, one_of_three], ids=lambda m: m.__name__)
@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("factory", BOTH, ids=lambda f: f.__name__)
def test_the_mean_is_its_own_and_not_the_gradient(
    factory: Callable[..., Estimator],
    temperature: float,
    make: Callable[[Objective], Problem],
    objective: Objective,
    agreement: Callable[..., Any],
) -> None:
    problem, estimator = make(objective), factory(temperature)
    mean = MEANS[factory](problem, temperature)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    against_truth = agreement(estimator, problem)
    assert claim_of(estimator, problem) == "biased"
    assert against_truth.z > against_truth.allowed


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("make", [two_bits, one_of_three], ids=lambda m: m.__name__)
def test_what_it_claims_its_mean_to_be(make: Callable[[Objective], Problem], objective: Objective) -> None:
    """Two rules of quadrature agree; straight-through's mean is the gradient of nothing."""
    problem = make(objective)
    claimed = target_of(gumbel_softmax(0.6), problem)
    assert claimed is not None
    assert torch.allclose(claimed[0], gradient_of_relaxed_objective(problem, 0.6).reshape(-1), rtol=1e-7)
    assert target_of(gumbel_straight_through(0.6), problem) is None


@pytest.mark.parametrize("make", [two_bits, one_of_three], ids=lambda m: m.__name__)
@pytest.mark.parametrize("factory", BOTH, ids=lambda f: f.__name__)
def test_a_forgotten_temperature_is_seen(
    factory: Callable[..., Estimator], make: Callable[[Objective], Problem], agreement: Callable[..., Any]
) -> None:
    """Without 1 / tau."""
    problem, right = make(Expectation()), factory(0.8)
    mean = MEANS[factory](problem, 0.8)
    wrong = {
        gumbel_softmax: lambda q, x, dfx: jacobian(q, x[0], dfx[0]),
        gumbel_straight_through: lambda q, noise, dfx: jacobian(q, soft(q, perturbed(q, noise[0]) / 0.8), dfx[0]),
    }[factory]
    found = agreement(replace(right, combine=wrong), replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories elbo", "amortised categories"])
@pytest.mark.parametrize("factory", BOTH, ids=lambda f: f.__name__)
def test_amortised_gradients_are_those_of_plain_autograd(
    factory: Callable[..., Estimator], name: str, small: Callable[[str], Problem]
) -> None:
    """Encoder and decoder on the same noise, to rounding: f at y, or at x + y - sg(y); log q's own theta held fixed."""
    problem, temperature = small(name), 0.7
    assert problem.model is not None
    trial = prepare(factory(temperature), problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    for r in range(4):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w)
        if problem.family is Bernoulli:
            y = ((theta - torch.log(noise[0, r] / (1 - noise[0, r]))) / temperature).sigmoid()
            hard = (noise[0, r] < theta.sigmoid()).double()
        else:
            y = ((theta + noise[0, r]) / temperature).softmax(-1)
            hard = torch.nn.functional.one_hot((theta + noise[0, r]).argmax(-1), 3).double()
        x = y if factory is gumbel_softmax else hard + y - y.detach()
        L = problem.value(x, model).sum()
        if problem.objective.ratio:
            L = L - problem.bind(theta.detach()).log_prob(x).sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["amortised bits", "amortised categories"])
@pytest.mark.parametrize("factory", BOTH, ids=lambda f: f.__name__)
def test_rows_drawn_for_each_replicate(
    factory: Callable[..., Estimator], name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Two of three rows have the mean of all three: within the Bonferroni quantile of the difference."""
    whole, part = agreement(factory(), small(name)), agreement(factory(), replace(small(name), batch=2))
    se = ((whole.variance + part.variance) / len(part.gradients)).sqrt()
    assert float(((whole.mean - part.mean).abs() / se).max()) < part.allowed


@pytest.mark.parametrize("name", ["bits", "categories"])
def test_the_hard_point_of_a_soft_one_is_the_sample(name: str, small: Callable[[str], Problem]) -> None:
    soft_x, x = (
        ask(prepare(factory(0.3), small(name)), range(512), None, MEASURE, Count()).known["x"] for factory in BOTH
    )
    hard = (soft_x > 0.5) if name == "bits" else soft_x == soft_x.amax(-1, keepdim=True)
    assert torch.equal(hard.double(), x)


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    for factory in BOTH:
        with pytest.raises(ValueError, match=rf"{factory.__name__}\[temperature=0\]: the temperature must be positive"):
            factory(0)
    on_its_support = replace(small("bits"), relaxed=False)
    assert "evaluates f off its support" in (mismatch(gumbel_softmax(), on_its_support) or "")
    assert mismatch(gumbel_straight_through(), on_its_support) is None
