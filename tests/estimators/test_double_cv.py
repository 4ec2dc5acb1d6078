"""Double CV: agreement whatever its coefficient, and no variance left where f is linear and the coefficient is -1."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.double_cv import double_cv, others
from estimators.score_function import rloo
from problems import PROBLEMS

COSTS = ["geometric", "binomial", "weibull", "beta", "dirichlet"]
SMALL = [
    "bits",
    "bits elbo",
    "categories",
    "normals",
    "gammas elbo",
    "counts",
    "amortised bits elbo",
    "amortised categories elbo",
]


@pytest.mark.parametrize("problem", SMALL)
@pytest.mark.parametrize("samples", [2, 4])
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem):
    found = agreement(double_cv(samples=samples, steps=60), small(problem))
    evaluations = samples * max(small(problem).rows, 1)
    assert found.z < found.allowed
    assert (found.f, found.df) == (evaluations, evaluations)


@pytest.mark.parametrize("family", ["subset", *(f"{name}_cost" for name in COSTS)])
def test_other_families_that_have_a_mean(agreement, family):
    found = agreement(double_cv(samples=3, steps=20), PROBLEMS[family]())
    assert found.z < found.allowed


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(double_cv(steps=10), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


def test_a_correction_left_out_is_seen(agreement, small):
    def wrong(q, x, fx, dfx, state):
        c = state["alpha"] * (others(dfx) * (x - q.mean)).sum(-1)
        return q.score(x, (fx + c - others(fx + c)) / len(fx))

    found = agreement(replace(double_cv(steps=60), combine=wrong), small("bits"))
    assert found.z > found.allowed


def test_without_learning_it_is_leave_one_out(small):
    start, plain = (gradients(prepare(e, small("bits")), range(64), s) for e, s in UNLEARNED)
    torch.testing.assert_close(start, plain, rtol=1e-12, atol=1e-12)


UNLEARNED = [(double_cv(samples=3, steps=0), {"alpha": torch.zeros((), dtype=torch.float64)}), (rloo(samples=3), None)]


def test_a_linear_function_has_no_variance_at_minus_one(small):
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    trial = prepare(double_cv(samples=3), replace(small("bits"), f=lambda x: x @ w + 2))
    g = gradients(trial, range(64), {"alpha": -torch.ones((), dtype=torch.float64)})
    assert g.var(0).sum() < 1e-28
    torch.testing.assert_close(g[0], trial.problem.theta.sigmoid() * (-trial.problem.theta).sigmoid() * w)


def test_it_learns_minus_one_for_a_linear_function_and_lessens_the_variance(agreement, small):
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = agreement(double_cv(), replace(small("bits"), f=lambda x: x @ w + 2), replicates=256)
    assert found.state["alpha"].item() == pytest.approx(-1, abs=0.02)
    plain, learned = (agreement(e, small("bits")) for e in (rloo(samples=2), double_cv()))
    assert learned.total_variance < plain.total_variance - 4 * plain.total_variance_se


@pytest.mark.parametrize("settings", [{"samples": 1}, {"steps": -1}, {"lr": -1.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=rf"double_cv\[{setting}="):
        double_cv(**settings)
