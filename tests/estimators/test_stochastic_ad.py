"""Stochastic automatic differentiation: agreement for every family, pruning as a conditional draw, smoothing, and special cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators import stochastic_ad as module
from estimators.base import claim_of, mismatch, target_of
from estimators.go import go
from estimators.local_expectation import local_expectation
from estimators.stochastic_ad import kept, stochastic_ad
from estimators.straight_through import straight_through
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.binomial import Binomial
from problems.families.geometric import Geometric
from problems.objectives import Elbo, Expectation

SHARED = [
    "bits elbo",
    "categories",
    "counts elbo",
    "amortised bits elbo",
    "amortised categories",
    "amortised counts elbo",
]
LAYERED = ["layers elbo", "layers of categories"]
SIDES = ["right", "left", "both"]


def steps(family: Any, law: Any, values: int, ratio: bool) -> Problem:
    """Two counts of a law given by torch, whose first values hold all of the mass but rounding."""

    def f(x: torch.Tensor) -> torch.Tensor:
        y, z = x.unbind(-1)
        return (1 + y + 2 * z).sqrt() - 0.2 * (y - z) ** 2

    def exact(problem: Problem) -> torch.Tensor:
        x = torch.cartesian_prod(*[torch.arange(float(values), dtype=torch.float64)] * 2)
        theta = problem.theta.clone().requires_grad_()
        log_q = law(theta).log_prob(x).sum(-1)
        return torch.autograd.grad((log_q.exp() * (f(x) - log_q if ratio else f(x))).sum(), theta)[0]

    theta = torch.tensor([0.4, 1.2], dtype=torch.float64)
    return Problem("steps", family, theta, f, Elbo() if ratio else Expectation(), smooth=1, relaxed=True, exact=exact)


def problem_of(name, small):
    d = torch.distributions
    if name == "failures":
        return steps(Geometric, lambda theta: d.Geometric(logits=theta), 80, False)
    if name == "successes":
        return steps(Binomial(4), lambda theta: d.Binomial(4, logits=theta), 5, True)
    return small(name)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("keep", ["one", "all"])
@pytest.mark.parametrize("problem", [*SHARED, "failures", "successes", *LAYERED])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, keep, side):
    found = agreement(stochastic_ad(keep, side), problem_of(problem, small), replicates=8192)
    assert found.z < found.allowed
    assert found.df == 0


@pytest.mark.parametrize("keep", ["one", "all"])
def test_rows_drawn_for_each_replicate_agree(agreement, small, keep):
    found = agreement(stochastic_ad(keep), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("family", ["bits", "categories", "counts", "failures", "successes"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_weight_that_is_off_is_seen(agreement, small, monkeypatch, family, side):
    right = module.alternatives

    def off(q, z, side):
        found = right(q, z, side)
        return found._replace(weight=found.weight * (1 + 0.2 * found.weight))

    monkeypatch.setattr(module, "alternatives", off)
    found = agreement(stochastic_ad("all", side), problem_of(family, small))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits elbo", "categories", "counts", "layers elbo", "layers of categories"])
def test_all_alternatives_are_the_mean_of_the_one_that_is_kept(agreement, small, problem):
    """Rao-Blackwell on the same draws: what pruning adds is not correlated with what it is added to, and is variance."""
    p = small(problem)
    whole, one = agreement(stochastic_ad("all"), p), agreement(stochastic_ad("one"), p)
    n = p.theta.numel()
    added = (one.gradients - whole.gradients)[:, :n]
    for product in (added, added * (whole.gradients - whole.mean)[:, :n]):
        z = product.mean(0) / product.std(0).clamp(min=1e-300) * len(product) ** 0.5
        assert z.abs().max() < 4.5
    assert (one.variance[:n] > whole.variance[:n]).all()


def test_one_is_kept_in_proportion_to_its_weight():
    w = torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]], dtype=torch.float64)[:, None]
    u = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    chosen, W = kept(w.expand(2, 8000, 3), u)
    assert (W == 8).all()
    assert torch.equal(chosen.sum((0, 2)), torch.ones(8000, dtype=torch.float64))
    torch.testing.assert_close(chosen.mean(1) * 8, w[:, 0], rtol=0, atol=1e-12)
    nothing, W = kept(torch.zeros(2, 4, 3), torch.full((4,), 0.5))
    assert (W == 0).all()
    assert nothing.shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("problem", "side"), [("bits elbo", "right"), ("counts", "right"), ("successes", "right"), ("failures", "left")]
)
def test_all_alternatives_upwards_are_go(small, problem, side):
    p = problem_of(problem, small)
    ours, other = (gradients(prepare(e, p), range(256)) for e in (stochastic_ad("all", side), go()))
    torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-13)


def test_sides_of_a_bit_weighed_by_the_other_value_are_local_expectation_and_smoothed_straight_through(small):
    p = small("bits")
    trials = [prepare(stochastic_ad("all", side), p) for side in SIDES]
    right, left, both = (gradients(trial, range(256)) for trial in trials)
    torch.testing.assert_close(both, (right + left) / 2, rtol=1e-12, atol=1e-13)
    chance = p.theta.sigmoid()
    mixed = (1 - chance) * right + chance * left
    torch.testing.assert_close(mixed, gradients(prepare(local_expectation(), p), range(256)), rtol=1e-12, atol=1e-13)
    right, left = (gradients(prepare(stochastic_ad("smoothed", side), p), range(256)) for side in SIDES[:2])
    mixed = (1 - chance) * right + chance * left
    torch.testing.assert_close(mixed, gradients(prepare(straight_through(), p), range(256)), rtol=1e-12, atol=1e-13)


def test_it_never_has_less_variance_than_local_expectation(agreement, small):
    """Whose gradient is its mean over each site."""
    for name in ("bits elbo", "categories"):
        leg = agreement(local_expectation(), small(name))
        for side in SIDES:
            found = agreement(stochastic_ad("all", side), small(name))
            assert (found.variance > leg.variance - 4 * (leg.variance_se + found.variance_se)).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("problem", ["bits elbo", "categories", "amortised bits elbo", "amortised categories elbo"])
def test_smoothed_it_is_biased_by_as_much_as_it_says(agreement, small, problem, side):
    e, p = stochastic_ad("smoothed", side), small(problem)
    mean, _ = target_of(e, p)
    found = agreement(e, replace(p, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (max(p.rows, 1), max(p.rows, 1))
    wrong = replace(e, combine=lambda q, x, dfx: 1.1 * e.combine(q, x, dfx))
    seen = agreement(wrong, replace(p, exact=lambda _: mean))
    assert seen.z > seen.allowed


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("problem", ["bits elbo", "categories elbo", "counts", "failures"])
def test_smoothed_it_is_unbiased_where_f_is_linear(agreement, small, problem, side):
    p = problem_of(problem, small)
    weights = torch.linspace(-1, 2, p.theta.numel(), dtype=torch.float64).reshape(p.theta.shape)
    linear = replace(p, f=lambda x: (x * weights).flatten(x.ndim - weights.ndim).sum(-1), degree=1)
    if p.exact is not None:
        mean = {"counts": p.theta.exp(), "failures": -(-p.theta).exp()}[problem]  # its derivative
        linear = replace(linear, exact=lambda _: weights * mean)
    assert claim_of(stochastic_ad("smoothed", side), linear) == "unbiased"
    found = agreement(stochastic_ad("smoothed", side), linear)
    assert found.z < found.allowed


def test_where_log_q_is_not_linear_smoothing_claims_nothing_of_the_elbo(small):
    assert claim_of(stochastic_ad("smoothed"), replace(small("counts elbo"), degree=1)) == "biased"


@pytest.mark.parametrize(
    ("keep", "side", "problem", "evaluations"),
    [
        ("one", "right", "bits", 2),
        ("one", "both", "categories", 2),
        ("one", "left", "amortised counts elbo", 3 * 2),
        ("one", "right", "layers elbo", 3 * 2),
        ("all", "right", "bits", 1 + 3),
        ("all", "both", "bits", 1 + 3),
        ("all", "left", "categories", 1 + 2 * 2),
        ("all", "left", "counts", 1 + 2),
        ("all", "both", "counts", 1 + 2 * 2),
        ("all", "right", "layers elbo", 3 * (1 + 4)),
    ],
)
def test_it_evaluates_f_as_often_as_it_says(agreement, small, keep, side, problem, evaluations):
    assert agreement(stochastic_ad(keep, side), small(problem), replicates=64).f == evaluations


def test_f_is_not_asked_below_zero(small):
    """Where a count cannot fall."""
    rooted = replace(small("counts"), f=lambda x: x.sqrt().sum(-1))
    for keep in ("one", "all"):
        assert gradients(prepare(stochastic_ad(keep, "left"), rooted), range(256)).isfinite().all()


def test_a_nearly_certain_bit_keeps_the_digits_of_its_gradient(agreement):
    """From the left, where it is one and may fall with weight 1 - p = sigmoid(-30)."""
    bit = Problem("bit", Bernoulli, torch.tensor([30.0], dtype=torch.float64), lambda x: x[..., 0])
    for keep in ("one", "all"):
        found = agreement(stochastic_ad(keep, "left"), bit, replicates=16)
        assert found.gradients.numpy() == pytest.approx(9.357622968840175e-14, rel=1e-12)


@pytest.mark.parametrize("problem", ["bits elbo", "categories", "layers elbo", "layers of categories"])
@pytest.mark.parametrize("keep", ["one", "all"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, problem, keep, dtype):
    base = small(problem)
    for side in SIDES:
        trial = prepare(stochastic_ad(keep, side), replace(base, theta=200 * base.theta.sign()), dtype=dtype)
        assert gradients(trial, range(64)).isfinite().all()


def test_what_makes_no_sense_is_refused(small):
    with pytest.raises(ValueError, match="keep is one, all or smoothed"):
        stochastic_ad("none")
    with pytest.raises(ValueError, match="side is right, left or both"):
        stochastic_ad(side="up")
    assert "stochastic_ad is for bernoulli or categorical" in mismatch(stochastic_ad("smoothed"), small("layers"))
    assert "needs 1 derivative of f" in mismatch(stochastic_ad("smoothed"), replace(small("bits"), smooth=0))
    assert mismatch(stochastic_ad(), small("normals")) is not None
