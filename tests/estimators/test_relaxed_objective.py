"""The gradient of a relaxed objective by quadrature: a closed form, and what it is not to be had for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from estimators.base import claim_of, target_of
from estimators.gumbel_softmax import gumbel_softmax
from estimators.relaxed_objective import relaxed_gradient
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_linear_f_of_a_bit_at_temperature_one() -> None:
    """E sigmoid(l + G), the chance that the difference of two logistics is below l: a (a - 1 - log a) / (a - 1)^2, a = e^l."""
    problem = Problem("a bit", Bernoulli, tensor(0.7), lambda x: 3 * x.sum(-1), smooth=2, relaxed=True, degree=1)
    leaf = problem.theta.clone().requires_grad_()
    a = leaf.exp()
    (slope,) = torch.autograd.grad((3 * a * (a - 1 - a.log()) / (a - 1) ** 2).sum(), leaf)
    found = relaxed_gradient(problem, torch.sigmoid)
    assert found is not None
    assert torch.allclose(found, slope, rtol=1e-9)


def test_a_category_of_two_is_a_bit() -> None:
    bit = Problem("a bit", Bernoulli, tensor(0.7), lambda x: (x.sum(-1) - 0.4) ** 3, smooth=2, relaxed=True)
    two = replace(bit, family=Categorical, theta=tensor([0.9, 0.2]), f=lambda x: bit.f(x[..., 0]))
    of_bit = relaxed_gradient(bit, lambda z: (z / 0.5).sigmoid())
    of_two = relaxed_gradient(two, lambda z: (z / 0.5).softmax(-1))
    assert of_bit is not None
    assert of_two is not None
    assert torch.allclose(of_two, torch.cat([of_bit, -of_bit]), rtol=1e-7)


@pytest.mark.parametrize("name", ["bits", "categories", "normals", "layers"])
def test_more_than_two_differences_are_too_many(name: str, small: Callable[[str], Problem]) -> None:
    assert relaxed_gradient(small(name), torch.sigmoid) is None


def test_a_claim_says_what_its_mean_is(small: Callable[[str], Problem]) -> None:
    """With an encoder and a model, datum by datum."""
    problem = small("amortised bits elbo")
    claimed = target_of(gumbel_softmax(), problem)
    assert claimed is not None
    assert claimed[0].shape == (problem.dim,)
    assert claimed[1] == "the relaxed objective E f(y)"
    assert claim_of(gumbel_softmax(), problem) == "biased"
