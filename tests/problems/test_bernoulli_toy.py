"""The bit toy's closed form against a sum over the cube in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from problems.bernoulli_toy import bernoulli_toy
from problems.truth import true_gradient


@pytest.mark.parametrize("form", ["mean", "sum"])
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_closed_form_is_the_sum_over_the_cube(form: str, point: str, differences: Callable[..., Tensor]) -> None:
    problem = bernoulli_toy(dim=3, target=0.49, form=form).at(point)

    def L(theta: list[float]) -> float:
        p = [1 / (1 + math.exp(-t)) for t in theta]
        total = 0.0
        for b in itertools.product([0, 1], repeat=3):
            cost = sum((bit - 0.49) ** 2 for bit in b)
            total += math.prod(q if bit else 1 - q for bit, q in zip(b, p, strict=True)) * cost
        return total / (3 if form == "mean" else 1)

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "closed form"
    wanted = differences(L, problem.theta.tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-10)
    assert float((1.02 * truth.gradient - wanted).abs().max()) > 1e-6


def test_any_dimension_and_its_mean_form() -> None:
    mean, total = true_gradient(bernoulli_toy(dim=200)), true_gradient(bernoulli_toy(dim=200, form="sum"))
    assert mean is not None
    assert total is not None
    assert torch.allclose(200 * mean.gradient, total.gradient)
    assert float(total.gradient[0]) == pytest.approx(0.25 * 0.1)
    assert bernoulli_toy(dim=1).theta.shape == (1,)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dim": 0}, r"bernoulli_toy\[dim=0\]: dim must be at least 1"),
        ({"form": "max"}, r"bernoulli_toy\[form=max\]: form is mean or sum"),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        bernoulli_toy(**settings)
