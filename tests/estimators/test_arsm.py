"""ARS and ARSM: agreement, that they are ARM and DisARM of two categories, and the reference entry integrated out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from estimators import arm as arm_
from estimators.arsm import (
    all_swapped,
    ars,
    arsm,
    first_of_its_kind,
    integrated,
    references,
    swapped_with,
    transpositions,
)
from estimators.base import mismatch
from estimators.disarm import disarm
from estimators.local_expectation import local_expectation
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical

EACH = [(make, plus) for make in (arsm, ars) for plus in (False, True)]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gumbels(seed, *shape):
    u = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -(-u.log()).log()


def five(objective=None):
    """A table of three variables of five categories, unequal."""
    table = numbers(1, 15, 3)

    def f(x):
        y = x.flatten(-2) @ table.to(x)
        return y[..., 0] * y[..., 1] + y[..., 2]

    return Problem("five", Categorical, numbers(2, 3, 5), f)


@pytest.mark.parametrize("problem", ["categories", "categories elbo", "amortised categories elbo"])
@pytest.mark.parametrize(("make", "plus"), EACH)
def test_they_agree_with_the_exact_gradient(agreement, small, make, plus, problem):
    found = agreement(make(plus=plus), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == ((4 if make is arsm else 3) * max(small(problem).rows, 1), 0)


@pytest.mark.parametrize(("make", "plus"), EACH)
def test_they_agree_on_five_categories(agreement, make, plus):
    found = agreement(make(plus=plus), five())
    assert found.z < found.allowed
    assert found.f == (11 if make is arsm else 5)


@pytest.mark.parametrize("make", [arsm, ars])
def test_rows_drawn_for_each_replicate_agree(agreement, small, make):
    found = agreement(make(), replace(small("amortised categories elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize(("make", "plus"), EACH)
@pytest.mark.parametrize("problem", ["categories", "amortised categories elbo"])
def test_points_that_coincide_are_asked_once(agreement, small, make, plus, problem):
    """The same gradients, the model's too, from fewer evaluations."""
    every, once = (agreement(make(plus=plus, unique=unique), small(problem), 512) for unique in (False, True))
    assert torch.allclose(once.gradients, every.gradients, rtol=0, atol=1e-12)
    assert once.f < every.f


def test_the_first_of_each_kind():
    """Two sites; points 1 and 3 coincide, 2 differs from 0 in one site."""
    x = torch.eye(3)[torch.tensor([[0, 1], [2, 2], [0, 2], [2, 2]])]
    assert first_of_its_kind(x).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("make", [arsm, ars])
@pytest.mark.parametrize("plus", [False, True])
def test_a_wrong_constant_is_seen(agreement, small, make, plus):
    right = make(plus=plus)

    def wrong(q, noise, fx):
        return 1.1 * right.combine(q, noise, fx)

    found = agreement(replace(right, combine=wrong), small("categories"), replicates=65_536)
    assert found.z > found.allowed


def test_swaps_of_each_site_alone_are_seen(agreement, small):
    """Swapped in the first site only, the others keep the sample's."""
    right = arsm()

    def wrong(q, noise):
        x = q.sample(all_swapped(noise))
        return torch.cat([x[..., :1, :], x[:1, ..., 1:, :].expand_as(x[..., 1:, :])], -2)

    found = agreement(replace(right, draw=wrong), small("categories"), replicates=65_536)
    assert found.z > found.allowed


def test_a_reference_that_is_not_the_one_swapped_with_is_seen(agreement, small):
    right = ars()

    def wrong(q, noise, fx):
        return right.combine(q, (noise[0], 1 - noise[1]), fx)

    found = agreement(replace(right, combine=wrong), small("categories"), replicates=65_536)
    assert found.z > found.allowed


def uniforms_of(pi):
    """The Gumbel noise of which pi are the exponentials, up to their sum."""
    return -pi.log()


