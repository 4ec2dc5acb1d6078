"""Gradients of importance-weighted bounds: against quadrature and enumeration, plain autograd, and their own exact means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators import importance_weighted as bounds
from estimators.base import Estimator, across, claim_of, mismatch
from estimators.noise import MEASURE
from problems.base import Problem
from problems.families.categorical import Categorical
from problems.families.normal import Normal
from problems.objectives import Elbo, ImportanceWeighted, InclusiveKL, Objective, Renyi, log_mean_exp
from problems.truth import Truth, by_quadrature, gauss_hermite, log_probability, true_gradient


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


MIX = {1: tensor([1.0]), 2: tensor([1.0, 0.6], [-0.3, 0.8])}
SEEN = {1: tensor(1.7), 2: tensor(1.1, -0.4)}
PHI = {1: tensor([0.3], [-0.2]), 2: tensor([0.3, -0.5], [-0.2, 0.1])}


def linear_gaussian(objective: Objective, dims: int) -> Problem:
    """z ~ N(m, I), x | z ~ N(A z, I), both up to a constant; q factorised. Truth by quadrature over all K samples."""

    def f(x: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        prior = -0.5 * (x - model).square().sum(-1)
        return prior - 0.5 * (SEEN[dims].to(x) - x @ MIX[dims].to(x).T).square().sum(-1)

    model = tensor(0.4, -0.1)[:dims]
    return Problem("linear gaussian", Normal, PHI[dims], f, objective, smooth=2, model=model, exact=by_gauss_hermite)


def by_gauss_hermite(problem: Problem) -> Truth:
    """Good to 1e-4 of its norm in four dimensions: a hundredth of a standard error here."""
    axes = problem.objective.samples * problem.theta.shape[-1]
    nodes, tolerance = (40, 1e-8) if axes <= 2 else (16, 1e-4)
    return by_quadrature(lambda n: quadrature(problem, n, bound), nodes, tolerance)


def bound(problem: Problem, log_w: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return problem.objective.value(log_w)


def credit(problem: Problem, log_w: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """sum_k v_k log q(z_k), of which only q's theta is differentiated where the points are held."""
    return (log_w.softmax(0).detach() * log_q).sum(0)


def quadrature(
    problem: Problem, nodes: int, integrand: Callable[..., torch.Tensor], held: bool = False
) -> torch.Tensor:
    """Gradient in theta and the model of E integrand; with `held`, the points do not move with theta."""
    assert problem.model is not None
    K, D = problem.objective.samples, problem.theta.shape[-1]
    eps, weight = gauss_hermite(K * D, nodes)
    leaves = [problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()]
    mu, log_sigma = leaves[0]
    z = mu + log_sigma.exp() * eps.unflatten(-1, (K, D)).movedim(1, 0)
    z = z.detach() if held else z
    log_q = torch.distributions.Normal(mu, log_sigma.exp()).log_prob(z).sum(-1)
    L = integrand(problem, problem.value(z, leaves[1]) - log_q, log_q)
    found = torch.autograd.grad((weight * L).sum(), leaves, materialize_grads=True, allow_unused=True)
    return torch.cat([g.reshape(-1) for g in found])


TABLE = tensor(0.9, -0.4, 0.3, -1.2, 0.5)


