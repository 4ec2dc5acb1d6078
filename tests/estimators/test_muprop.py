"""MuProp: agreement, and no variance at all where f is linear."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.muprop import combine, muprop

PROBLEMS = [
    "bits",
    "bits elbo",
    "categories",
    "counts elbo",
    "amortised bits elbo",
    "amortised categories elbo",
    "amortised counts",
]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_agrees_with_the_exact_gradient(agreement, small, problem):
    found = agreement(muprop(samples=2), small(problem))
    rows = max(small(problem).rows, 1)
    assert found.z < found.allowed
    assert (found.f, found.df) == (3 * rows, rows)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(muprop(), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_a_wrong_constant_is_seen(agreement, small, problem):
    def wrong(q, x, fx, dfx):
        return combine(q, x, fx, dfx) - 0.3 * q.mean_pull(dfx[-1])

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
    with pytest.raises(ValueError, match="at least one sample"):
        muprop(samples=0)