def test_arsm_of_two_categories_is_arm():
    """Category 0 is drawn where pi_0 < p, p = sigmoid(l_0 - l_1): arm's uniform is 1 - pi_0; its gradient is that of l_0."""
    l, u = numbers(3, 4, 2), torch.rand(64, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    q, noise = Categorical(l), uniforms_of(torch.stack([u, 1 - u], -1))
    assert torch.equal(arsm().draw(q, noise)[..., 0], arm_.draw(l[:, 0] - l[:, 1], 1 - u[None]))
    fx = numbers(5, 2, 64)
    wanted = arm_.combine(1 - u[None], fx)
    assert torch.allclose(arsm().combine(q, noise, fx), torch.stack([wanted, -wanted], -1), atol=1e-14)


def test_with_the_reference_integrated_out_ars_of_two_categories_is_disarm():
    l, u = numbers(3, 4, 2), torch.rand(64, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    q, noise = Categorical(l), uniforms_of(torch.stack([u, 1 - u], -1))
    where = torch.rand(2, 64, 1, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x = ars(plus=True).draw(q, (noise, where))
    fx = torch.einsum("krdc,dc->kr", x, numbers(7, 4, 2))
    g = ars(plus=True).combine(q, (noise, where), fx)
    bits = x[..., 0]
    theta = l[:, 0] - l[:, 1]
    wanted = 0.5 * (fx[0] - fx[1])[:, None] * (bits[0] - bits[1]) * theta.abs().sigmoid()
    assert torch.allclose(g, torch.stack([wanted, -wanted], -1), atol=1e-14)


def two_categories(p):
    theta = tensor([math.log(p), math.log(1 - p)])
    return Problem("two", Categorical, theta, lambda x: 3 * x[..., 0, 0] + 1.5)


def test_the_variance_for_a_fair_bit_is_that_of_arm_and_of_disarm(agreement):
    """(f1 - f0)^2 / 48 for ARM, nil for DisARM."""
    merged, integrated_out = (agreement(e, two_categories(0.5)) for e in (arsm(), ars(plus=True)))
    assert abs(merged.variance[0] - 9 / 48) < 4 * merged.variance_se[0]
    assert integrated_out.variance[0] < 1e-24


def test_the_variance_of_ars_plus_for_one_bit_is_the_closed_form(agreement):
    p = 0.3
    found = agreement(ars(plus=True), two_categories(p), replicates=65_536)
    assert abs(found.variance[0] - 9 / 4 * 0.7**2 * 0.6 * 0.4) < 4 * found.variance_se[0]


@pytest.mark.parametrize("problem", ["categories", "amortised categories elbo", "five"])
def test_merging_and_integrating_reduce_the_variance(agreement, small, problem):
    """On the same noise. ARSM is ARS's mean over the reference, ARS+ its mean over pi_j: in every coordinate; ARSM+ in all."""
    there = five() if problem == "five" else small(problem)
    found = {(e, plus): agreement(e(plus=plus), there) for e, plus in EACH}
    theta = there.theta.numel()
    for more, less in (((ars, False), (arsm, False)), ((ars, False), (ars, True)), ((arsm, False), (arsm, True))):
        a, b = ((found[e].gradients - found[e].truth)[:, :theta].square() for e in (more, less))
        gap, total = a - b, (a - b).sum(1)
        assert total.mean() > 4 * total.std() / math.sqrt(len(gap)), (more, less)
        if more[0] is ars:
            assert (gap.mean(0) > -4 * gap.std(0) / math.sqrt(len(gap))).all(), (more, less)


@pytest.mark.parametrize("C", [2, 3, 4, 6])
def test_the_interval_of_the_reference_entry(C):
    """t moved within (0, s): the middle of those t, of 400, that keep every pseudo-action."""
    l, gumbel = 2 * numbers(C, 1, C), gumbels(10 + C, 300, 1, C)
    q, e = Categorical(l), (-gumbel).exp()
    j, other = references(torch.rand(2, 300, 1, generator=torch.Generator().manual_seed(C), dtype=torch.float64), C)
    found = integrated(q, gumbel, j, other) * e.sum(-1, keepdim=True)
    before = q.sample(swapped_with(gumbel, j))
    s = e.gather(-1, j) + e.gather(-1, other)
    kept = []
    for share in (torch.arange(400) + 0.5) / 400:
        moved = e.scatter(-1, j, s * share).scatter(-1, other, s * (1 - share))
        kept.append((q.sample(swapped_with(-moved.log(), j)) == before).all(0).all(-1))
    kept = torch.stack(kept)[..., 0]  # [400, R]
    share = (torch.arange(400, dtype=torch.float64)[:, None] + 0.5) / 400
    low, high = torch.where(kept, share, 2).amin(0), torch.where(kept, share, -1).amax(0)
    seen = kept.any(0)
    assert seen.float().mean() > 0.9
    assert torch.equal(kept.sum(0)[seen], ((high - low) * 400).round()[seen].long() + 1)  # an interval
    gap = (found / s).ravel() - (low + high) / 2
    assert gap[seen].abs().max() < 1 / 400


def middle_given_whether_m_wins(q, gumbel, j, l):
    """`integrated`, had it not mattered which other place wins."""
    C = gumbel.shape[-1]
    c = torch.arange(C)
    m = c.reshape(C, *[1] * gumbel.ndim)
    p = torch.where(m == l, j, l)
    e = (-gumbel).exp()
    s = e.gather(-1, j.expand(*e.shape[:-1], 1)) + e.gather(-1, l.expand(*e.shape[:-1], 1))
    G = swapped_with(gumbel, j)
    logits = q.theta.expand(G.shape)
    l_m, l_p = (logits.gather(-1, at.expand(*G.shape[:-1], 1)) for at in (m, p))
    log_M = torch.where((c == m) | (c == p), torch.inf, -G - logits).amin(-1, keepdim=True)
    edge = torch.minimum((log_M + l_m).exp(), s * (l_m - l_p).sigmoid())
    wins = q.sample(G).argmax(-1, keepdim=True) == m
    low, high = torch.where(wins, 0.0, edge).amax(0), torch.where(wins, edge, s).amin(0)
    return 0.5 * (low + high) / e.sum(-1, keepdim=True)


def test_an_interval_of_whether_m_wins_alone_is_seen(agreement, small, monkeypatch):
    monkeypatch.setattr("estimators.arsm.integrated", middle_given_whether_m_wins)
    found = agreement(ars(plus=True), small("categories"), 262_144)
    assert found.z > found.allowed


def test_on_one_site_their_mean_is_local_expectation(agreement):
    one = Problem(
        "one", Categorical, tensor([0.3, -0.5, 0.8, -9.0]), lambda x: (x[..., 0, :] * tensor(1, -2, 3, 5)).sum(-1)
    )
    exact = agreement(local_expectation(), one, 4)
    for make, plus in EACH:
        found = agreement(make(plus=plus), one)
        assert torch.allclose(found.truth, exact.gradients[0], atol=1e-13)
        assert found.z < found.allowed


def test_swaps_are_those_of_the_table():
    noise = tensor([0.0, 1.0, 2.0])[None]
    assert all_swapped(noise)[:, 0, 0].tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]]
    assert transpositions(3) == [(0, 0), (0, 1), (0, 2), (1, 2)]
    swapped = swapped_with(noise, torch.tensor([[[1]]])[0])
    assert swapped[:, 0, 0].tolist() == [[1, 0, 2], [0, 1, 2], [0, 2, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [30.0, 800.0])
@pytest.mark.parametrize(("make", "plus"), EACH)
def test_certain_categories_and_ties_give_finite_gradients(make, plus, size, dtype):
    q = Categorical(torch.tensor([[size, -size, 0.0], [-size, size, size], [0.0, 0.0, 0.0]], dtype=dtype))
    noise = gumbels(8, 256, 3, 3).to(dtype)
    noise[::2] = 0.5  # all entries of pi are the same
    where = torch.full((2, 256, 1), 1 - 2**-24, dtype=dtype)
    noise = noise if make is arsm else (noise, where)
    e = make(plus=plus)
    x = e.draw(q, noise)
    assert (x.sum(-1) == 1).all()
    assert e.combine(q, noise, x[..., 0, 0] - x[..., 2, 1]).isfinite().all()


def test_bits_are_refused(small):
    bit = Problem("bit", Bernoulli, tensor(0.2), lambda x: x[..., 0])
    assert "ars is for categorical variables" in mismatch(ars(), bit)
    assert mismatch(disarm(), bit) is None
