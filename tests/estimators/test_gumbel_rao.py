"""Gumbel-Rao: the mean of straight-through Gumbel-Softmax, and of its variance what the sample leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.conditional_relaxation import conditioned
from estimators.gumbel_rao import gumbel_rao
from estimators.gumbel_softmax import gumbel_straight_through
from estimators.relaxation import jacobian, soft
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical

NAMES = ["bits", "bits elbo", "categories", "categories elbo", "amortised bits elbo", "amortised categories"]


def z_of(difference: torch.Tensor) -> float:
    """Largest mean of a coordinate in standard errors."""
    se = difference.std(0).clamp(min=1e-300) / math.sqrt(len(difference))
    return float((difference.mean(0).abs() / se)[difference.std(0) > 1e-12].max())


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_mean_of_straight_through_gumbel_softmax(
    name: str, temperature: float, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Paired: the sample is made of the same noise, so that a model's gradient is the same to the bit."""
    problem = small(name)
    found = agreement(gumbel_rao(temperature, 3), problem)
    plain = agreement(gumbel_straight_through(temperature), problem)
    assert z_of(found.gradients - plain.gradients) < found.allowed
    assert found.total_variance < plain.total_variance
    assert (found.f, found.df) == (max(problem.rows, 1),) * 2
    if problem.model is not None:
        P = problem.theta.numel()
        assert torch.equal(found.gradients[:, P:], plain.gradients[:, P:])


def test_more_samples_are_less_variance(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """Var = Var E[g | x] + E Var[g | x] / M: straight in 1 / M, of which M = 1 is straight-through Gumbel-Softmax's."""
    problem = small("categories")
    one, two, eight = (agreement(gumbel_rao(0.5, M), problem) for M in (1, 2, 8))
    plain = agreement(gumbel_straight_through(0.5), problem)
    assert abs(one.total_variance - plain.total_variance) < 4 * math.hypot(
        one.total_variance_se, plain.total_variance_se
    )
    line = one.total_variance + (one.total_variance - two.total_variance) * 2 * (1 / 8 - 1)
    error = math.sqrt(0.75**2 * one.total_variance_se**2 + 1.75**2 * two.total_variance_se**2)
    assert abs(eight.total_variance - line) < 4 * math.hypot(error, eight.total_variance_se)


@pytest.mark.parametrize("b", [0.0, 1.0])
def test_given_a_bit_its_mean_is_an_integral(b: float) -> None:
    """E[y (1 - y) / tau | b] by quadrature over z, of which log-odds of b's sign are possible."""
    theta, temperature = 0.7, 0.5
    problem = Problem("a bit", Bernoulli, torch.tensor([theta]).double(), lambda x: x.sum(-1), smooth=2)
    estimator = replace(gumbel_rao(temperature, 50), draw=lambda noise: torch.full_like(noise[0], b))
    g = gradients(prepare(estimator, problem), range(4096))
    z = torch.arange(5e-4, 40, 1e-3, dtype=torch.float64) * (1 if b else -1)
    density = (z - theta).sigmoid() * (theta - z).sigmoid()
    y = (z / temperature).sigmoid()
    wanted = float((density * y * (1 - y) / temperature).sum() / density.sum())
    assert z_of(g - wanted) < 4.4


def test_a_bit_is_a_category_of_two(agreement: Callable[..., Any]) -> None:
    theta = torch.tensor([0.4, -1.2], dtype=torch.float64)
    bits = Problem("bits", Bernoulli, theta, lambda x: (x.sum(-1) - 0.4) ** 3, smooth=2)
    two = torch.stack([theta, torch.zeros_like(theta)], -1)
    pairs = replace(bits, family=Categorical, theta=two, f=lambda x: bits.f(x[..., 0]))
    of_bits, of_pairs = agreement(gumbel_rao(0.7), bits), agreement(gumbel_rao(0.7), pairs)
    first = of_pairs.gradients.unflatten(-1, (2, 2))[..., 0]
    se = ((of_bits.variance + first.var(0)) / len(first)).sqrt()
    assert float(((of_bits.mean - first.mean(0)).abs() / se).max()) < of_bits.allowed


@pytest.mark.parametrize("name", ["bits", "categories"])
def test_noise_that_does_not_know_the_sample_is_seen(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)

    def forgetful(q: Any, noise: tuple[torch.Tensor, torch.Tensor], dfx: torch.Tensor) -> torch.Tensor:
        z, _ = conditioned(q, q.sample(noise[1]), noise[1])
        return (2 * jacobian(q, soft(q, 2 * z), dfx[0])).mean(0)

    wrong = agreement(replace(gumbel_rao(0.5, 3), combine=forgetful), problem)
    plain = agreement(gumbel_straight_through(0.5), problem)
    assert z_of(wrong.gradients - plain.gradients) > wrong.allowed


def test_it_is_biased(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """65,536 replicates are enough to see it."""
    found = agreement(gumbel_rao(), small("bits"), replicates=65_536)
    assert found.z > found.allowed


@pytest.mark.parametrize("family", [Bernoulli, Categorical])
def test_logits_of_thirty(family: type) -> None:
    theta = torch.tensor([30.0, -30.0]) if family is Bernoulli else torch.tensor([[30.0, -30.0, -30.0]])
    axes = 1 if family is Bernoulli else 2
    problem = Problem("far", family, theta.double(), lambda x: x.flatten(-axes).square().sum(-1), smooth=2)
    for dtype in ("float64", "float32"):
        assert gradients(prepare(gumbel_rao(0.1), problem, dtype=dtype), range(256)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"gumbel_rao\[samples=0\]: samples must be at least 1"):
        gumbel_rao(samples=0)
    with pytest.raises(ValueError, match=r"gumbel_rao\[temperature=0\]: the temperature must be positive"):
        gumbel_rao(0)
    assert mismatch(gumbel_rao(), small("counts")) == (
        "gumbel_rao is for bernoulli or categorical variables; counts's are poisson"
    )
