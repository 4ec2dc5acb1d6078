"""RODEO: agreement whatever its network, and the networks that make it another estimator, or leave it no variance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import Count, ask, gradients, learn, prepare
from estimators import rodeo as home
from estimators.base import mismatch
from estimators.noise import MEASURE
from estimators.rodeo import rodeo
from estimators.score_function import reinforce, rloo
from problems.families.bernoulli import Bernoulli

PROBLEMS = ["bits", "bits elbo", "categories", "categories elbo", "amortised bits elbo", "amortised categories"]


def with_coefficients(alpha: float, beta: float, **settings):
    """Unlearned, its network random."""
    estimator = rodeo(steps=0, **settings)

    def init(generator: torch.Generator) -> dict[str, torch.Tensor]:
        found = estimator.learning.init(generator)
        return {**found, "o": torch.ones(2), "alpha": torch.tensor(alpha), "beta": torch.tensor(beta)}

    return replace(estimator, learning=replace(estimator.learning, init=init))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [2, 3])
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem):
    found = agreement(with_coefficients(1.5, -0.8, samples=samples), small(problem))
    evaluations = samples * max(small(problem).rows, 1)
    assert found.z < found.allowed
    assert (found.f, found.df) == (evaluations, evaluations)


@pytest.mark.parametrize("problem", ["bits elbo", "amortised categories elbo"])
def test_once_learned_it_agrees(agreement, small, problem):
    found = agreement(rodeo(steps=30), small(problem))
    assert found.z < found.allowed
    rows = max(small(problem).rows, 1)
    assert (found.learning.f, found.learning.gradient) == (30 * 100 * 2 * rows, 30 * 100 * 2 * rows)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(with_coefficients(1.0, 0.5), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_a_function_of_the_sample_itself_is_seen(agreement, small, monkeypatch, problem):
    """h_k from every sample, k among them, is no control variate."""
    monkeypatch.setattr(home, "but", lambda k: [list(range(k))] * k)
    found = agreement(with_coefficients(1.5, -0.8), small(problem))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories elbo"])
def test_without_coefficients_it_is_leave_one_out(small, problem):
    trial = prepare(rodeo(samples=3, steps=0), small(problem))
    plain = gradients(prepare(rloo(samples=3), small(problem)), range(64))
    torch.testing.assert_close(gradients(trial, range(64), learn(trial)[0]), plain, rtol=1e-12, atol=1e-12)


def test_the_surrogate_is_a_function_of_the_neighbours(small):
    """h_k at x_k with site d put to v, written out sample by sample."""
    problem = small("categories")
    trial = prepare(rodeo(samples=3, steps=2), problem)
    state, _ = learn(trial)
    known = ask(trial, range(2), state, MEASURE, Count()).known
    q, x, fx, dfx = (known[name] for name in ("q", "x", "fx", "dfx"))
    v = home.other_values(q, x)
    with torch.no_grad():
        here, moved = home.surrogates(q, x, v, fx, dfx, state)

    def H(f, rise):
        unit = state["W"] @ torch.stack([f, rise]) + state["a"]
        return state["w"] @ torch.nn.functional.leaky_relu(unit, 0.3) + state["o"]

    for k in range(3):
        others = [j for j in range(3) if j != k]
        for r in range(2):

            def h(y, others=others, r=r):
                each = [H(fx[j, r], (dfx[j, r] * (y - x[j, r])).sum()) for j in others]
                return torch.stack(each).mean(0)

            torch.testing.assert_close(torch.stack([t[k, r] for t in here]), h(x[k, r]))
            for d in range(2):
                y = x[k, r].clone()
                y[d] = v[1, k, r, d]
                torch.testing.assert_close(torch.stack([t[1, k, r, d] for t in moved]), h(y))


def linear_network(alpha: float, beta: float, offset: float = 0.0) -> dict[str, torch.Tensor]:
    """H(f, rise) = f + rise, which is a linear f itself; the second output has an offset."""
    each = 1 / 1.3
    state = {
        "W": [[1.0, 1.0], [-1.0, -1.0]],
        "a": [0.0, 0.0],
        "w": [[each, -each], [each, -each]],
        "o": [0.0, offset],
        "alpha": alpha,
        "beta": beta,
    }
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in state.items()}


@pytest.mark.parametrize("name", ["bits", "categories"])
def test_of_a_linear_function_the_baseline_becomes_the_mean(small, name):
    """A f = -(f - E f) / D where f is linear: alpha = D leaves E f."""
    base = small(name)
    w = torch.arange(1.0, base.theta.numel() + 1, dtype=torch.float64).reshape(base.theta.shape)
    problem = replace(base, f=lambda x: (x * w.to(x)).flatten(-w.ndim).sum(-1) + 2)
    q = problem.bind(problem.theta)
    mean = float((q.mean * w).sum()) + 2
    found = gradients(
        prepare(rodeo(3, hidden=2), problem), range(64), linear_network(alpha=float(base.theta.shape[0]), beta=0.0)
    )
    plain = gradients(prepare(reinforce(3, baseline=mean), problem), range(64))
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_of_one_bit_no_variance_is_left(small):
    """With h0 = f and h1 = f - E f: [f - E f] s + E (f - E f) s - (f - E f) s."""
    p = torch.tensor(0.4, dtype=torch.float64).sigmoid()
    problem = replace(small("bits"), family=Bernoulli, theta=p.logit()[None], f=lambda x: 3 * x[..., 0] - 1)
    state = linear_network(alpha=1.0, beta=1.0, offset=float(1 - 3 * p))
    g = gradients(prepare(rodeo(hidden=2), problem), range(64), state)
    torch.testing.assert_close(g, (3 * p * (1 - p)).expand(64, 1), rtol=1e-12, atol=1e-12)


def test_learning_lessens_the_variance_below_that_of_leave_one_out(agreement, small):
    plain, learned = (agreement(e, small("bits")) for e in (rloo(samples=3), rodeo(samples=3)))
    assert learned.total_variance < plain.total_variance - 4 * plain.total_variance_se


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("logit", [30.0, 200.0])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, dtype, logit):
    base = small("categories elbo")
    trial = prepare(rodeo(steps=2), replace(base, theta=logit * base.theta.sign()), dtype=dtype)
    state, _ = learn(trial)
    assert gradients(trial, range(512), state).isfinite().all()


def test_one_derivative_of_f_will_do(small):
    once = replace(small("bits"), smooth=1, relaxed=False)
    assert mismatch(rodeo(), once) is None
    assert "needs 1 derivative of f" in mismatch(rodeo(), replace(once, smooth=0))


@pytest.mark.parametrize("settings", [{"samples": 1}, {"hidden": 0}, {"steps": -1}, {"lr": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=rf"rodeo\[{setting}="):
        rodeo(**settings)
