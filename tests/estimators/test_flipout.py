"""Flipout against plain autograd on its own noise, exact gradients, and variances in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, Noise, mismatch
from estimators.flipout import flipout
from estimators.noise import MEASURE, addressed, rows_without_replacement
from estimators.pathwise import pathwise
from problems.base import Problem
from problems.families.normal import Normal

THETA = torch.tensor([[0.4, -0.2], [-0.5, 0.3]], dtype=torch.float64)
DATA = torch.tensor([[0.9, -0.4], [1.1, 0.2], [0.3, 1.3]], dtype=torch.float64)


def linear(**fields: Any) -> Problem:
    """f_i = x.d_i of weights x that each of three data may draw for itself."""
    return Problem(
        "linear", Normal, THETA, lambda x, data: (x * data).sum(-1), smooth=2, relaxed=True, data=DATA, **fields
    )


@pytest.mark.parametrize("batch", [0, 2])
def test_it_is_plain_autograd_of_one_size_and_signs_of_each_datum(batch: int) -> None:
    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return (x * data).sum(-1).sin()

    trial = prepare(flipout(2), replace(linear(batch=batch), f=f), 3)
    rows = torch.arange(3).expand(4, 3)
    if batch:
        rows = rows_without_replacement(trial.key, MEASURE, range(4), 3, 2)
    eps = addressed(Noise("normal", (2,), (2,)), trial.key, MEASURE, 0, range(4), None, torch.float64)
    sign = addressed(Noise("sign", (2,), (2,)), trial.key, MEASURE, 1, range(4), rows, torch.float64)
    theta = THETA.clone().requires_grad_()
    x = theta[0] + theta[1].exp() * eps[:, :, None] * sign
    fx = (x * DATA[rows]).sum(-1).sin()
    found = gradients(trial, range(4))
    for r in range(4):
        L = fx[:, r].mean(0).sum() * (3 / 2 if batch else 1)
        (wanted,) = torch.autograd.grad(L, theta, retain_graph=True)
        torch.testing.assert_close(found[r], wanted.reshape(-1), rtol=1e-12, atol=1e-12)


def test_data_are_uncorrelated_as_with_draws_of_their_own() -> None:
    """In log sigma_d: sigma_d^2 sum_i d_id^2 of signs or draws of their own, sigma_d^2 (sum_i d_id)^2 of one that is common."""
    variance = (2 * THETA[1]).exp()
    own, common = variance * (DATA**2).sum(0), variance * DATA.sum(0) ** 2
    pairs: list[tuple[Estimator, Problem, torch.Tensor]] = [
        (flipout(), linear(), own),
        (pathwise(), linear(), own),
        (flipout(), linear(shared=True), common),
        (pathwise(), linear(shared=True), common),
    ]
    n = 32_768
    for estimator, problem, wanted in pairs:
        g = gradients(prepare(estimator, problem, 1), range(n))[:, 2:]
        found, se = g.square().mean(0), g.square().std(0) / n**0.5
        assert bool(((found - wanted).abs() < 4.5 * se).all())


@pytest.mark.parametrize("name", ["normals", "normals elbo", "amortised normals", "amortised normals elbo"])
@pytest.mark.parametrize("samples", [1, 3])
def test_it_is_unbiased(
    name: str, samples: int, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    found = agreement(flipout(samples), small(name))
    assert found.z < found.allowed
    rows = 3 if name.startswith("amortised") else 1
    assert (found.f, found.df) == (samples * rows, samples * rows)


def test_what_it_is_for(small: Callable[[str], Problem]) -> None:
    assert mismatch(flipout(), small("bits")) == "flipout is for normal variables; bits's are bernoulli"
    with pytest.raises(ValueError, match=r"flipout\[samples=0\]: samples must be at least 1"):
        flipout(0)
