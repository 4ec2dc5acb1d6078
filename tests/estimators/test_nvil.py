"""NVIL: a baseline learned for each datum, and for each layer from the layers before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import claim_of
from estimators.moving_average import moving_average_baseline
from estimators.nvil import inputs, layer_of, network, nvil

PROBLEMS = [
    "bits elbo",
    "categories",
    "normals elbo",
    "counts",
    "amortised bits elbo",
    "amortised categories",
    "amortised normals",
    "layers elbo",
    "layers of categories",
]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [1, 3])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, samples):
    found = agreement(nvil(samples, hidden=8, steps=30), small(problem))
    assert found.z < found.allowed
    rows = max(small(problem).rows, 1)
    assert (found.f, found.df, found.learning.f) == (samples * rows, 0, 30 * 20 * samples * rows)


@pytest.mark.parametrize("problem", ["amortised bits elbo", "layers elbo"])
def test_rows_drawn_for_each_replicate_agree(agreement, small, problem):
    found = agreement(nvil(hidden=8, steps=30), replace(small(problem), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "amortised categories elbo"])
def test_normalised_it_is_the_gradient_over_the_spread_that_is_left(agreement, small, problem):
    """theta's part; v of the frozen state."""
    quiet = small(problem)
    louder = (lambda x, data, model: 9 * quiet.f(x, data, model)) if quiet.rows else (lambda x: 9 * quiet.f(x))
    loud = replace(quiet, f=louder)
    ours = nvil(hidden=8, steps=30, normalised=True)
    assert claim_of(ours, loud) == "biased"
    found = agreement(ours, loud)
    spread = found.state["v"].sqrt()
    assert spread > 2
    n = loud.theta.numel()
    target = torch.cat([found.truth[:n] / spread, found.truth[n:]])
    scaled = agreement(ours, replace(loud, exact=lambda _: target))
    assert scaled.z < scaled.allowed
    assert found.z > found.allowed


def test_a_spread_below_1_is_left_alone(agreement, small):
    quiet = replace(small("bits"), f=lambda x: 0.1 * small("bits").f(x))
    one, two = (agreement(nvil(hidden=4, steps=30, normalised=n), quiet, replicates=256) for n in (False, True))
    assert torch.equal(one.gradients, two.gradients)


def far_apart(small):
    """A bound whose value differs by tens between data."""
    amortised = small("amortised bits elbo")
    return replace(amortised, f=lambda x, data, model: amortised.f(x, data, model) + 20 * data[..., 0] * data[..., 1])


def test_it_learns_the_mean_of_f_of_every_datum(agreement, small):
    problem = far_apart(small)
    found = agreement(nvil(), problem)
    q = problem.bind(problem.site_parameters(problem.theta))
    x = q.support()[:, None].expand(-1, 3, -1)
    log_q = q.log_prob(x)
    wanted = (log_q.exp() * (problem.value(x) - log_q)).sum(0)
    learned = network(found.state, inputs(q, x[None], problem.data, found.state))[:, 0] + found.state["c"]
    assert wanted.max() - wanted.min() > 10
    assert (learned - wanted).abs().max() < 0.5
    constant = agreement(moving_average_baseline(), problem)
    assert (found.variance[:4] < 0.2 * constant.variance[:4]).all()


def test_a_layer_learns_from_the_layer_before(agreement, small):
    """f is large where the first bit of the first layer is set: the second layer's baseline knows it, the first's does not."""
    plain = small("layers")
    problem = replace(plain, f=lambda x, data, model: plain.f(x, data, model) + 10 * x[..., 0])
    found = agreement(nvil(), problem)
    x = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    x[1, ..., 0] = 1
    q = problem.bind(problem.theta)
    c = network(found.state, inputs(q, x, problem.data, found.state))
    assert ((c[1] - c[0])[..., 1] > 5).all()
    assert (c[1] == c[0])[..., 0].all()
    blind = agreement(moving_average_baseline(), problem)
    upper = slice(4, 10)  # weights of the second layer
    assert (found.variance[upper] < 0.5 * blind.variance[upper]).all()


@pytest.mark.parametrize("problem", ["layers", "layers of categories"])
def test_a_layer_that_sees_itself_is_seen(agreement, small, problem, monkeypatch):
    """Its baseline depends on what it is the baseline of."""
    right = nvil(hidden=8, steps=100)
    honest = agreement(right, small(problem))
    monkeypatch.setattr("estimators.nvil.layer_of", lambda q, sites: layer_of(q, sites) - 1)

    def combine(q, x, fx, state, data):
        left = fx[..., None] - network(state, inputs(q, x, data, state)) - state["c"]
        own = layer_of(q, x.shape[-q.event_axes])
        return q.pull(x, left[..., own].reshape(*left.shape[:-1], -1, *[1] * (q.event_axes - 1)) * q.local(x))

    found = agreement(replace(right, combine=combine), small(problem))
    assert honest.z < honest.allowed
    assert found.z > found.allowed


def test_without_data_it_is_a_constant(agreement, small):
    found = agreement(nvil(steps=50), small("bits"), replicates=64)
    assert (found.state["w"] == 0).all()
    constant = agreement(moving_average_baseline(decay=0.8), small("bits"))
    ours = agreement(nvil(), small("bits"))
    assert ours.total_variance < constant.total_variance + 4 * constant.total_variance_se


@pytest.mark.parametrize(
    ("setting", "value"), [("samples", 0), ("hidden", 0), ("steps", -1), ("lr", 0.0), ("decay", 1)]
)
def test_settings_that_make_no_sense_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"nvil\[{setting}={value}\]"):
        nvil(**{setting: value})
