"""Perturbed optimisers: the gradient of the smoothed objective, and of q's own where the noise is Gumbel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch, target_of
from estimators.noise import MEASURE
from estimators.perturbed_optimizer import perturbed_optimizer
from estimators.smoothed_objective import chance
from problems.base import Problem
from problems.families.subset import Subset
from problems.objectives import Elbo, Expectation, Objective

NAMES = ["bits", "bits elbo", "categories", "categories elbo", "amortised bits elbo", "amortised categories"]
SETTINGS = [(4, 1.0, "normal"), (2, 0.5, "normal"), (1, 1.0, "normal"), (3, 1.7, "gumbel")]


def subset(objective: Objective) -> Problem:
    weights = torch.linspace(-1, 1.5, 4, dtype=torch.float64)
    theta = torch.tensor([0.4, -0.8, 1.0, 0.1], dtype=torch.float64)
    return Problem("subset", Subset(2), theta, lambda x: (x @ weights.to(x) - 0.4) ** 3, objective, smooth=2)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", [*NAMES, "subset"])
def test_its_mean_is_the_smoothed_gradient(
    name: str, setting: tuple[int, float, str], agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = subset(Elbo()) if name == "subset" else small(name)
    estimator = perturbed_optimizer(*setting)
    claimed = target_of(estimator, problem)
    assert claimed is not None
    found = agreement(estimator, replace(problem, exact=lambda _: claimed[0]))
    assert found.z < found.allowed
    assert claim_of(estimator, problem) == "biased"
    assert (found.f, found.df) == (setting[0] * max(problem.rows, 1), 0)


@pytest.mark.parametrize("name", NAMES)
def test_gumbel_noise_of_scale_one_draws_from_q(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    estimator, problem = perturbed_optimizer(4, perturbation="gumbel"), small(name)
    assert claim_of(estimator, problem) == "unbiased"
    found = agreement(estimator, problem)
    assert found.z < found.allowed
    smoothed = target_of(estimator, problem)
    assert smoothed is not None
    if not problem.objective.ratio:
        assert torch.allclose(smoothed[0], found.truth, rtol=1e-9, atol=1e-12)
    normal = agreement(perturbed_optimizer(4), problem)
    assert normal.z > normal.allowed


def test_a_subset_with_gumbel_noise_is_not_q(agreement: Callable[..., Any]) -> None:
    estimator, problem = perturbed_optimizer(4, perturbation="gumbel"), subset(Expectation())
    assert claim_of(estimator, problem) == "biased"
    claimed = target_of(estimator, problem)
    assert claimed is not None
    found = agreement(estimator, replace(problem, exact=lambda _: claimed[0]))
    assert found.z < found.allowed


def test_one_sample_of_bits_is_augment_reinforce(small: Callable[[str], Problem]) -> None:
    """f(b) (1 - 2 u), b = 1[u < p]."""
    trial = prepare(perturbed_optimizer(1, perturbation="gumbel"), small("bits"))
    known = ask(trial, range(64), None, MEASURE, Count()).known
    u, fx = known["noise"], known["fx"]
    assert torch.equal(known["x"], (u < small("bits").theta.sigmoid()).double())
    assert torch.allclose(gradients(trial, range(64)), (fx[..., None] * (1 - 2 * u))[0], rtol=1e-13)


def test_the_baseline_takes_a_constant_out_of_f(small: Callable[[str], Problem]) -> None:
    problem = small("categories")
    raised = replace(problem, f=lambda x: problem.f(x) + 100)
    for setting, same in (((4, 1.0, "normal"), True), ((1, 1.0, "normal"), False)):
        g, h = (gradients(prepare(perturbed_optimizer(*setting), p), range(64)) for p in (problem, raised))
        assert torch.allclose(g, h, rtol=1e-9, atol=1e-11) == same


@pytest.mark.parametrize("wrong", ["no scale", "another baseline"])
def test_a_wrong_constant_is_seen(wrong: str, agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    problem, right = small("bits"), perturbed_optimizer(4, 0.5)
    claimed = target_of(right, problem)
    assert claimed is not None
    factor = 0.5 if wrong == "no scale" else 3 / 4
    assert right.combine is not None
    combine = right.combine
    changed = replace(right, combine=lambda q, noise, fx: factor * combine(q, noise, fx))
    found = agreement(changed, replace(problem, exact=lambda _: claimed[0]))
    assert found.z > found.allowed


@pytest.mark.parametrize("perturbation", ["normal", "gumbel"])
@pytest.mark.parametrize("name", ["bits", "categories", "subset"])
def test_chances_sum_to_one(name: str, perturbation: str, small: Callable[[str], Problem]) -> None:
    problem = subset(Expectation()) if name == "subset" else small(name)
    for scale in (0.05, 1.0):
        z, theta = problem.bind(problem.theta).support(), problem.theta / scale
        assert float(chance(problem.family_name, z, theta, perturbation).sum()) == pytest.approx(1, abs=1e-10)


def test_too_many_points_have_no_target(small: Callable[[str], Problem]) -> None:
    many = replace(small("bits"), theta=torch.zeros(20, dtype=torch.float64))
    assert target_of(perturbed_optimizer(), many) is None
    assert target_of(perturbed_optimizer(), small("layers")) is None


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["bits", "categories", "subset"])
def test_logits_of_thirty(name: str, setting: tuple[int, float, str], small: Callable[[str], Problem]) -> None:
    problem = subset(Elbo()) if name == "subset" else small(name)
    far = replace(problem, theta=30 * problem.theta.sign())
    for dtype in ("float64", "float32"):
        assert gradients(prepare(perturbed_optimizer(*setting), far, dtype=dtype), range(64)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"perturbed_optimizer\[scale=0\]: scale must be positive"):
        perturbed_optimizer(scale=0)
    with pytest.raises(ValueError, match=r"perturbed_optimizer\[perturbation=sign\]: perturbation is normal or gumbel"):
        perturbed_optimizer(perturbation="sign")
    assert mismatch(perturbed_optimizer(), small("normals")) == (
        "perturbed_optimizer is for bernoulli or categorical or subset variables; normals's are normal"
    )
