"""The shared check itself: it passes an unbiased estimator on every small problem, and fails the same one with a wrong constant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estimators.score_function import rloo

PROBLEMS = ["bits", "categories", "normals", "counts", "layers", "layers of categories"]
AMORTISED = ["amortised bits", "amortised categories", "amortised normals", "amortised counts"]


@pytest.mark.parametrize("objective", ["", " elbo"])
@pytest.mark.parametrize("problem", PROBLEMS + AMORTISED)
def test_leave_one_out_agrees_with_the_exact_gradient(agreement, small, problem, objective):
    found = agreement(rloo(samples=3), small(problem + objective), replicates=8192)
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "normals elbo", "amortised bits elbo", "layers"])
def test_a_wrong_constant_is_seen(agreement, small, problem):
    right = rloo(samples=2)

    def combine(q, x, fx):
        return q.score(x, (fx - fx.mean(0)) / 2)

    found = agreement(replace(right, combine=combine), small(problem), replicates=8192)
    assert found.z > found.allowed


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(rloo(samples=2), replace(small("amortised bits elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


def test_it_counts_evaluations_per_replicate(agreement, small):
    found = agreement(rloo(samples=3), small("bits"), replicates=1000)
    assert (found.f, found.df, found.hf, found.learning.f) == (3, 0, 0, 0)
