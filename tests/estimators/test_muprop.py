"""MuProp: agreement, and no variance at all where f is linear."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.muprop import combine, muprop
from estimators.score_function import reinforce
from problems import PROBLEMS

COSTS = ["geometric", "binomial", "weibull", "beta", "dirichlet"]
SMALL = [
    "bits",
    "bits elbo",
    "categories",
    "counts elbo",
    "normals",
    "amortised bits elbo",
    "amortised categories elbo",
    "amortised counts",
]


@pytest.mark.parametrize("problem", SMALL)
def test_it_agrees_with_the_exact_gradient(agreement, small, problem):
    found = agreement(muprop(samples=2), small(problem))
    rows = max(small(problem).rows, 1)
    assert found.z < found.allowed
    assert (found.f, found.df) == (3 * rows, rows)


@pytest.mark.parametrize("problem", ["bits", "categories elbo", "amortised bits elbo"])
@pytest.mark.parametrize(
    "settings", [{"linear": False}, {"eta": 0.6}, {"linear": False, "steps": 30}, {"steps": 30}], ids=str
)
def test_it_agrees_whatever_the_expansion_and_its_scale(agreement, small, settings, problem):
    found = agreement(muprop(**settings), small(problem))
    rows, gradients = max(small(problem).rows, 1), settings.get("linear", True)
    assert found.z < found.allowed
    assert (found.f, found.df) == (2 * rows, gradients * rows)
    assert found.learning.f == 200 * settings.get("steps", 0) * rows


def test_without_the_linear_term_it_is_a_baseline(small):
    """REINFORCE with f(mu) for its baseline, on the same samples."""
    problem = small("categories")
    baseline = float(problem.f(problem.theta.softmax(-1)))
    found = gradients(
        prepare(muprop(3, linear=False), problem), range(64), {"eta": torch.ones((), dtype=torch.float64)}
    )
    plain = gradients(prepare(reinforce(3, baseline=baseline), problem), range(64))
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_learning_the_scale_lessens_the_variance(agreement, small):
    for linear in (True, False):
        fixed, learned = (agreement(muprop(linear=linear, eta=0.2, steps=n), small("bits elbo")) for n in (0, 200))
        assert learned.total_variance < fixed.total_variance - 4 * fixed.total_variance_se


@pytest.mark.parametrize("family", ["subset", *(f"{name}_cost" for name in COSTS)])
def test_other_families_that_have_a_mean(agreement, family):
    found = agreement(muprop(samples=2), PROBLEMS[family]())
    assert found.z < found.allowed


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(muprop(), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_a_wrong_constant_is_seen(agreement, small, problem):
    def wrong(q, x, fx, dfx, state):
        return combine(q, x, fx, dfx, state) - 0.3 * q.mean_pull(dfx[-1])

    found = agreement(replace(muprop(), combine=wrong), small(problem))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_a_linear_function_has_no_variance(agreement, small, problem):
    base = small(problem)
    w = torch.arange(1.0, base.theta.numel() + 1, dtype=torch.float64)
    axes = 1 if problem == "bits" else 2
    found = agreement(muprop(), replace(base, f=lambda x: x.flatten(-axes) @ w + 2), replicates=256)
    assert found.total_variance < 1e-28
    assert (found.mean - found.truth).abs().max() < 1e-13


def test_f_must_be_defined_at_the_mean(small):
    assert "off its support" in mismatch(muprop(), replace(small("bits"), relaxed=False))
    assert "needs 1 derivative of f" in mismatch(muprop(), replace(small("bits"), smooth=0))
    assert mismatch(muprop(linear=False), replace(small("bits"), smooth=0)) is None
    assert "off its support" in mismatch(muprop(linear=False), replace(small("bits"), relaxed=False))


@pytest.mark.parametrize("settings", [{"samples": 0}, {"steps": -1}, {"lr": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=rf"muprop\[{setting}="):
        muprop(**settings)
