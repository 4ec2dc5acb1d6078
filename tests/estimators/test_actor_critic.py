"""Actor-critic on the corridor, and on a chain of categories with data and a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.actor_critic import actor_critic, advantage, discounted, rewards
from estimators.base import claim_of, mismatch
from estimators.local_signals import layer_of, local_signals
from estimators.nvil import inputs, network
from problems.base import Problem
from problems.corridor import corridor
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.truth import log_probability


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk():
    return corridor(cells=3, steps=3).at("mid")


def labels():
    """Two layers of one category of three, for each of three data; an addend for each, and one that depends on none."""
    family = Chain(
        Categorical,
        [
            lambda w, earlier, data: (data @ w[:6].reshape(2, 3))[..., None, :],
            lambda w, earlier: earlier[0] @ w[6:15].reshape(3, 3),
        ],
        [1, 1],
        categories=3,
        data=True,
    )

    def f(x, data, model):
        first, second = (x * model.reshape(2, 3)).sum(-1).unbind(-1)
        return torch.stack([first * data[..., 0], first + second**2, model[0] * data[..., 1] + 0 * first], -1)

    parts = torch.tensor([[1, 0], [1, 1], [0, 0]], dtype=torch.bool)
    return Problem("labels", family, numbers(1, 15), f, parts=parts, model=numbers(2, 6), data=numbers(3, 3, 2))


@pytest.mark.parametrize("make", [walk, labels])
@pytest.mark.parametrize("samples", [1, 3])
def test_it_agrees_with_the_exact_gradient(agreement, make, samples):
    found = agreement(actor_critic(samples, steps=50), make())
    assert found.z < found.allowed
    rows = max(make().rows, 1)
    assert (found.f, found.df, found.learning.f) == (samples * rows, 0, 50 * 20 * samples * rows)


def test_rows_drawn_for_each_replicate_agree(agreement):
    found = agreement(actor_critic(steps=50), replace(labels(), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("make", [walk, labels])
def test_without_learning_it_is_the_local_signals(agreement, make):
    ours, other = (agreement(e, make(), 256).gradients for e in (actor_critic(2, steps=0), local_signals(2)))
    assert torch.allclose(ours, other, rtol=1e-12, atol=1e-13)


def expected_rewards_to_go(problem):
    """The support, its probabilities, and E[G_l | layers before l] at every point of it, by enumeration: `[S, layers]`."""
    q = problem.bind(problem.theta)
    x = q.support()
    chance = log_probability(q, x[:, None])[:, 0].exp()
    G = discounted(rewards(q, problem.f(x), problem.parts.double()), 1.0)
    layer = layer_of(q, x.shape[-1])
    found = torch.zeros_like(G)
    for index in range(len(q.layers)):
        before = x[:, layer < index]
        same = (before[:, None] == before[None]).all(-1).to(x)
        found[:, index] = same @ (chance * G[:, index]) / (same @ chance)
    return x, chance, found


def test_the_critic_learns_what_is_expected_of_the_steps_to_come(agreement):
    problem = walk()
    found = agreement(actor_critic(steps=500), problem)
    x, chance, wanted = expected_rewards_to_go(problem)
    learned = (
        network(found.state, inputs(problem.bind(problem.theta), x[:, None], None, found.state)) + found.state["c"]
    )
    off = chance @ (learned[:, 0] - wanted).square()
    spread = chance @ (wanted - chance @ wanted).square()
    assert (spread[1:] > 0.05).all()
    assert (off[1:] < 0.1 * spread[1:]).all()
    assert off[0] < 1e-3


def test_a_critic_takes_noise_away(agreement):
    ours, other = agreement(actor_critic(), corridor().at("mid")), agreement(local_signals(), corridor().at("mid"))
    assert ours.total_variance < 0.6 * other.total_variance


def gradient_by_advantages(problem, A):
    """sum over the walks of q(x) sum_l A_l grad log q(x_l | before), A held fixed."""
    theta = problem.theta.clone().requires_grad_()
    q = problem.bind(theta)
    x = q.support()
    logits = q.params(x[:, None])[:, 0]
    each = torch.distributions.Bernoulli(logits=logits).log_prob(x).unflatten(-1, (len(q.layers), -1)).sum(-1)
    chance = each.detach().sum(-1).exp()
    return torch.autograd.grad((chance * (A(q, x) * each).sum(-1)).sum(), theta)[0]


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.0), (0.7, 1.0), (0.9, 0.5)])
def test_with_a_critic_of_nothing_less_trace_is_less_of_later_rewards(agreement, discount, trace):
    """A_l = sum_m (gamma lambda)^(m - l) r_m, where V = 0."""
    problem = walk()

    def A(q, x):
        r = problem.f(x)
        return torch.stack([sum((discount * trace) ** (m - l) * r[:, m] for m in range(l, 3)) for l in range(3)], -1)

    ours = actor_critic(discount=discount, trace=trace, steps=0)
    found = agreement(ours, replace(problem, exact=lambda _: gradient_by_advantages(problem, A)))
    assert found.z < found.allowed
    assert claim_of(ours, problem) == "biased"
    against_truth = agreement(ours, problem)
    assert against_truth.z > against_truth.allowed


def test_a_trace_of_nil_with_the_right_critic_has_no_bias_and_a_wrong_one_has(agreement):
    problem = walk()
    values = expected_rewards_to_go(problem)[2]

    def gradient(V):
        return gradient_by_advantages(problem, lambda q, x: advantage(problem.f(x), V, 1.0, 0.0))

    wanted = gradient_by_advantages(problem, lambda q, x: discounted(problem.f(x), 1.0))
    assert torch.allclose(gradient(values), wanted, rtol=0, atol=1e-13)
    assert (gradient(0.5 * values) - wanted).norm() > 0.1 * wanted.norm()
    assert (
        agreement(actor_critic(trace=0.0), problem).total_variance < agreement(actor_critic(), problem).total_variance
    )


def test_of_one_step_nothing_comes_later(agreement):
    ours, problem = actor_critic(discount=0.5, trace=0.3, steps=10), corridor(cells=2, steps=1).at("mid")
    assert claim_of(ours, problem) == "unbiased"
    found = agreement(ours, problem)
    assert found.z < found.allowed


def test_the_advantage_by_hand():
    r, V = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 40.0])
    delta = [1 + 0.5 * 20 - 10, 2 + 0.5 * 40 - 20, 4 - 40]
    assert advantage(r, V, 0.5, 0.5).tolist() == pytest.approx(
        [delta[0] + delta[1] / 4 + delta[2] / 16, delta[1] + delta[2] / 4, delta[2]]
    )


def test_a_critic_that_sees_its_own_step_is_seen(agreement, monkeypatch):
    monkeypatch.setattr("estimators.nvil.layer_of", lambda q, sites: layer_of(q, sites) - 1)
    found = agreement(actor_critic(), walk())
    assert found.z > found.allowed


def test_what_does_not_fit_is_refused(small):
    assert "actor_critic is for chain of bernoulli or chain of categorical" in mismatch(actor_critic(), small("bits"))
    assert "needs the addends of f" in mismatch(actor_critic(), small("layers"))
    for setting, value in (
        ("samples", 0),
        ("hidden", 0),
        ("lr", 0.0),
        ("trace", 1.5),
        ("discount", -0.1),
        ("decay", 1),
    ):
        with pytest.raises(ValueError, match=rf"actor_critic\[{setting}={value}\]"):
            actor_critic(**{setting: value})
