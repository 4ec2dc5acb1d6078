"""Local signals, on problems whose f comes in addends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.local_signals import downstream, local_signals
from estimators.score_function import reinforce, rloo
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.families.normal import Normal
from problems.families.subset import Subset
from problems.objectives import Elbo


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits():
    """Three addends of three bits, of neighbours and of one alone."""

    def f(x):
        a, b, c = x.unbind(-1)
        return torch.stack([1 + a + 2 * a * b, (b - 0.3) * (c + 0.5), 3 * c], -1)

    parts = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    return Problem("bits", Bernoulli, numbers(1, 3), f, parts=parts)


def categories():
    """Two addends of two variables of three categories: of each alone."""
    A = numbers(2, 3)
    return Problem(
        "categories",
        Categorical,
        numbers(3, 2, 3),
        lambda x: (x @ A.to(x)) ** 3,
        parts=torch.eye(2, dtype=torch.bool),
    )


def normals():
    """y + y^2 and 3 z + z^2: (1 + 2 mu, 2 sigma^2), and with 3."""

    def exact(problem):
        mu, sigma = problem.theta[0], problem.theta[1].exp()
        return torch.stack([torch.tensor([1.0, 3.0]).to(mu) + 2 * mu, 2 * sigma**2])

    return Problem(
        "normals",
        Normal,
        torch.tensor([[0.3, -0.6], [-0.2, 0.1]], dtype=torch.float64),
        lambda x: torch.tensor([1.0, 3.0]).to(x) * x + x**2,
        parts=torch.eye(2, dtype=torch.bool),
        exact=exact,
    )


def walk():
    """Four steps of one bit, each depending on the one before; a reward after every step, and one on the way."""
    family = Chain(
        Bernoulli,
        [lambda w, earlier, t=t: w[t : t + 1] + (w[4:5] * earlier[-1] if earlier else 0) for t in range(4)],
        [1, 1, 1, 1],
    )

    def f(x):
        return torch.cat([x - 0.5 * x.roll(1, -1) * torch.tensor([0.0, 1, 1, 1]).to(x), 2 + x[..., 1:2]], -1)

    parts = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    return Problem("walk", family, numbers(5, 5), f, parts=parts)


def data():
    """Two bits for each of three data, an encoder, and a model of which each addend has its own part."""
    rows = numbers(6, 3, 2)

    def f(x, data, model):
        return (x - model[:2]) ** 2 * data + model[2:] * x

    return Problem(
        "data",
        Bernoulli,
        numbers(7, 4),
        f,
        parts=torch.eye(2, dtype=torch.bool),
        encode=lambda w, data: data @ w.reshape(2, 2),
        model=numbers(8, 4),
        data=rows,
    )


def subsets():
    """Two of four sites, which depend on each other, and an addend of each alone."""
    return Problem(
        "subsets",
        Subset(2),
        numbers(9, 4),
        lambda x: (x - 0.3) ** 2 * torch.arange(1.0, 5.0).to(x),
        parts=torch.eye(4, dtype=torch.bool),
    )


MADE = [bits, categories, normals, walk, data, subsets]
SETTINGS = [{}, {"samples": 3}, {"samples": 3, "baseline": "leave_one_out"}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("make", MADE)
def test_it_agrees_with_the_exact_gradient(agreement, make, settings):
    found = agreement(local_signals(**settings), make())
    assert found.z < found.allowed
    assert (found.f, found.df) == (settings.get("samples", 1) * max(make().rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement):
    found = agreement(local_signals(2), replace(data(), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("make", [bits, walk])
def test_an_addend_that_is_left_out_is_seen(agreement, make):
    parts = make().parts.clone()
    parts[-1] = 0
    found = agreement(local_signals(), replace(make(), parts=parts))
    assert found.z > found.allowed


@pytest.mark.parametrize("make", MADE)
def test_where_every_addend_depends_on_every_site_it_is_the_score_function(agreement, make):
    problem = replace(make(), parts=torch.ones_like(make().parts))
    for ours, other in ((local_signals(2), reinforce(2)), (local_signals(3, "leave_one_out"), rloo(3))):
        one, two = (agreement(e, problem, replicates=256).gradients for e in (ours, other))
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)


def test_a_site_of_its_own_addend_has_the_variance_of_one_site_alone(agreement):
    """E[(f_d s)^2] - g^2, each site's by itself."""
    problem = categories()
    p, f = problem.theta.softmax(-1), problem.f(torch.eye(3, dtype=torch.float64)[:, None]).squeeze(-1)
    s = torch.eye(3, dtype=torch.float64) - p[:, None]  # [site, drawn category, parameter]
    g = torch.einsum("dc,c,dcp->dp", p, f, s)
    wanted = torch.einsum("dc,c,dcp->dp", p, f**2, s**2) - g**2
    found = agreement(local_signals(), problem, replicates=65_536)
    assert ((found.variance - wanted.reshape(-1)).abs() < 4.5 * found.variance_se).all()


@pytest.mark.parametrize("make", [bits, categories, walk, data])
def test_less_noise_than_with_the_whole_of_f(agreement, make):
    ours, other = (agreement(e, make()) for e in (local_signals(4, "leave_one_out"), rloo(4)))
    assert ours.total_variance < other.total_variance - 4 * (ours.total_variance_se + other.total_variance_se)


def test_of_a_chain_what_comes_later_is_downstream():
    problem = walk()
    reach = downstream(problem.bind(problem.theta), problem.parts)
    assert reach.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]


def test_sites_of_one_layer_are_not_upstream_of_each_other():
    family = Chain(Bernoulli, [lambda w, e: w[:2], lambda w, e: e[0] * w[2:]], [2, 2])
    parts = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    reach = downstream(family(numbers(9, 4)), parts)
    assert reach.int().tolist() == [[0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_what_does_not_fit_is_refused(small):
    assert "needs the addends of f; bits gives only their sum" in mismatch(local_signals(), small("bits"))
    assert "Elbo" in mismatch(local_signals(), replace(bits(), objective=Elbo()))
    for settings, why in [
        ({"samples": 0}, r"samples=0\]"),
        ({"baseline": "leave_one_out"}, r"samples=1\]: samples must be at least 2"),
        ({"baseline": "mean"}, r"baseline=mean\]"),
    ]:
        with pytest.raises(ValueError, match=why):
            local_signals(**settings)
