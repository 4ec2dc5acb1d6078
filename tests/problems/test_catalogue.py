"""What holds for every problem of the registry: points, dtype, scalar form, and an estimator that reaches its truth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from bench.evaluate import gradients, prepare
from estimators.base import size_of
from estimators.importance_weighted import iwae_score
from estimators.noise import addressed
from estimators.pathwise import pathwise
from estimators.score_function import rloo
from problems import PROBLEMS
from problems.base import Point, Problem
from problems.truth import true_gradient

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in PROBLEMS],
    ("shared_logit_toy", {"form": "categorical"}),
    ("quadratic", {"family": "categorical"}),
    ("gaussian_cost", {"cost": "exp"}),
    ("gaussian_cost", {"cost": "cos", "dim": 2}),
    ("gamma_cost", {"cost": "moment"}),
    ("gamma_cost", {"cost": "log", "dim": 2}),
    ("poisson_cost", {"cost": "exp", "dim": 2}),
    ("geometric_cost", {"cost": "exp", "dim": 2}),
    ("binomial_cost", {"cost": "exp", "dim": 2, "trials": 3}),
    ("subset", {"dim": 5, "k": 2}),
    ("beta_cost", {"cost": "moment", "dim": 2}),
    ("beta_cost", {"cost": "log"}),
    ("dirichlet_cost", {"cost": "log", "dim": 2}),
    ("dirichlet_cost", {"cost": "entropy", "categories": 2}),
    ("von_mises_cost", {"cost": "exp", "dim": 2}),
    ("weibull_cost", {"cost": "step", "dim": 2}),
    ("weibull_cost", {"cost": "log", "shape": 1.0}),
    ("tiny_sbn", {"layers": 2, "hidden": 4}),
    ("bayes_logreg", {"batch": 8}),
    ("bnn", {"kl": "sampled"}),
    ("bnn", {"view": "per_datum", "activation": "relu"}),
    ("bnn", {"view": "activations"}),
    ("polynomial", {"family": "bernoulli"}),
    ("categorical_distance", {"form": "table"}),
    ("hmm", {"posterior": "mean_field"}),
    ("hmm", {"objective": "log_marginal"}),
    ("bandit", {"contexts": 3}),
    ("gridworld", {"slip": 0.0, "side": 3, "steps": 4}),
    ("sorting_smooth", {"dim": 5, "loss": "ranks"}),
    ("shortest_path_smooth", {"side": 2, "loss": "regret"}),
    ("rationale", {"likelihood": "gaussian", "words": 5}),
    ("gmm_inference", {"amortised": False}),
    ("latent_lm", {"inputless": True}),
    ("lda", {"posterior": "free", "topics": 4}),
    *[
        (name, {"objective": objective})
        for name in ("mixture", "linear_gaussian")
        for objective in ("log_marginal", "thermodynamic", "inclusive_kl")
    ],
]
SMALLER = {
    "sbn": {"hidden": 3, "data": 6, "batch": 3},
    "bayes_logreg": {"data": 40},
    "bnn": {"hidden": 2, "inputs": 2, "data": 4, "batch": 2},
    "dropout_bnn": {"hidden": 2, "inputs": 2, "data": 4, "batch": 2},
    "gaussian_vae": {"latent": 1, "hidden": 2, "data": 4, "batch": 2, "side": 4},
    "categorical_vae": {"variables": 2, "categories": 3, "hidden": 2, "data": 4, "batch": 2, "side": 4},
    "latent_lm": {"hidden": 2, "latent": 1, "data": 4, "batch": 2},
    "lda": {"vocabulary": 5, "words": 6, "data": 4, "batch": 2},
}
WITH_DATA = (
    "mixture",
    "alignment",
    "linear_gaussian",
    "tiny_sbn",
    "sbn",
    "gaussian_vae",
    "categorical_vae",
    "latent_lm",
    "lda",
    "rationale",
    "rationale_large",
    "gmm_inference",
    "hmm",
    "bnn",
    "dropout_bnn",
    "stochastic_mlp",
    "semi_supervised",
    "memory_vae",
)
UNBIASED = [
    *[(name, settings) for name, settings in VARIANTS if "objective" not in settings],
    ("mixture", {"samples": 2}),
    ("mixture", {"samples": 2, "objective": "renyi", "alpha": 2.0}),
    ("linear_gaussian", {"dim": 3, "samples": 4}),
    ("linear_gaussian", {"dim": 3, "samples": 4, "objective": "renyi"}),
    ("tiny_sbn", {"hidden": 4, "samples": 2}),
]


def named(variants: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(name, s, id=f"{name}[{','.join(f'{k}={v}' for k, v in s.items())}]") for name, s in variants]


def drawn(problem: Problem, points: int = 2, replicates: int = 3) -> Tensor:
    """Samples of q `[K, R, (B,) *event]`, all the data."""
    size = size_of(problem)
    rows = range(problem.rows) if problem.rows else None
    [noise] = size.family.noise(size)
    values = addressed(noise._replace(front=(points,)), 1, 0, 0, range(replicates), rows, torch.float64)
    return problem.bind(problem.site_parameters(problem.theta)).sample(values)


def drawn_by_f(problem: Problem, replicates: int = 3) -> list[Tensor]:
    """What f itself draws, `[R, (B,) *event]`; nothing for most."""
    rows = range(problem.rows) if problem.rows else None
    where = (range(replicates), rows, torch.float64)
    return [addressed(noise, 1, 0, 1 + index, *where) for index, noise in enumerate(problem.noise)]


@pytest.mark.parametrize(("name", "settings"), named(VARIANTS))
def test_f_follows_the_dtype_of_x(name: str, settings: dict[str, Any]) -> None:
    problem = PROBLEMS[name](**settings)
    x = drawn(problem)
    axes = problem.bind(problem.site_parameters(problem.theta)).event_axes
    noise = drawn_by_f(problem)
    fx = problem.value(x, noise=noise)
    assert fx.shape == (*x.shape[: x.ndim - axes], *([] if problem.parts is None else [len(problem.parts)]))
    assert fx.dtype == torch.float64
    model = None if problem.model is None else problem.model.float()
    data = None if problem.data is None else problem.data.float()
    single = problem.value(x.float(), model, data, [n.float() for n in noise])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), fx, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "settings"), named(VARIANTS))
def test_points_and_settings(name: str, settings: dict[str, Any]) -> None:
    problem = PROBLEMS[name](**settings)
    assert problem.name == name
    assert problem.settings == {**PROBLEMS.settings(name), **settings}
    assert PROBLEMS.summary(name)
    assert "init" in problem.point_names()
    for point in problem.points:
        there = problem.at(point)
        assert isinstance(problem.points[point], Point)
        assert there.theta.shape == problem.theta.shape
        assert there.theta.dtype == torch.float64
        assert there.theta.isfinite().all()
        assert (there.model is None) == (problem.model is None)
    assert torch.equal(problem.at("init").theta, problem.theta)


@pytest.mark.parametrize("name", ["mixture", "tiny_sbn"])
def test_bounds_without_points_of_their_own_are_taken_at_those_of_the_elbo(name: str) -> None:
    elbo, bound = PROBLEMS[name](), PROBLEMS[name](samples=2)
    assert list(bound.points) == list(elbo.points) == ["init", "mid", "converged"]
    assert torch.equal(bound.points["converged"].theta, elbo.points["converged"].theta)
    assert not torch.equal(elbo.points["converged"].theta, elbo.points["init"].theta)


@pytest.mark.parametrize(("name", "settings"), named(VARIANTS))
def test_derivatives_that_are_offered_exist(name: str, settings: dict[str, Any]) -> None:
    problem = PROBLEMS[name](**settings)
    if problem.smooth:
        x = drawn(problem, 1, 1).requires_grad_()
        (df,) = torch.autograd.grad(problem.value(x, noise=drawn_by_f(problem, 1)).sum(), x, create_graph=True)
        assert df.isfinite().all()
        if problem.smooth > 1 and df.requires_grad:
            assert torch.autograd.grad(df.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(("name", "settings"), named(VARIANTS))
def test_f_has_the_stated_degree_along_every_line(name: str, settings: dict[str, Any]) -> None:
    """Its differences of that order do not vanish, those of the next do."""
    problem = PROBLEMS[name](**settings)
    if problem.degree is not None:
        noise, generator = drawn_by_f(problem), torch.Generator().manual_seed(3)
        x, step = (torch.randn(drawn(problem).shape, dtype=torch.float64, generator=generator) for _ in range(2))

        def difference(order: int) -> float:
            """max |sum_k (-1)^k (order over k) f(x + k step)|, over sum_k (order over k) |f|."""
            f = torch.stack([problem.value(x + k * step, noise=noise) for k in range(order + 1)])
            weight = torch.tensor([(-1.0) ** k * math.comb(order, k) for k in range(order + 1)], dtype=torch.float64)
            return float((weight @ f.flatten(1)).abs().max() / (weight.abs() @ f.flatten(1).abs()).max())

        assert difference(problem.degree + 1) < 1e-13
        assert difference(problem.degree) > 1e-9


@pytest.mark.parametrize(("name", "settings"), named(VARIANTS))
def test_scalar_form_is_f(name: str, settings: dict[str, Any]) -> None:
    """In plain Python on lists, and compiled by numba on arrays."""
    problem = PROBLEMS[name](**settings)
    if problem.scalar_f is not None:
        x = drawn(problem)[0]
        wanted = problem.value(x).tolist()
        assert [problem.scalar_f(point) for point in x.tolist()] == pytest.approx(wanted, rel=1e-12)
        compiled = numba.njit(problem.scalar_f)
        assert [compiled(np.ascontiguousarray(point)) for point in x.numpy()] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("name", "settings"), named(UNBIASED))
def test_an_unbiased_estimator_reaches_the_truth(name: str, settings: dict[str, Any]) -> None:
    """|z| < 5.5 in every coordinate of 2,048 replicates: of RLOO, of pathwise for rows, or of the score function of a bound."""
    problem = PROBLEMS[name](**(SMALLER.get(name, {}) | settings))
    assert largest_z(problem) < 5.5


@pytest.mark.parametrize(
    ("name", "settings"), named([v for v in UNBIASED if v[0] in WITH_DATA and v[1].get("amortised", True)])
)
def test_so_does_a_minibatch_of_two_rows(name: str, settings: dict[str, Any]) -> None:
    """Rows of its own for each replicate `[R, 2, F]`, scaled by N / 2."""
    problem = PROBLEMS[name](**(SMALLER.get(name, {}) | settings))
    assert largest_z(replace(problem, batch=2)) < 5.5


def largest_z(problem: Problem) -> float:
    truth = true_gradient(problem)
    assert truth is not None
    single = pathwise(4) if problem.family_name == "minibatch" else rloo(4)
    estimator = single if problem.objective.samples == 1 else iwae_score()
    g = gradients(prepare(estimator, problem), range(2048))
    se = g.std(0) / math.sqrt(len(g))
    z = (g.mean(0) - truth.gradient) / torch.hypot(se, truth.se).clamp(min=1e-12)
    return float(z.abs().max())
