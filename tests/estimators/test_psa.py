"""PSA: the published forward pass of flip probabilities by autograd, and what it is where nothing is linearised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch
from estimators.local_expectation import local_expectation
from estimators.noise import MEASURE
from estimators.psa import psa
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.objectives import Elbo, Expectation, Objective


def network(sizes: tuple[int, ...], objective: Objective, direct: float = 0.0) -> Problem:
    """A network of layers of bits, f a function of the last; `direct` adds the first bit's product with the last."""
    weights, begin = [], 0
    for before, size in zip((0, *sizes), sizes, strict=False):
        weights.append((begin, before, size))
        begin += (before + 1) * size

    def encoder(place: tuple[int, int, int]) -> Callable[..., torch.Tensor]:
        start, before, size = place

        def encode(w: torch.Tensor, earlier: list[torch.Tensor]) -> torch.Tensor:
            own = w[start : start + (before + 1) * size].reshape(before + 1, size)
            return own[0] + (earlier[-1] @ own[1:] if before else 0)

        return encode

    last = torch.linspace(-1, 2, sizes[-1], dtype=torch.float64)

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x[..., -sizes[-1] :] @ last.to(x) - 0.6) ** 3 + direct * x[..., 0] * x[..., -1]

    theta = 1.5 * torch.randn(begin, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return Problem("network", Chain(Bernoulli, [encoder(w) for w in weights], sizes), theta, f, objective)


def enumerated_mean(problem: Problem) -> torch.Tensor:
    """Replicate r is given point r of the support, weighed by its probability."""
    q = problem.bind(problem.theta)
    x = q.support()
    index = torch.arange(x.shape[-1])

    def draw() -> torch.Tensor:
        flipped = x.expand(len(index), *x.shape).clone()
        flipped[index, :, index] = 1 - flipped[index, :, index]
        return torch.cat([x[None], flipped])

    return q.log_prob(x).exp() @ gradients(prepare(replace(psa(), draw=draw), problem), range(len(x)))


def exact(problem: Problem) -> torch.Tensor:
    theta = problem.theta.clone().requires_grad_()
    q = problem.bind(theta)
    log_q = q.log_prob(q.support())
    fx = problem.f(q.support()) - (log_q if problem.objective.ratio else 0)
    return torch.autograd.grad((log_q.exp() * fx).sum(), theta)[0]


@pytest.mark.parametrize("name", ["bits", "bits elbo", "amortised bits elbo"])
def test_of_independent_bits_it_is_local_expectation(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    both = [gradients(prepare(e, problem), range(64)) for e in (psa(), local_expectation())]
    assert torch.allclose(*both, rtol=1e-10, atol=1e-12)
    assert claim_of(psa(), problem) == "unbiased"
    found = agreement(psa(), problem)
    assert found.z < found.allowed
    assert found.f == max(problem.rows, 1) * (1 + problem.bind(problem.site_parameters(problem.theta)).theta.shape[-1])


def test_it_is_the_published_forward_pass() -> None:
    """Flip probabilities, layer by layer, with their gradients: q_j = 1 - p(x_j) + sum_i (p(x_j) - p(x_j | i flipped)) q_i."""
    sizes = (3, 2, 2)
    problem = network(sizes, Expectation())
    trial = prepare(psa(), problem)
    g = gradients(trial, range(8))
    x = ask(trial, range(8), None, MEASURE, Count()).known["x"][0]
    D = sum(sizes)
    for r in range(8):
        w = problem.theta.clone().requires_grad_()
        flips = torch.zeros(D, dtype=torch.float64)
        s = 2 * x[r] - 1
        base = (s * problem.bind(w).params(x[r])).sigmoid()
        turned = torch.stack([torch.where(torch.arange(D) == i, 1 - x[r], x[r]) for i in range(D)])
        there = (s * problem.bind(w.detach()).params(turned)).sigmoid()
        for layer in problem.bind(w).layers:  # type: ignore[attr-defined]
            own = 1 - base[layer] - (1 - base[layer]).detach()
            from_before = flips @ (base.detach() - there)[:, layer]
            flips = flips.index_copy(0, layer, own + from_before)
        E = ((problem.f(turned) - problem.f(x[r])) * flips).sum()
        assert torch.allclose(g[r], torch.autograd.grad(E, w)[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
def test_it_is_exact_for_the_last_layer_and_where_a_layer_is_one_bit(objective: Objective) -> None:
    two = network((3, 2), objective, direct=1.0)
    gap = (enumerated_mean(two) - exact(two)).abs()
    assert float(gap[3:].max()) < 1e-13
    assert float(gap[:3].max()) > 1e-3
    one = network((3, 1), Expectation())
    assert torch.allclose(enumerated_mean(one), exact(one), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["layers", "layers elbo"])
def test_it_is_biased_in_layers(name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """65,536 replicates are enough to see it; the model's gradient is without bias."""
    problem = small(name)
    assert claim_of(psa(), problem) == "biased"
    found = agreement(psa(), problem, replicates=65_536)
    assert found.z > found.allowed
    assert found.f == 3 * (1 + 4)
    P = problem.theta.numel()
    se = (found.variance[P:] / len(found.gradients)).sqrt()
    assert float(((found.mean - found.truth)[P:].abs() / se).max()) < found.allowed


def test_it_has_less_variance_than_a_score_function(agreement: Callable[..., Any]) -> None:
    from estimators.score_function import rloo

    problem = network((3, 2, 2), Expectation())
    assert agreement(psa(), problem).total_variance < agreement(rloo(samples=8), problem).total_variance


def test_logits_of_thirty(small: Callable[[str], Problem]) -> None:
    for name in ("bits", "layers"):
        far = replace(small(name), theta=30 * small(name).theta.sign())
        for dtype in ("float64", "float32"):
            assert gradients(prepare(psa(), far, dtype=dtype), range(64)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    assert mismatch(psa(), small("categories")) == (
        "psa is for bernoulli or chain of bernoulli variables; categories's are categorical"
    )
