"""Local DisARM for importance-weighted bounds: agreement, that it is DisARM of one sample, and less variance than VIMCO."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.disarm import disarm
from estimators.importance_weighted import vimco
from estimators.vimco_disarm import turned, vimco_disarm
from problems.objectives import Elbo, ImportanceWeighted, log_mean_exp

BOTH = pytest.mark.parametrize("weights", ["paired", "apart"])


def bounded(problem, samples):
    return replace(problem, objective=ImportanceWeighted(samples))


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("problem", ["bits", "amortised bits"])
@BOTH
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, samples, weights):
    there = bounded(small(problem), samples)
    found = agreement(vimco_disarm(weights), there)
    assert found.z < found.allowed
    assert (found.f, found.df) == (2 * samples * max(there.rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(vimco_disarm(), replace(bounded(small("amortised bits"), 2), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "amortised bits"])
def test_a_wrong_constant_and_weights_left_out_are_seen(agreement, small, problem):
    right, apart = vimco_disarm(), vimco_disarm("apart")

    def scaled(q, x, fx):
        return 1.1 * right.combine(q, x, fx)

    def without_weights(q, x, fx):
        return apart.combine(q, x, fx) + q.score(x.chunk(2)[0], fx.chunk(2)[0].softmax(0))

    for wrong in (scaled, without_weights):
        found = agreement(replace(right, combine=wrong), bounded(small(problem), 3), replicates=65_536)
        assert found.z > found.allowed, wrong.__name__


def test_of_one_sample_it_is_disarm(small):
    """The model's gradient as well."""
    problem = small("amortised bits")
    ours = gradients(prepare(vimco_disarm(), bounded(problem, 1)), range(64))
    theirs = gradients(prepare(disarm(), replace(problem, objective=Elbo())), range(64))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("problem", ["bits", "amortised bits"])
def test_its_variance_is_less_than_that_of_vimco_and_less_with_the_weights_in_the_pair_than_apart(
    agreement, small, problem, samples
):
    there = bounded(small(problem), samples)
    theta = there.theta.numel()
    paired, apart, other = (agreement(e, there) for e in (vimco_disarm(), vimco_disarm("apart"), vimco()))
    for more in (apart, other):
        gap = ((more.gradients - more.truth).square() - (paired.gradients - paired.truth).square())[:, :theta].sum(1)
        assert gap.mean() > 4 * gap.std() / math.sqrt(len(gap))


def test_the_bound_with_one_sample_turned():
    log_w, log_w_tilde = (torch.randn(4, 5, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2))
    for k in range(4):
        there = log_w.clone()
        there[k] = log_w_tilde[k]
        assert torch.allclose(turned(log_w, log_w_tilde)[k], log_mean_exp(there), atol=1e-14)
    assert torch.equal(turned(log_w[:1], log_w_tilde[:1]), log_w_tilde[:1])


@pytest.mark.parametrize("size", [30.0, 800.0])
@BOTH
def test_certain_bits_give_finite_gradients(agreement, small, size, weights):
    """The fixture looks at that; the bits at +-30 are never turned here, and turned their weights would be e^30."""
    there = replace(bounded(small("bits"), 2), theta=torch.tensor([size, 0.2, -size], dtype=torch.float64))
    found = agreement(vimco_disarm(weights), there, 4096)
    se = found.gradients[:, 1].std() / 64
    assert abs(found.mean[1] - found.truth[1]) < 4.5 * se
    assert found.gradients[:, [0, 2]].abs().max() < 1e-12


def test_what_does_not_fit_is_refused(small):
    with pytest.raises(ValueError, match=r"vimco_disarm\[weights=score\]: weights is paired or apart"):
        vimco_disarm("score")
    assert "vimco_disarm estimates the gradient of ImportanceWeighted" in mismatch(vimco_disarm(), small("bits elbo"))