def categories(objective: Objective) -> Problem:
    """One of five categories with a table of likelihoods; the model is the prior's logits. Truth by enumeration."""

    def f(x: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        return (x[..., 0, :] * (model.log_softmax(-1) + TABLE.to(x))).sum(-1)

    model, theta = tensor(0.2, -0.3, 0.5, 0.0, -0.6), tensor([0.1, 0.4, -0.5, 0.2, 0.3])
    return Problem("five categories", Categorical, theta, f, objective, model=model)


def title(value: object) -> str:
    if isinstance(value, Problem):
        return f"{value.name}-{value.objective.name}{value.objective.samples}"
    if isinstance(value, Estimator):
        return value.name + "".join(f"-{v}" for v in value.settings.values())
    return str(value)


SCORES = [bounds.iwae_score(), bounds.vimco(), bounds.vimco("arithmetic")]
PATHS = [bounds.iwae_pathwise(), bounds.dreg()]


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("estimator", [*SCORES, *PATHS], ids=title)
def test_gaussian_bounds(estimator: Estimator, dims: int, agreement: Callable[..., Any]) -> None:
    problem = linear_gaussian(ImportanceWeighted(2), dims)
    found = agreement(estimator, problem)
    assert claim_of(estimator, problem) == "unbiased"
    assert found.z < found.allowed


@pytest.mark.parametrize("estimator", SCORES, ids=title)
def test_discrete_bounds(estimator: Estimator, agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """Five categories of K = 3; and, amortised and layered, bounds of K = 2 for each of three data."""
    problems = [
        categories(ImportanceWeighted(3)),
        replace(small("amortised bits"), objective=ImportanceWeighted(2)),
        replace(small("layers"), objective=ImportanceWeighted(2)),
    ]
    for problem in problems:
        found = agreement(estimator, problem)
        assert found.z < found.allowed, problem.name
        assert (found.f, found.df) == (problem.objective.samples * max(problem.rows, 1), 0)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
@pytest.mark.parametrize("estimator", SCORES, ids=title)
def test_renyi_bounds(
    estimator: Estimator, alpha: float, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problems = [
        categories(Renyi(alpha, 3)),
        linear_gaussian(Renyi(alpha, 2), 1),
        replace(small("layers"), objective=Renyi(alpha, 2)),
    ]
    for problem in problems:
        found = agreement(estimator, problem)
        assert claim_of(estimator, problem) == "unbiased"
        assert found.z < found.allowed, problem.name


@pytest.mark.parametrize("estimator", [*SCORES, bounds.iwae_pathwise()], ids=title)
def test_renyi_of_order_nil_is_the_importance_weighted_bound(estimator: Estimator) -> None:
    """Bit for bit, on the same noise."""
    found = [
        gradients(prepare(estimator, linear_gaussian(objective, 2)), range(64))
        for objective in (Renyi(0.0, 3), ImportanceWeighted(3))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [
        (bounds.iwae_pathwise(), Elbo()),
        (bounds.iwae_pathwise(), Renyi(0.5, 2)),
        (bounds.iwae_pathwise(), Renyi(2.0, 2)),
        (bounds.stl(), Elbo()),
        (bounds.stl(), ImportanceWeighted(1)),
        (bounds.dreg(), ImportanceWeighted(1)),
    ],
    ids=lambda v: f"{v.name}",
)
def test_other_objectives(estimator: Estimator, objective: Objective, agreement: Callable[..., Any]) -> None:
    problem = linear_gaussian(objective, 2)
    found = agreement(estimator, problem)
    assert claim_of(estimator, problem) == "unbiased"
    assert found.z < found.allowed
    assert (found.f, found.df) == (objective.samples, objective.samples)


@pytest.mark.parametrize("dims", [1, 2])
def test_stl_is_biased_by_the_score_that_it_leaves_out(dims: int, agreement: Callable[..., Any]) -> None:
    """E g = dL_K/dtheta + E sum_k v_k grad log q(z_k), and the model's gradient is right."""
    problem = linear_gaussian(ImportanceWeighted(2), dims)
    nodes = 40 if dims == 1 else 20
    mean = quadrature(problem, nodes, bound) + quadrature(problem, nodes, credit, held=True)
    found = agreement(bounds.stl(), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    against_truth = agreement(bounds.stl(), problem)
    assert claim_of(bounds.stl(), problem) == "biased"
    assert against_truth.z > 10 * against_truth.allowed


def broken(estimator: Estimator, combine: Callable[..., torch.Tensor]) -> Estimator:
    return replace(estimator, combine=combine)


def without_its_own_weight(q: Normal, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
    return q.score(x, log_mean_exp(fx).expand_as(fx))


def baseline_of_all(q: Normal, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
    """VIMCO with w_k replaced by the mean of all weights, w_k among them."""
    with_mean = torch.logaddexp(bounds.of_the_others(torch.logaddexp, fx), log_mean_exp(fx)) - math.log(len(fx))
    return q.score(x, log_mean_exp(fx) - with_mean - fx.softmax(0))


def not_squared(q: Normal, x: torch.Tensor, fx: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
    return q.path(x, across(fx.softmax(0), dfx) * dfx)


def tilted_weights_alone(q: Categorical, x: torch.Tensor, fx: torch.Tensor, objective: Objective) -> torch.Tensor:
    """VIMCO of Renyi's bound, with the bounds of the weights themselves."""
    v = ((1 - objective.alpha) * fx).softmax(0)
    return q.score(x, log_mean_exp(fx) - bounds.without_geometric(fx) - v)


def test_the_wrong_bound_is_seen(agreement: Callable[..., Any]) -> None:
    found = agreement(broken(bounds.vimco(), tilted_weights_alone), categories(Renyi(2.0, 3)))
    assert found.z > found.allowed


def path_alone(q: Normal, x: torch.Tensor, dfx: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return q.path(x, across(weight, dfx) * dfx)


@pytest.mark.parametrize(
    ("estimator", "combine"),
    [
        (bounds.iwae_score(), without_its_own_weight),
        (bounds.vimco(), baseline_of_all),
        (bounds.dreg(), not_squared),
        (bounds.iwae_pathwise(), path_alone),
    ],
    ids=lambda v: getattr(v, "__name__", title(v)),
)
def test_a_wrong_term_is_seen(
    estimator: Estimator, combine: Callable[..., torch.Tensor], agreement: Callable[..., Any]
) -> None:
    found = agreement(broken(estimator, combine), linear_gaussian(ImportanceWeighted(2), 1))
    assert found.z > found.allowed


@pytest.mark.parametrize("estimator", [*PATHS, bounds.stl()], ids=title)
def test_amortised_gradients_are_those_of_plain_autograd(estimator: Estimator, small: Callable[[str], Problem]) -> None:
    """Encoder and decoder at once, on the same noise, to rounding; DReG and STL as the surrogates of their papers."""
    problem = replace(small("amortised normals"), objective=ImportanceWeighted(3))
    assert problem.model is not None
    trial = prepare(estimator, problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    for r in range(4):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w)
        z = Normal(theta).sample(noise[:, r])
        fz = problem.value(z, model)
        log_w, held = fz - Normal(theta).log_prob(z), fz - Normal(theta.detach()).log_prob(z)
        L = log_mean_exp(log_w).sum()
        v = log_w.softmax(0).detach()
        surrogate = {"iwae_pathwise": L, "stl": (v * held).sum(), "dreg": (v**2 * held).sum()}[estimator.name]
        (of_w,) = torch.autograd.grad(surrogate, w, retain_graph=True)
        (of_model,) = torch.autograd.grad(L, model)
        assert torch.allclose(g[r], torch.cat([of_w, of_model]), rtol=1e-12, atol=1e-13)


def test_where_q_is_the_posterior_the_path_derivatives_vanish() -> None:
    """N(m, 1) and N(z, 1) seen at 1.7: posterior N((m + 1.7) / 2, 1/2), where every weight is the same."""
    at = tensor([(0.4 + 1.7) / 2], [-0.5 * math.log(2)])
    problem = replace(linear_gaussian(ImportanceWeighted(3), 1), theta=at)
    for estimator in (bounds.dreg(), bounds.stl()):
        assert float(gradients(prepare(estimator, problem), range(256))[:, :2].abs().max()) < 1e-13
    assert float(gradients(prepare(bounds.iwae_pathwise(), problem), range(256))[:, :2].std()) > 0.1


def inclusive(theta: torch.Tensor) -> Problem:
    fixed = replace(categories(Elbo()), theta=theta, model=None, f=lambda x: (x[..., 0, :] * TABLE.to(x)).sum(-1))
    return replace(fixed, objective=InclusiveKL())


def mean_of_wake_phi(problem: Problem, K: int) -> torch.Tensor:
    """sum over all S^K draws of prod q(x_k) sum_k v_k grad log q(x_k), by autograd."""
    theta = problem.theta.clone().requires_grad_()
    q = problem.bind(theta)
    log_q = log_probability(q, q.support())
    index = torch.cartesian_prod(*[torch.arange(len(log_q))] * K).reshape(-1, K).T
    v = (problem.value(q.support()) - log_q)[index].softmax(0).detach()
    chance = log_q[index].sum(0).exp().detach()
    return torch.autograd.grad((chance * (v * log_q[index]).sum(0)).sum(), theta)[0]


@pytest.mark.parametrize("samples", [2, 3])
def test_wake_phi_has_its_exact_mean_at_finite_samples(
    samples: int, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    bits = replace(small("bits"), objective=InclusiveKL())
    for problem in (inclusive(tensor([0.1, 0.4, -0.5, 0.2, 0.3])), bits):
        estimator, mean = bounds.wake_phi(samples), mean_of_wake_phi(problem, samples)
        found = agreement(estimator, replace(problem, exact=lambda _, mean=mean: mean))
        assert found.z < found.allowed, problem.name
        assert claim_of(estimator, problem) == "consistent"
        against_truth = agreement(estimator, problem)
        assert against_truth.z > against_truth.allowed, problem.name


def test_the_bias_of_wake_phi_falls_as_one_over_the_samples() -> None:
    """K |bias| / |gradient| stays within 15% of its value at K = 1, where the mean is nil."""
    problem = inclusive(tensor([0.1, 0.4, -0.5, 0.2, 0.3]))
    truth = true_gradient(problem)
    assert truth is not None
    scale = truth.gradient.norm()
    for K in (1, 2, 4, 8):
        bias = (mean_of_wake_phi(problem, K).reshape(-1) - truth.gradient).norm()
        assert K * float(bias / scale) == pytest.approx(1, abs=0.15)


def exact_without(log_w: list[float], k: int, mean: str) -> float:
    """L^(-k) in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        others = [Decimal(a) for j, a in enumerate(log_w) if j != k]
        if mean == "geometric":
            w_hat = (sum(others) / len(others)).exp()
        else:
            w_hat = sum(a.exp() for a in others) / len(others)
        return float(((sum(a.exp() for a in others) + w_hat) / len(log_w)).ln())


@pytest.mark.parametrize("log_w", [[0.3, -1.2], [800.0, -2.0, 3.5], [-900.0, -903.0, -1.0, -950.0], [0.0, 1e-9, 37.0]])
def test_leave_one_out_bounds_do_not_cancel(log_w: list[float]) -> None:
    for mean, without in (("geometric", bounds.without_geometric), ("arithmetic", bounds.without_arithmetic)):
        found = without(tensor(*log_w)).tolist()
        assert found == pytest.approx([exact_without(log_w, k, mean) for k in range(len(log_w))], rel=1e-14, abs=1e-14)


def test_a_weight_of_nil_leaves_the_others_finite() -> None:
    log_w = tensor(0.0, -math.inf, 1.0)
    assert bounds.without_arithmetic(log_w)[0] == pytest.approx(1 - math.log(2))
    assert bounds.without_geometric(log_w)[0] == pytest.approx(1 - math.log(3))
    assert bounds.without_geometric(log_w)[1] == pytest.approx(math.log((1 + math.e + math.exp(0.5)) / 3))


def test_a_baseline_does_not_move_with_its_own_sample() -> None:
    log_w = torch.linspace(-2, 3, 20, dtype=torch.float64).reshape(5, 4)
    for without in (bounds.without_geometric, bounds.without_arithmetic):
        for k in range(5):
            moved = log_w.clone()
            moved[k] += 7
            assert torch.equal(without(moved)[k], without(log_w)[k])


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"vimco\[mean=harmonic\]: mean is geometric or arithmetic"):
        bounds.vimco("harmonic")
    with pytest.raises(ValueError, match=r"wake_phi\[samples=0\]: samples must be at least 1"):
        bounds.wake_phi(0)
    why = mismatch(bounds.vimco(), categories(Elbo()))
    assert why is not None
    assert "vimco estimates the gradient of ImportanceWeighted or Renyi; five categories's objective is Elbo" in why
    with pytest.raises(ValueError, match=r"the bound must take 2 samples, not 1"):
        prepare(bounds.vimco(), categories(ImportanceWeighted(1)))
