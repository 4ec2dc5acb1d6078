"""RELAX: agreement whatever its network, and less variance once it has learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.evaluate import gradients, learn, prepare
from estimators.base import mismatch
from estimators.conditional_relaxation import conditioned, free
from estimators.learning import slope
from estimators.relax import relax, surrogate

PROBLEMS = ["bits", "bits elbo", "categories", "categories elbo", "amortised bits elbo", "amortised categories"]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("steps", [0, 30])
def test_it_agrees_with_the_exact_gradient(agreement, small, steps, problem):
    found = agreement(relax(steps=steps), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (max(small(problem).rows, 1), 0)
    assert (found.learning.f, found.learning.gradient) == (100 * steps * max(small(problem).rows, 1), 0)


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_a_law_of_z_given_b_that_does_not_move_with_the_logits_is_seen(agreement, small, problem):
    def combine(q, noise, x, fx, state):
        c = surrogate(q, state)
        c_tilde, dc_tilde = slope(c, conditioned(q, x[0], noise[1])[0])
        return q.score(x, fx - c_tilde[None]) + slope(c, free(q, noise[0]))[1] - dc_tilde

    found = agreement(replace(relax(steps=0), combine=combine), small(problem), replicates=65_536)
    assert found.z > found.allowed


def test_learning_lessens_the_variance(agreement, small):
    untrained, trained = (agreement(relax(steps=steps), small("bits")) for steps in (0, 300))
    assert trained.total_variance < 0.8 * untrained.total_variance


def test_a_large_constant_in_f_is_learned_away(agreement, small):
    base = small("bits")
    shifted = replace(base, f=lambda x: base.f(x) - 200)
    plain, learned = (agreement(relax(steps=200), problem) for problem in (base, shifted))
    assert learned.z < learned.allowed
    assert learned.total_variance < 1.5 * plain.total_variance


def test_a_black_box_will_do(small):
    assert mismatch(relax(), replace(small("bits"), smooth=0, relaxed=False)) is None


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, dtype):
    base = small("bits elbo")
    trial = prepare(relax(steps=2), replace(base, theta=200 * base.theta.sign()), dtype=dtype)
    state, _ = learn(trial)
    assert gradients(trial, range(2048), state).isfinite().all()


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"steps": -1}, {"lr": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=rf"relax\[{setting}="):
        relax(**settings)
