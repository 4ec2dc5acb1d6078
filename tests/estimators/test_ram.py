"""RAM on layers: agreement, what it is by hand, its order against the score function, and its special cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import mismatch
from estimators.intervention import each_set, forcing, sites
from estimators.local_expectation import local_expectation, others
from estimators.noise import MEASURE
from estimators.ram import ram
from estimators.score_function import reinforce
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.families.chain import Chain

PROBLEMS = {"layers": 3 * (1 + 4), "layers of categories": 1 + 2 * 2}


@pytest.mark.parametrize("estimator", [ram, local_expectation])
@pytest.mark.parametrize("objective", ["", " elbo"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [1, 2])
def test_it_agrees_with_the_exact_gradient(agreement, small, estimator, problem, samples, objective):
    found = agreement(estimator(samples), small(problem + objective))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * PROBLEMS[problem], 0)


@pytest.mark.parametrize("estimator", [ram, local_expectation])
def test_rows_drawn_for_each_replicate_agree(agreement, small, estimator):
    found = agreement(estimator(), replace(small("layers elbo"), batch=2))
    assert found.z < found.allowed


def test_what_follows_left_as_it_was_is_seen(agreement, small):
    """Points of local expectation with the weights of RAM, and the other way round."""
    for right, other in ((ram(), local_expectation()), (local_expectation(), ram())):
        found = agreement(replace(right, draw=other.draw), small("layers"), replicates=65_536)
        assert found.z > found.allowed


def test_it_is_the_mean_of_the_score_function_given_the_noise_of_the_others(small):
    """Site by site: the noise of one site drawn afresh many times, the others' held; a bit is 1 with its probability."""
    problem = small("layers of categories")
    known = ask(prepare(ram(), problem), range(3), None, MEASURE, Count()).known
    q, noise, z = known["q"], known["noise"], known["x"][:1]
    v = torch.cat([z[None], others(q, z)])
    at = sites(q, z)
    expected = torch.zeros_like(z)
    for d in range(z.shape[-2]):
        for value in v:
            edited = noise.clone()
            edited[..., d, :] = forcing(q, value)[..., d, :]
            x = q.sample(edited)
            chance = (value * at.mean).sum(-1)[..., d]
            expected[..., d, :] += (chance * problem.f(x))[..., None] * at.local(value)[..., d, :]
    torch.testing.assert_close(ram().combine(q, known["x"], known["fx"]), q.pull(z, expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", [ram, local_expectation])
@pytest.mark.parametrize("problem", ["layers", "layers of categories elbo"])
def test_it_never_has_more_variance_than_the_score_function(agreement, small, estimator, problem):
    """On the same draws, so that the difference of the variances is a paired contrast: every weight belongs to one site."""
    ours, other = agreement(estimator(), small(problem)), agreement(reinforce(), small(problem))
    contrast = (other.gradients - other.mean) ** 2 - (ours.gradients - ours.mean) ** 2
    theta = small(problem).theta.numel()  # the model's gradient is the same
    t = contrast.mean(0) / contrast.std(0).clamp(min=1e-300) * len(contrast) ** 0.5
    assert (t[:theta] > -4).all()
    assert t[:theta].max() > 10
    covariance = ((other.gradients - ours.gradients) * (ours.gradients - ours.mean))[:, :theta]
    z = covariance.mean(0) / covariance.std(0) * len(covariance) ** 0.5
    assert (z.abs() < 4.5).all()  # a conditional mean is not correlated with what it leaves


@pytest.mark.parametrize("layer", [Bernoulli, Categorical])
def test_of_sites_that_do_not_depend_on_one_another_all_three_are_the_same(layer):
    theta = torch.tensor([[0.3, -0.5, 0.8], [1.1, 0.2, -0.9]], dtype=torch.float64)
    theta = theta[:, 0] if layer is Bernoulli else theta
    A = torch.arange(1.0, theta.numel() + 1, dtype=torch.float64).reshape(theta.shape)

    def f(x):
        return (x * A).flatten(x.ndim - theta.ndim).sum(-1).cos()

    categories = 0 if layer is Bernoulli else 3
    chain = Chain(layer, [lambda w, earlier: w.reshape(theta.shape)], [2], categories=categories)
    alone = Problem("same", layer, theta, f)
    layered = Problem("same", chain, theta.flatten(), f)
    expected = gradients(prepare(local_expectation(2), alone), range(64))
    for estimator in (ram(2), local_expectation(2)):
        torch.testing.assert_close(gradients(prepare(estimator, layered), range(64)), expected, rtol=1e-12, atol=1e-14)


def test_the_last_layer_is_summed_as_local_expectation_sums_it(small):
    """Nothing follows it."""
    problem = small("layers of categories")
    of_last = slice(3, 12)
    ours, other = (gradients(prepare(e, problem), range(64)) for e in (ram(), local_expectation()))
    torch.testing.assert_close(ours[:, of_last], other[:, of_last], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(ours[:, :3], other[:, :3], rtol=1e-3)


def test_a_value_is_forced_whatever_the_parameters(small):
    for name in ("layers", "layers of categories"):
        problem = small(name)
        q = problem.bind(1e4 * problem.theta, problem.data)
        known = ask(prepare(ram(), problem), range(8), None, MEASURE, Count()).known
        z = q.sample(known["noise"])
        points = each_set(q, z, known["noise"], others(q, z))
        D = z.shape[-q.event_axes]
        for i, value in enumerate(others(q, z)):
            for d in range(D):
                assert torch.equal(points[i * D + d].movedim(-q.event_axes, 0)[d], value.movedim(-q.event_axes, 0)[d])
        g = gradients(prepare(ram(), replace(problem, theta=100 * problem.theta)), range(64))
        assert g.isfinite().all()


def test_what_does_not_fit_is_refused(small):
    with pytest.raises(ValueError, match=r"ram\[samples=0\]: samples must be at least 1"):
        ram(0)
    assert "ram is for chain of bernoulli or chain of categorical variables" in mismatch(ram(), small("bits"))
