"""Code that people already have, measured like any member: its gradients, and what it asked of f."""

from __future__ import annotations

import math

import pytest
import torch

from bench.evaluate import Count, MemberError, gradients, prepare
from estimators.adapters import from_gradients, from_surrogate
from estimators.base import Estimator, mismatch
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.families.normal import Normal
from problems.truth import true_gradient

RIDGE = torch.tensor([[0.3, -0.5], [0.1, -0.2]], dtype=torch.float64)


def squares() -> Problem:
    """E |x|^2 under two Normals: gradient (2 mu, 2 sigma^2)."""

    def exact(problem: Problem) -> torch.Tensor:
        mu, log_sigma = problem.theta
        return torch.stack([2 * mu, 2 * (2 * log_sigma).exp()])

    return Problem("squares", Normal, RIDGE, lambda x: (x**2).sum(-1), smooth=2, exact=exact)


def bits(theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(theta.shape, generator=generator, dtype=theta.dtype) < theta.sigmoid()).to(theta)


def surrogate(theta: torch.Tensor, f: object, generator: torch.Generator) -> torch.Tensor:
    """REINFORCE as papers' code writes it: sg(f) log q."""
    x = bits(theta, generator)
    log_q = (x * theta - torch.nn.functional.softplus(theta)).sum(-1)
    return f(x).detach() * log_q  # type: ignore[operator]


def reparameterised(theta: torch.Tensor, f: object, generator: torch.Generator) -> torch.Tensor:
    mu, log_sigma = theta
    return f(mu + log_sigma.exp() * torch.randn(mu.shape, generator=generator, dtype=mu.dtype))  # type: ignore[operator]


def two_samples(theta: torch.Tensor, f: object, generator: torch.Generator, replicates: int) -> torch.Tensor:
    """RLOO with two samples, by hand."""
    x = bits(theta.expand(2, replicates, *theta.shape), generator)
    fx = f(x)  # type: ignore[operator]
    return ((fx[0] - fx[1])[:, None] * (x[0] - x[1])) / 2


def z_scores(estimator: Estimator, problem: Problem, count: Count | None = None) -> torch.Tensor:
    trial = prepare(estimator, problem)
    g = torch.cat([gradients(trial, range(a, a + 4096), count=count) for a in range(0, 32768, 4096)])
    truth = true_gradient(problem)
    assert truth is not None
    return (g.mean(0) - truth.gradient) / (g.std(0) / math.sqrt(len(g)))


@pytest.mark.parametrize(
    ("estimator", "problem", "f", "df"),
    [
        (from_surrogate("surrogate", surrogate, ["bernoulli"]), bernoulli_toy(dim=3), 1, 0),
        (from_surrogate("reparameterised", reparameterised, ["normal"]), squares(), 1, 1),
        (from_gradients("by hand", two_samples, ["bernoulli"]), bernoulli_toy(dim=3), 2, 0),
    ],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_they_agree_with_the_truth_and_are_counted(estimator: Estimator, problem: Problem, f: int, df: int) -> None:
    """Largest of at most 4 coordinates below 4.2 standard errors: false alarm 1e-4."""
    count = Count()
    assert float(z_scores(estimator, problem, count).abs().max()) < 4.2
    assert (count.f, count.gradient) == (32768 * f, 32768 * df)


def test_a_wrong_constant_is_seen() -> None:
    wrong = from_gradients(
        "wrong", lambda theta, f, generator, replicates: 1.1 * two_samples(theta, f, generator, replicates)
    )
    assert float(z_scores(wrong, bernoulli_toy(dim=3)).abs().max()) > 4.2


def test_blocks_repeat_and_differ() -> None:
    trial = prepare(from_gradients("by hand", two_samples), bernoulli_toy())
    first = gradients(trial, range(4096))
    assert torch.equal(first, gradients(trial, range(4096)))
    assert not torch.equal(first, gradients(trial, range(4096, 8192)))


def test_what_it_returns_is_checked() -> None:
    trial = prepare(from_gradients("flat", lambda theta, f, generator, replicates: theta), bernoulli_toy(dim=3))
    with pytest.raises(MemberError, match=r"flat: gradients of shape \(3,\); \(8, 3\) was expected"):
        gradients(trial, range(8))


def test_a_problem_with_data_is_refused_in_a_sentence() -> None:
    rows = torch.zeros(2, 3, dtype=torch.float64)
    problem = Problem("rows", Normal, RIDGE, lambda x, data: x.sum(-1), data=rows)
    why = mismatch(from_gradients("by hand", two_samples), problem)
    assert why is not None
    assert "is handed a plain f of theta" in why
