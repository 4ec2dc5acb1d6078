"""REBAR, and z given b, on which it and RELAX stand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, learn, prepare
from estimators.base import mismatch
from estimators.conditional_relaxation import conditioned, free, tied
from estimators.muprop import muprop
from estimators.rebar import rebar
from estimators.relaxation import jacobian
from estimators.score_function import reinforce
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical, onehot_argmax

PROBLEMS = ["bits", "bits elbo", "categories", "categories elbo", "amortised bits elbo", "amortised categories"]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.1, "eta": 0.6},
        {"steps": 30},
        {"relaxation": "muprop", "steps": 30},
        {"coupling": "tied"},
        {"coupling": "tied", "relaxation": "muprop", "steps": 30},
    ],
    ids=str,
)
def test_it_agrees_with_the_exact_gradient(agreement, small, settings, problem):
    found = agreement(rebar(**settings), small(problem))
    rows, points = max(small(problem).rows, 1), 2 if "coupling" in settings else 3
    assert found.z < found.allowed
    assert (found.f, found.df) == (points * rows, (points - 1) * rows)


@pytest.mark.parametrize("coupling", ["independent", "tied"])
def test_rows_drawn_for_each_replicate_agree(agreement, small, coupling):
    found = agreement(rebar(coupling=coupling, steps=10), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_a_law_of_z_given_b_that_does_not_move_with_the_logits_is_seen(agreement, small, problem):
    def combine(q, x, fx, dfx):
        """The derivative of z~ as if it were z's own: dz~/dl = 1."""
        (b, s, s_tilde), (f_b, _, f_tilde), (_, df, df_tilde) = x, fx, dfx
        return q.score(b[None], (f_b - f_tilde)[None]) + (jacobian(q, s, df) - jacobian(q, s_tilde, df_tilde)) / 0.5

    found = agreement(replace(rebar(), combine=combine), small(problem), replicates=65_536)
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_tied_noise_without_the_difference_of_the_derivatives_is_seen(agreement, small, problem):
    def combine(q, x, fx):
        return q.score(x[:1], (fx[0] - fx[1])[None])

    found = agreement(replace(rebar(coupling="tied"), combine=combine), small(problem))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits elbo", "categories"])
@pytest.mark.parametrize("coupling", ["independent", "tied"])
def test_the_mean_preserving_relaxation_tends_to_muprop_without_its_linear_term(small, problem, coupling):
    """On the same samples: the gap falls as 1 / lam."""
    plain = gradients(prepare(muprop(linear=False), small(problem)), range(64), {"eta": torch.ones(()).double()})

    def gap(lam: float) -> float:
        trial = prepare(rebar(temperature=lam, coupling=coupling, relaxation="muprop"), small(problem))
        return float((gradients(trial, range(64), learn(trial)[0]) - plain).abs().max())

    assert gap(1e5) < 1e-3
    assert gap(1e4) == pytest.approx(10 * gap(1e5), rel=0.01)


def test_it_has_less_variance_than_the_score_function_and_learning_lessens_it(agreement, small):
    plain, fixed, learned = (agreement(e, small("bits elbo")) for e in (reinforce(), rebar(), rebar(steps=200)))
    assert fixed.total_variance < plain.total_variance - 4 * plain.total_variance_se
    assert learned.total_variance < fixed.total_variance - 4 * fixed.total_variance_se
    assert (learned.learning.f, learned.learning.gradient) == (200 * 100 * 3, 200 * 100 * 2)


@pytest.mark.parametrize(("family", "event"), [(Bernoulli, (4,)), (Categorical, (2, 3))])
def test_z_given_b_is_of_b_and_its_derivative_is_that_of_the_published_form(family, event):
    generator = torch.Generator().manual_seed(1)
    theta = 2 * torch.randn(event, generator=generator, dtype=torch.float64)
    u, v = (torch.rand(500, *event, generator=generator, dtype=torch.float64) for _ in range(2))
    noise_u, noise_v = (w if family is Bernoulli else -(-w.log()).log() for w in (u, v))
    q = family(theta)
    b = q.sample(noise_u)
    z, pull = conditioned(q, b, noise_v)
    c = torch.randn(500, *event, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(tied(q, b, z)(c), pull(c), rtol=1e-9, atol=1e-9)
    hard = (z > 0).to(z) if family is Bernoulli else onehot_argmax(z)
    assert torch.equal(hard, b)

    spread = theta.expand(500, *event).clone().requires_grad_()
    published = published_bits(spread, b, v) if family is Bernoulli else published_categories(spread, b, v)
    (expected,) = torch.autograd.grad((published * c).sum(), spread)
    torch.testing.assert_close(z, published.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pull(c), expected, rtol=1e-9, atol=1e-9)


def published_bits(logits, b, v):
    """l + logit v', v' = v p + 1 - p where b = 1, v (1 - p) where b = 0."""
    p = logits.sigmoid()
    return logits + torch.where(b > 0, v * p + 1 - p, v * (1 - p)).logit()


def published_categories(logits, b, v):
    """-log(-log v_b) for b, -log(-log(v_i) / p_i - log v_b) for the others."""
    log_v_b = (b * v.log()).sum(-1, keepdim=True)
    return torch.where(b > 0, -(-log_v_b).log(), -(-v.log() / logits.softmax(-1) - log_v_b).log())


def test_z_given_b_has_the_law_of_z_where_b_comes_out():
    """Mean and spread of sigmoid(z) over b: z itself, and z~ given b with noise of its own, within 4 standard errors."""
    q = Bernoulli(torch.tensor([0.7, -1.5], dtype=torch.float64))
    u, v = torch.rand(2, 200_000, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    b = q.sample(u)
    for moment in (1, 2):
        ours, theirs = (z.sigmoid() ** moment for z in (free(q, u), conditioned(q, b, v)[0]))
        for bit in (0, 1):
            mine, other = (torch.where(b == bit, t, 0) for t in (ours, theirs))
            gap, se = (mine - other).mean(0), (mine - other).std(0) / 200_000**0.5
            assert (gap.abs() < 4 * se).all()


@pytest.mark.parametrize("problem", ["bits elbo", "categories elbo"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("logit", [30.0, 200.0])
@pytest.mark.parametrize("coupling", ["independent", "tied"])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, problem, dtype, logit, coupling):
    base = small(problem)
    trial = prepare(rebar(coupling=coupling, steps=2), replace(base, theta=logit * base.theta.sign()), dtype=dtype)
    state, _ = learn(trial)
    assert all(t.isfinite().all() for t in state.values())
    assert gradients(trial, range(2048), state).isfinite().all()


def test_a_uniform_that_rounds_to_one_in_float32_leaves_z_finite():
    q = Bernoulli(torch.tensor([0.0, 30.0, -30.0]))
    one = torch.ones(2, 3)
    b = torch.tensor([[0.0], [1.0]]).expand(2, 3)
    z, pull = conditioned(q, b, one)
    assert z.isfinite().all()
    assert pull(one).isfinite().all()
    assert free(q, one).isfinite().all()


def test_learning_takes_a_second_derivative_of_f(small):
    once = replace(small("bits"), smooth=1)
    assert mismatch(rebar(), once) is None
    assert "needs 2 derivatives of f" in mismatch(rebar(steps=1), once)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"coupling": "loose"}, {"relaxation": "hard"}, {"steps": -1}, {"lr": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=rf"rebar\[{setting}="):
        rebar(**settings)
