"""Hard Concrete: the gradient of its own objective, binary Concrete without a stretch, and bits that are exactly 0 or 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch, target_of
from estimators.gumbel_softmax import gumbel_softmax
from estimators.hard_concrete import hard_concrete
from estimators.noise import MEASURE
from problems.base import Problem
from problems.objectives import Elbo, Expectation, Objective
from tests.estimators.relaxed import two_bits


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("setting", [(2 / 3, -0.1, 1.1), (0.5, -0.3, 1.0)], ids=str)
def test_its_mean_is_the_gradient_of_its_relaxed_objective(
    setting: tuple[float, float, float], objective: Objective, agreement: Callable[..., Any]
) -> None:
    estimator, problem = hard_concrete(*setting), two_bits(objective)
    claimed = target_of(estimator, problem)
    assert claimed is not None
    own = replace(problem, exact=lambda _: claimed[0])
    found = agreement(estimator, own)
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    against_truth = agreement(estimator, problem)
    assert claim_of(estimator, problem) == "biased"
    assert against_truth.z > against_truth.allowed

    def unstretched(q: Any, noise: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        z = (q.theta - noise[0].logit()) / setting[0]
        return z.sigmoid() * (-z).sigmoid() * dfx[0] / setting[0]

    wrong = agreement(replace(estimator, combine=unstretched), own)
    assert wrong.z > wrong.allowed


@pytest.mark.parametrize("name", ["bits", "bits elbo", "amortised bits elbo"])
def test_without_a_stretch_it_is_binary_concrete(name: str, small: Callable[[str], Problem]) -> None:
    problem = small(name)
    both = [gradients(prepare(e, problem), range(256)) for e in (hard_concrete(0.6, 0.0, 1.0), gumbel_softmax(0.6))]
    assert torch.allclose(*both, rtol=1e-11, atol=1e-14)


def test_clamped_bits_are_bits_and_have_no_slope(small: Callable[[str], Problem]) -> None:
    """As often as the logistic noise says: P(y = 0) = sigmoid(beta log(-gamma / zeta) - theta)."""
    problem, beta, gamma, zeta = small("bits"), 2 / 3, -0.1, 1.1
    trial = prepare(hard_concrete(), problem)
    n = 16_384
    y, g = ask(trial, range(n), None, MEASURE, Count()).known["x"][0], gradients(trial, range(n))
    assert (y >= 0).all()
    assert (y <= 1).all()
    assert torch.equal((y == 0) | (y == 1), g == 0)
    chance = (beta * torch.log(torch.tensor(-gamma / zeta).double()) - problem.theta).sigmoid()
    assert float((((y == 0).double().mean(0) - chance).abs() / (chance * (1 - chance) / n).sqrt()).max()) < 4.5


def test_logits_of_thirty(small: Callable[[str], Problem]) -> None:
    far = replace(small("bits"), theta=30 * small("bits").theta.sign())
    for dtype in ("float64", "float32"):
        assert gradients(prepare(hard_concrete(0.1, 0.0, 1.0), far, dtype=dtype), range(64)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"hard_concrete\[gamma=0.1,zeta=1.1\]: the stretch must hold \[0, 1\]"):
        hard_concrete(gamma=0.1)
    with pytest.raises(ValueError, match=r"the stretch must hold .* and be finite"):
        hard_concrete(gamma=-math.inf)
    for beta in (0, math.inf):
        with pytest.raises(
            ValueError, match=rf"hard_concrete\[beta={beta}\]: the temperature must be positive and finite"
        ):
            hard_concrete(beta)
    why = mismatch(hard_concrete(), small("categories"))
    assert why == "hard_concrete is for bernoulli variables; categories's are categorical"
