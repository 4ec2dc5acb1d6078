"""I-MLE and black-box differentiation: exact means of the first, and the interpolation of which the second is the slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch
from estimators.noise import MEASURE
from estimators.perturb_and_map import blackbox_differentiation, imle, most_probable, sum_of_gamma
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.families.subset import Subset
from problems.objectives import Elbo, Expectation, Objective
from problems.truth import log_probability

THETA = {
    Bernoulli: torch.tensor([0.4, -0.8, 1.0], dtype=torch.float64),
    Categorical: torch.tensor([[0.3, -0.5, 0.8], [-0.2, 1.0, 0.1]], dtype=torch.float64),
    Subset(2): torch.tensor([0.4, -0.8, 1.0, 0.1], dtype=torch.float64),
}
FAMILIES = [*THETA]


def linear(family: Any, objective: Objective) -> Problem:
    """f of which the slope is everywhere the same, and for Elbo that of log q with it."""
    weights = torch.linspace(-1, 1.5, THETA[family].numel(), dtype=torch.float64)
    axes = THETA[family].ndim
    return Problem(
        "linear",
        family,
        THETA[family],
        lambda x: x.flatten(x.ndim - axes) @ weights.to(x),
        objective,
        smooth=2,
        degree=1,
    )


def cubic(family: Any, objective: Objective) -> Problem:
    f = linear(family, objective).f
    return replace(linear(family, objective), name="cubic", f=lambda x: (f(x) - 0.3) ** 3, degree=3)


def slope_of(problem: Problem, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    fx = problem.f(x) - (problem.bind(problem.theta).log_prob(x) if problem.objective.ratio else 0)
    return torch.autograd.grad(fx.sum(), x)[0]


def mean_of_most_probable(family: Any, theta: torch.Tensor) -> torch.Tensor:
    """E z(theta + Gumbel): the means of bits and categories; of a subset, the first two places in order (Plackett and Luce)."""
    if family is Bernoulli:
        return theta.sigmoid()
    if family is Categorical:
        return theta.softmax(-1)
    mean, weight = torch.zeros_like(theta), theta.exp()
    for i, j in permutations(range(len(theta)), 2):
        mean[[i, j]] += weight[i] / weight.sum() * weight[j] / (weight.sum() - weight[i])
    return mean


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("lam", [0.5, 2.5])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_of_a_linear_f_it_is_a_difference_of_means(
    family: Any, lam: float, objective: Objective, agreement: Callable[..., Any]
) -> None:
    """(mu(theta) - mu(theta - lam c)) / lam, mu the mean of the perturbed most probable point."""
    problem = linear(family, objective)
    step = lam * slope_of(problem, problem.bind(problem.theta).support()[0])
    here, there = (mean_of_most_probable(family, theta) for theta in (problem.theta, problem.theta - step))
    mean = (here - there) / lam
    found = agreement(imle(lam), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    assert claim_of(imle(lam), problem) == "biased"
    unscaled = replace(imle(lam), combine=lambda q, noise, x, dfx: lam * imle(lam).combine(q, noise, x, dfx))  # type: ignore[misc]
    wrong = agreement(unscaled, replace(problem, exact=lambda _: mean))
    assert wrong.z > wrong.allowed


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
def test_its_mean_for_bits(objective: Objective, agreement: Callable[..., Any]) -> None:
    """Given a bit of 1 the second is 1 with the chance min(1, sigmoid(l') / sigmoid(l)); given a 0 it is its mirror image."""
    problem, lam = cubic(Bernoulli, objective), 1.5
    x = problem.bind(problem.theta).support()
    moved = problem.theta - lam * slope_of(problem, x)
    s = 2 * x - 1
    stays = ((s * moved).sigmoid() / (s * problem.theta).sigmoid()).clamp(max=1)
    mean = log_probability(problem.bind(problem.theta), x).exp() @ (s * (1 - stays)) / lam
    found = agreement(imle(lam), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    against_truth = agreement(imle(lam), problem)
    assert against_truth.z > against_truth.allowed


def test_sums_of_gamma_have_their_moments() -> None:
    """(H_s - log s) / k and (sum 1 / i^2) / k; k of them are nearly Gumbel, more nearly than their variance is far from it."""
    k, s, n = 3, 10, 200_000
    u = torch.rand(1, s, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noise = sum_of_gamma(u, k)[0]
    i = torch.arange(1, s + 1, dtype=torch.float64)
    variance = float(i.square().reciprocal().sum()) / k
    mean = float(i.reciprocal().sum() - i[-1].log()) / k
    assert abs(float(noise.mean()) - mean) < 4 * (variance / n) ** 0.5
    fourth = float((noise - mean).pow(4).mean()) - variance**2
    assert abs(float(noise.var()) - variance) < 4 * (fourth / n) ** 0.5


def test_the_noise_of_subsets_runs(agreement: Callable[..., Any]) -> None:
    """Its mean for a linear f is the same kind of difference, between the two kinds of noise no more than a tenth apart."""
    problem = linear(Subset(2), Expectation())
    gumbel, gamma = (agreement(imle(1.0, kind), problem) for kind in ("gumbel", "sum_of_gamma"))
    assert float((gumbel.mean - gamma.mean).norm()) < 0.1 * float(gumbel.mean.norm())
    assert (gamma.f, gamma.df) == (1, 1)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_black_box_differentiation_is_the_slope_of_an_interpolation(family: Any) -> None:
    """f(z') + theta . (z(theta) - z') / lam, z' = z(theta - lam c), for f = c . z: by differences, away from its kinks."""
    problem, lam, h = linear(family, Expectation()), 3.0, 1e-6
    c = slope_of(problem, problem.bind(problem.theta).support()[0])

    def interpolation(theta: torch.Tensor) -> float:
        q = problem.bind(theta)
        here, there = most_probable(q, theta), most_probable(q, theta - lam * c)
        return float((c * there).sum() + (theta * (here - there)).sum() / lam)

    g = gradients(prepare(blackbox_differentiation(lam), problem), range(8))
    assert torch.equal(g, g[:1].expand_as(g))
    assert g.ne(0).any()
    unit = torch.eye(problem.theta.numel(), dtype=torch.float64).reshape(-1, *problem.theta.shape)
    differences = [
        (interpolation(problem.theta + h * e) - interpolation(problem.theta - h * e)) / (2 * h) for e in unit
    ]
    assert torch.allclose(g[0], torch.tensor(differences, dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("estimator", [imle(), blackbox_differentiation()], ids=lambda e: e.name)
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories"])
def test_encoders_and_models(estimator: Any, name: str, small: Callable[[str], Problem]) -> None:
    """The encoder's Jacobian of the difference, and the model's gradient at the point itself, datum by datum."""
    problem = small(name)
    assert problem.model is not None
    trial = prepare(estimator, problem)
    g = gradients(trial, range(4))
    known = ask(trial, range(4), None, MEASURE, Count()).known
    difference = estimator.combine(q=known["q"], x=known["x"], dfx=known["dfx"], **noise_for(estimator, known))
    for r in range(4):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        L = (problem.site_parameters(w) * difference[r]).sum() + problem.value(known["x"][0, r], model).sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


def noise_for(estimator: Any, known: dict[str, Any]) -> dict[str, Any]:
    return {"noise": known["noise"]} if estimator.name == "imle" else {}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_logits_of_thirty(family: Any) -> None:
    problem = cubic(family, Elbo())
    far = replace(problem, theta=30 * problem.theta.sign())
    for estimator in (imle(), blackbox_differentiation()):
        for dtype in ("float64", "float32"):
            assert gradients(prepare(estimator, far, dtype=dtype), range(64)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    for lam in (0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"imle\[lam={lam}\]: lam must be positive and finite"):
            imle(lam)
    with pytest.raises(ValueError, match=r"imle\[perturbation=normal\]: perturbation is gumbel or sum_of_gamma"):
        imle(perturbation="normal")
    why = mismatch(imle(perturbation="sum_of_gamma"), cubic(Bernoulli, Elbo()))
    assert why == "sum_of_gamma is noise for subsets; for bernoulli variables Gumbel noise is exact"
