"""Subsets by dynamic programming against sums over them all, and the toy's gradient by two enumerations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from problems.families.chain import Chain
from problems.families.subset import Subset
from problems.subset import SEED, subset
from problems.truth import true_gradient


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("theta", [normal(0, 2, 6), 30 * normal(1, 2, 6).sign(), 20 * normal(2, 2, 6)])
@pytest.mark.parametrize("k", range(1, 7))
def test_marginals_and_their_derivative_are_those_of_the_list(k: int, theta: Tensor) -> None:
    """Also far out, where nearly all of the mass is on few subsets; every marginal to 1e-12 of itself."""
    q = Subset(k)(theta)
    every = q.support()
    leaf = theta.clone().requires_grad_()
    p = (leaf[:, None] * every).sum(-1).softmax(-1)
    marginals = p @ every
    torch.testing.assert_close(q.marginals, marginals.detach(), rtol=1e-12, atol=1e-300)
    g = normal(3, 4, 2, 6)
    wanted = [torch.autograd.grad(marginals, leaf, g_r, retain_graph=True)[0] for g_r in g]
    torch.testing.assert_close(q.mean_pull(g), torch.stack(wanted), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_draw_has_k_sites_whatever_the_uniforms(scale: float) -> None:
    theta = scale * normal(4, 8)
    ends = torch.tensor([[0.0], [1.0], [0.5]]).expand(3, 8)
    for k in range(1, 9):
        assert (Subset(k)(theta).sample(ends.double()).sum(-1) == k).all()
        assert (Subset(k)(theta.float()).sample(ends).sum(-1) == k).all()


def test_one_of_d_is_the_softmax_and_one_site_is_certain() -> None:
    theta = normal(5, 7)
    torch.testing.assert_close(Subset(1)(theta).marginals, theta.softmax(-1))
    certain = Subset(1)(theta[:1])
    assert certain.support().tolist() == [[1]]
    assert certain.mean_pull(torch.ones(3, 1, dtype=torch.float64)).tolist() == [[0]] * 3
    assert not certain.local(certain.support()).any()


def test_what_it_cannot_be() -> None:
    assert Subset(3) is Subset(3)
    with pytest.raises(ValueError, match=r"^Subset\(0\): a subset has at least 1 site$"):
        Subset(0)
    with pytest.raises(ValueError, match=r"^Subset\(3\): there are only 2 sites to choose from$"):
        Subset(3)(torch.zeros(2))
    with pytest.raises(ValueError, match=r"^Chain of subset variables: the sites of a layer must not depend .*$"):
        Chain(Subset(1), [lambda w, earlier: w], [2])
    with pytest.raises(ValueError, match=r"^subset\[dim=4,k=5\]: k must be at most dim$"):
        subset(dim=4)
    with pytest.raises(ValueError, match=r"^subset\[k=0\]: k must be at least 1$"):
        subset(k=0)


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_the_gradient_is_that_of_the_sum_over_subsets(point: str, differences: Callable[..., Tensor]) -> None:
    problem = subset(dim=6, k=3).at(point)
    b = np.random.default_rng(SEED).standard_normal(6)

    def L(theta: list[float]) -> float:
        total = weights = 0.0
        for chosen in itertools.combinations(range(6), 3):
            weight = math.exp(sum(theta[d] for d in chosen))
            total += weight * sum(((d in chosen) - b[d]) ** 2 for d in range(6))
            weights += weight
        return total / weights

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    wanted = differences(L, problem.theta.tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-9)
    assert float(wanted.abs().max()) > 1e-3


def test_the_paper_s_size_has_252_subsets() -> None:
    problem = subset()
    assert problem.family.states(problem.theta) == 252  # type: ignore[attr-defined]
    bits = problem.points["converged"].theta > 0
    assert int(bits.sum()) == 5
