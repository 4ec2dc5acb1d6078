"""LAX and DLAX: agreement whatever the network, and the networks that make them another estimator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, learn, prepare
from estimators import lax as home
from estimators.base import mismatch
from estimators.conditional_relaxation import free
from estimators.lax import dlax, lax, relaxed_score
from estimators.learning import slope
from estimators.pathwise import pathwise
from estimators.score_function import reinforce
from estimators.surrogate import network
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical

CONTINUOUS = ["normals", "normals elbo", "gammas elbo", "amortised normals", "amortised normals elbo"]
DISCRETE = ["bits", "bits elbo", "categories", "categories elbo", "amortised bits elbo", "amortised categories"]
PAIRS = [*((lax, problem) for problem in CONTINUOUS), *((dlax, problem) for problem in DISCRETE)]


def name(value) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("factory", "problem"), PAIRS, ids=name)
@pytest.mark.parametrize("steps", [0, 30])
def test_it_agrees_with_the_exact_gradient(agreement, small, steps, factory, problem):
    found = agreement(factory(steps=steps), small(problem))
    rows = max(small(problem).rows, 1)
    assert found.z < found.allowed
    assert (found.f, found.df) == (rows, 0)
    assert (found.learning.f, found.learning.gradient) == (100 * steps * rows, 0)


@pytest.mark.parametrize(
    ("factory", "problem"), [(lax, "amortised normals elbo"), (dlax, "amortised bits elbo")], ids=name
)
def test_rows_drawn_for_each_replicate_agree(agreement, small, factory, problem):
    found = agreement(factory(steps=10), replace(small(problem), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize(("factory", "problem"), [(lax, "normals"), (dlax, "bits"), (dlax, "categories")], ids=name)
def test_a_path_left_out_is_seen(agreement, small, monkeypatch, factory, problem):
    monkeypatch.setattr(home, "slope", lambda c, z: (slope(c, z)[0], torch.zeros_like(z)))
    found = agreement(factory(steps=0), small(problem))
    assert found.z > found.allowed


@pytest.mark.parametrize(("factory", "problem"), [(lax, "normals elbo"), (dlax, "categories")], ids=name)
def test_with_a_surrogate_of_nil_it_is_the_score_function(small, factory, problem):
    trial = prepare(factory(steps=0), small(problem))
    nil = {name: torch.zeros_like(t) for name, t in learn(trial)[0].items()}
    plain = gradients(prepare(reinforce(), small(problem)), range(64))
    torch.testing.assert_close(gradients(trial, range(64), nil), plain, rtol=0, atol=0)


def test_with_f_for_a_surrogate_it_is_the_pathwise_gradient(small, monkeypatch):
    problem = small("normals")
    monkeypatch.setattr(home, "network", lambda state, x: problem.f(x))
    trial = prepare(lax(steps=0), problem)
    plain = gradients(prepare(pathwise(), problem), range(64))
    torch.testing.assert_close(gradients(trial, range(64), learn(trial)[0]), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", [Bernoulli, Categorical])
def test_the_relaxed_score_is_that_of_the_density(family):
    """The logistic density as that of a transformed uniform, the Gumbel density from torch."""
    theta = torch.tensor([[0.4, -1.2, 3.0], [0.0, 7.0, -0.3]], dtype=torch.float64)
    u = torch.rand(50, 2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    z = free(family(theta), u if family is Bernoulli else -(-u.log()).log())
    leaf = theta.expand(50, 2, 3).clone().requires_grad_()
    if family is Bernoulli:
        unit = torch.distributions.Uniform(torch.zeros(()).double(), 1)
        logit = torch.distributions.SigmoidTransform().inv
        shifted = torch.distributions.AffineTransform(leaf, 1.0)
        density = torch.distributions.TransformedDistribution(unit, [logit, shifted], validate_args=False)
    else:
        density = torch.distributions.Gumbel(leaf, torch.ones(()).double())
    (expected,) = torch.autograd.grad(density.log_prob(z).sum(), leaf)
    torch.testing.assert_close(relaxed_score(family(theta), z), expected)


@pytest.mark.parametrize(("factory", "problem"), [(lax, "normals"), (dlax, "bits")], ids=name)
def test_learning_lessens_the_variance(agreement, small, factory, problem):
    untrained, trained = (agreement(factory(steps=steps), small(problem)) for steps in (0, 300))
    assert trained.total_variance < 0.8 * untrained.total_variance


def test_the_network_is_one_layer_of_tanh_units():
    weights = {
        "W": torch.tensor([[1.0, 2.0]]),
        "a": torch.tensor([0.5]),
        "w": torch.tensor([3.0]),
        "c0": torch.tensor(-1.0),
    }
    found = network(weights, torch.tensor([[0.1, -0.2]]))
    torch.testing.assert_close(found, 3 * torch.tensor([0.1 - 0.4 + 0.5]).tanh() - 1)


def test_a_black_box_will_do(small):
    assert mismatch(lax(), replace(small("normals"), smooth=0, relaxed=False)) is None
    assert mismatch(dlax(), replace(small("bits"), smooth=0, relaxed=False)) is None
    assert "lax is for normal" in mismatch(lax(), small("bits"))


@pytest.mark.parametrize("problem", ["bits elbo", "categories elbo"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, problem, dtype):
    base = small(problem)
    trial = prepare(dlax(steps=2), replace(base, theta=200 * base.theta.sign()), dtype=dtype)
    state, _ = learn(trial)
    assert gradients(trial, range(2048), state).isfinite().all()


@pytest.mark.parametrize("factory", [lax, dlax], ids=name)
@pytest.mark.parametrize("settings", [{"hidden": 0}, {"steps": -1}, {"lr": 0.0}])
def test_settings_that_make_no_sense_are_refused(factory, settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=rf"{factory.__name__}\[{setting}="):
        factory(**settings)
