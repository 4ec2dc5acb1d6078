"""DisARM on layers: each layer's pair runs what follows again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.disarm_layers import combine, disarm_layers
from estimators.score_function import rloo


@pytest.mark.parametrize("problem", ["layers", "layers elbo"])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem):
    found = agreement(disarm_layers(), small(problem), replicates=32_768)
    assert found.z < found.allowed
    assert found.f == 3 * (1 + 2)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(disarm_layers(), replace(small("layers elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


def test_it_has_less_variance_than_leave_one_out_of_as_many_evaluations(agreement, small):
    ours, other = agreement(disarm_layers(), small("layers")), agreement(rloo(samples=3), small("layers"))
    assert ours.total_variance < other.total_variance - 4 * other.total_variance_se


def test_layers_that_are_not_run_again_are_seen(agreement, small):
    def draw(q, noise):
        b = q.sample(noise)
        turned = [torch.where(torch.isin(torch.arange(4), layer), q.sample(1 - noise), b) for layer in q.layers]
        return torch.stack([b, *turned])

    found = agreement(replace(disarm_layers(), draw=draw), small("layers"), replicates=32_768)
    assert found.z > found.allowed


def test_a_wrong_constant_is_seen(agreement, small):
    def wrong(q, x, fx):
        return 1.1 * combine(q, x, fx)

    found = agreement(replace(disarm_layers(), combine=wrong), small("layers"), replicates=32_768)
    assert found.z > found.allowed


def test_variables_without_layers_are_refused(small):
    assert "chain of bernoulli" in mismatch(disarm_layers(), small("bits"))
