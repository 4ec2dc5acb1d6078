"""Exact enumeration has no bias and no variance, and says where a support is too large for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estimators.base import mismatch
from estimators.exact import combine, exact

FINITE = ["bits", "categories", "amortised bits", "amortised categories", "layers", "layers of categories"]


@pytest.mark.parametrize("objective", ["", " elbo"])
@pytest.mark.parametrize("problem", FINITE)
def test_it_is_the_exact_gradient(agreement, small, problem, objective):
    found = agreement(exact(), small(problem + objective), replicates=8)
    assert (found.gradients - found.truth).abs().max() < 1e-12 * found.truth.abs().max()
    assert found.total_variance < 1e-28


def test_rows_drawn_for_each_replicate_are_the_only_noise(agreement, small):
    found = agreement(exact(), replace(small("amortised bits elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


def test_a_wrong_weight_is_seen(agreement, small):
    def wrong(q, x, fx):
        return combine(q, x, fx) * (1 + 1e-9)

    found = agreement(replace(exact(), combine=wrong), small("bits"), replicates=8)
    assert found.z > found.allowed


def test_it_evaluates_every_state_once(agreement, small):
    found = agreement(exact(), small("categories"), replicates=8)
    assert (found.f, found.df) == (9, 0)


def test_a_support_that_is_too_large_or_infinite_is_refused_in_a_sentence(small):
    assert mismatch(exact(states=8), small("bits")) is None
    assert (
        mismatch(exact(states=7), small("bits")) == "exact enumerates the support, at most 7 states; bits has 8 states"
    )
    assert "infinite support" in mismatch(exact(), small("normals"))
    with pytest.raises(ValueError, match="at least 1"):
        exact(states=0)
