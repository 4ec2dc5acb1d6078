"""Three bits with one logit: both forms have the gradient -0.18 p (1 - p), and estimators reach it through the tie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, mismatch
from estimators.disarm import disarm
from estimators.score_function import rloo
from problems.shared_logit_toy import shared_logit_toy
from problems.truth import true_gradient


@pytest.mark.parametrize("form", ["bernoulli", "categorical"])
@pytest.mark.parametrize(("point", "eta"), [("init", 0.0), ("low_entropy", -4.0)])
def test_both_forms_have_the_gradient_of_the_sum_over_eight_states(
    form: str, point: str, eta: float, differences: Callable[..., Tensor]
) -> None:
    def L(theta: list[float]) -> float:
        p = 1 / (1 + math.exp(-theta[0]))
        total = 0.0
        for b in itertools.product([0, 1], repeat=3):
            cost = (b[0] - 0.6) ** 2 + (b[1] - 0.51) ** 2 + (b[2] - 0.48) ** 2
            total += p ** sum(b) * (1 - p) ** (3 - sum(b)) * cost
        return total

    truth = true_gradient(shared_logit_toy(form=form).at(point))
    assert truth is not None
    assert truth.tier == "enumeration"
    torch.testing.assert_close(truth.gradient, differences(L, [eta]), rtol=0, atol=1e-10)
    p = 1 / (1 + math.exp(-eta))
    assert float(truth.gradient) == pytest.approx(-0.18 * p * (1 - p), rel=1e-10)


@pytest.mark.parametrize("estimator", [rloo(4), disarm()], ids=["rloo", "disarm"])
def test_gradients_of_the_three_logits_are_summed(estimator: Estimator) -> None:
    """Within 5 standard errors of the truth, which a gradient of one bit alone (a third of it, or so) is not."""
    problem = shared_logit_toy().at("low_entropy")
    assert mismatch(estimator, problem) is None
    g = gradients(prepare(estimator, problem), range(65536))
    truth = true_gradient(problem)
    assert truth is not None
    assert g.shape == (65536, 1)
    se = float(g.std()) / math.sqrt(len(g))
    assert abs(float(g.mean() - truth.gradient)) < 5 * se
    assert abs(float(g.mean() - truth.gradient / 3)) > 5 * se


def test_categorical_form_is_for_estimators_of_categories() -> None:
    problem = shared_logit_toy(form="categorical")
    assert "is for bernoulli variables" in str(mismatch(disarm(), problem))
    assert mismatch(rloo(2), problem) is None


def test_settings_it_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"^shared_logit_toy\[form=chain\]: form is bernoulli or categorical$"):
        shared_logit_toy(form="chain")
