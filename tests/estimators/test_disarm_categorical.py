"""DisARM for categories: agreement of every form, that two categories are DisARM, and the importance weight's factors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from estimators import disarm
from estimators.base import mismatch
from estimators.disarm_categorical import disarm_categorical, leaf, node_logits, reweighted, sides, to_logits, tree_of
from estimators.score_function import rloo
from estimators.trees import balanced, stick
from problems.base import Problem
from problems.families.categorical import Categorical

FORMS = [
    {},
    {"order": "descending"},
    {"order": "given", "samples": 6},
    {"form": "importance_weighted"},
    {"form": "importance_weighted", "samples": 4},
    {"form": "tree"},
    {"form": "tree", "order": "given", "samples": 4},
]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def five(theta=None):
    """A table of two variables of five categories."""
    table = numbers(1, 10, 3)

    def f(x):
        y = x.flatten(-2) @ table.to(x)
        return y[..., 0] * y[..., 1] + y[..., 2]

    return Problem("five", Categorical, numbers(2, 2, 5) if theta is None else theta, f)


@pytest.mark.parametrize("problem", ["categories elbo", "amortised categories elbo", "five"])
@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_it_agrees_with_the_exact_gradient(agreement, small, settings, problem):
    there = five() if problem == "five" else small(problem)
    found = agreement(disarm_categorical(**settings), there)
    assert found.z < found.allowed
    assert (found.f, found.df) == (settings.get("samples", 2) * max(there.rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(disarm_categorical(), replace(small("amortised categories elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("form", ["stick_breaking", "importance_weighted", "tree"])
def test_a_wrong_constant_is_seen(agreement, form):
    right = disarm_categorical(form=form)

    def wrong(theta, x, fx):
        return 1.1 * right.combine(theta, x, fx)

    found = agreement(replace(right, combine=wrong), five(), replicates=65_536)
    assert found.z > found.allowed


STICK = tree_of(stick(5), 5)
ASCENDING = tensor([-1.5, -0.6, 0.0, 0.5, 0.8], [-0.5, -0.2, 0.1, 0.3, 1.9])


def weighed(weight):
    """Half the difference of f times the difference of the pair, the categories as they are laid out, weighed by `weight`."""

    def combine(theta, x, fx):
        (z, z_tilde), (f_z, f_tilde) = x, fx
        return 0.5 * (f_z - f_tilde)[..., None, None] * weight(theta, z, z_tilde)

    return replace(disarm_categorical(order="given"), combine=combine)


def right_weight(theta, z, z_tilde):
    return reweighted(STICK, theta, z, z_tilde)


def unweighted(theta, z, z_tilde):
    return z - z_tilde


def factors_the_other_way_round(theta, z, z_tilde):
    """sigmoid(|a_i|) where both bits are 0, (1 - sigma)^2 / (1 - 2 sigma) where they differ."""
    a = node_logits(STICK, theta)
    (left, right), (left_tilde, right_tilde) = sides(STICK, z), sides(STICK, z_tilde)
    zeros, ones = (-a).sigmoid().square() / (1 - 2 * a.sigmoid()), a.abs().sigmoid()
    w = torch.where(right * right_tilde > 0, ones, 1).prod(-1) * torch.where(left != left_tilde, zeros, 1).prod(-1)
    return w[..., None] * (z - z_tilde)


def test_the_importance_weight_needs_its_factors_in_order_and_the_logits_ascending(agreement):
    right = agreement(weighed(right_weight), five(ASCENDING), 65_536)
    assert right.z < right.allowed
    for weight, theta in (
        (unweighted, ASCENDING),
        (factors_the_other_way_round, ASCENDING),
        (right_weight, ASCENDING.flip(-1)),
    ):
        found = agreement(weighed(weight), five(theta), 65_536)
        assert found.z > found.allowed, weight.__name__


def test_the_importance_weight_makes_the_pair_independent():
    """E w 1[z = i, z~ = j] = p_i p_j for every i != j, within 4 standard errors."""
    theta, n = ASCENDING[:1], 200_000
    u = torch.rand(1, n, 1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    z, z_tilde = disarm_categorical().draw(theta, u)
    w = reweighted(STICK, theta, z, z_tilde)[:, 0]
    p = theta[0].softmax(-1)
    for i in range(5):
        for j in range(5):
            if i != j:  # w is the entry at z, as z - z~ is 1 there
                there = w[:, i] * z[:, 0, i] * z_tilde[:, 0, j]
                assert abs(there.mean() - p[i] * p[j]) < 4 * there.std() / math.sqrt(n)


@pytest.mark.parametrize("form", ["stick_breaking", "importance_weighted", "tree"])
def test_two_categories_are_disarm(form):
    """With logits l_i - l_j, i the lower of the two: the gradient of l_i, and less it that of l_j."""
    l, u = numbers(4, 6, 2), torch.rand(2, 64, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ours = disarm_categorical(samples=4, form=form)
    x = ours.draw(l, u[..., None])
    fx = torch.einsum("krdc,dc->kr", x, numbers(6, 6, 2)).exp()
    theta, low = l.amin(-1) - l.amax(-1), l.argmin(-1)
    bits = disarm.draw(theta, u)
    at_low = low.expand(4, 64, 6)[..., None]
    assert torch.equal(x.gather(-1, at_low)[..., 0], bits)
    g = ours.combine(l, x, fx)
    wanted = disarm.combine(theta, bits, fx)
    assert torch.allclose(g.gather(-1, at_low[0])[..., 0], wanted, atol=1e-14)
    assert torch.allclose(g.sum(-1), torch.zeros(64, 6, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_the_variance_for_two_categories_is_the_closed_form(agreement, p):
    """(f1 - f0)^2 / 4 M^2 2 m (1 - 2 m)."""
    theta = tensor([math.log(p), math.log(1 - p)])
    problem = Problem("two", Categorical, theta, lambda x: 3 * x[..., 0, 0] + 1.5)
    found = agreement(disarm_categorical(), problem, replicates=65_536)
    expected = 9 / 4 * (1 - p) ** 2 * 2 * p * (1 - 2 * p)
    assert abs(found.variance[0] - expected) < 4 * found.variance_se[0] + 1e-12


@pytest.mark.parametrize("settings", [{}, {"form": "importance_weighted"}, {"form": "tree"}], ids=str)
@pytest.mark.parametrize("problem", ["categories", "amortised categories elbo"])
def test_it_has_less_variance_than_leave_one_out_of_two(agreement, small, settings, problem):
    ours, other = (agreement(e, small(problem)) for e in (disarm_categorical(**settings), rloo(samples=2)))
    assert ours.total_variance < other.total_variance - 4 * (ours.total_variance_se + other.total_variance_se)


@pytest.mark.parametrize("make", [stick, balanced])
@pytest.mark.parametrize("C", [2, 3, 5, 8])
def test_a_tree_makes_the_categories_with_their_probabilities(make, C):
    """log p of a leaf is the sum over its way; every leaf is found from its bits; da/dl by autograd."""
    tree, l = tree_of(make(C), C), numbers(C, C)
    a = node_logits(tree, l)
    left, right = sides(tree, torch.eye(C, dtype=torch.float64))
    log_p = left @ a.sigmoid().log() + right @ (-a).sigmoid().log()
    assert torch.allclose(log_p, l.log_softmax(-1), atol=1e-13)
    assert (left + right).sum() == sum(len(n.nonzero()) for n in tree.left | tree.right)
    assert torch.equal(leaf(tree, left), torch.eye(C, dtype=torch.float64))
    g = numbers(9, C - 1)
    leaves = l.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(node_logits(tree, leaves) @ g, leaves)
    assert torch.allclose(to_logits(tree, l, g), wanted, atol=1e-13)


def test_the_nodes_of_five_categories():
    assert balanced(5) == [(0, 2, 5), (0, 1, 2), (2, 3, 5), (3, 4, 5)]
    assert stick(5) == [(0, 1, 5), (1, 2, 5), (2, 3, 5), (3, 4, 5)]
    assert tree_of(balanced(3), 3).left.int().tolist() == [[1, 0, 0], [0, 1, 0]]
    assert tree_of(balanced(3), 3).right.int().tolist() == [[0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [30.0, 800.0])
@pytest.mark.parametrize("form", ["stick_breaking", "importance_weighted", "tree"])
def test_certain_categories_and_ties_give_finite_gradients(form, size, dtype):
    theta = torch.tensor([[size, -size, 0.0], [-size, size, size], [0.0, 0.0, 0.0]], dtype=dtype)
    u = torch.rand(1, 512, 3, 2, generator=torch.Generator().manual_seed(1), dtype=dtype)
    e = disarm_categorical(form=form)
    x = e.draw(theta, u)
    assert (x.sum(-1) == 1).all()
    assert e.combine(theta, x, x[..., 0, 0] - x[..., 2, 1] + 2 * x[..., 1, 1]).isfinite().all()


def test_what_does_not_fit_is_refused(small):
    with pytest.raises(ValueError, match=r"disarm_categorical\[samples=3\]: samples come in antithetic pairs"):
        disarm_categorical(3)
    with pytest.raises(ValueError, match="form is stick_breaking, importance_weighted or tree"):
        disarm_categorical(form="forest")
    with pytest.raises(ValueError, match="must meet every two categories, which takes order=ascending"):
        disarm_categorical(form="importance_weighted", order="given")
    assert "disarm_categorical is for categorical variables" in mismatch(disarm_categorical(), small("bits"))
