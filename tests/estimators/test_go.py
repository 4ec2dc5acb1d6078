"""GO: against enumeration for every family that it has, and where it equals another estimator or has no variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators import go as module
from estimators.base import mismatch
from estimators.go import go, step_up
from estimators.measure_valued import measure_valued_poisson
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.binomial import Binomial
from problems.families.categorical import Categorical
from problems.families.geometric import Geometric
from problems.families.poisson import Poisson
from problems.objectives import Elbo, Expectation

SHARED = ["bits", "categories", "counts", "amortised bits", "amortised categories", "amortised counts"]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def enumerable(name: str, most: int, ratio: bool) -> Problem:
    """Two variables, whose law is a table of the values 0 ... most; the gradient by automatic differentiation of the sum."""
    family: Any = Geometric if name == "failures" else Binomial(4)
    theta = tensor(0.4, 1.2)

    def f(x: torch.Tensor) -> torch.Tensor:
        y, z = x.unbind(-1)
        return (1 + y + 2 * z).sqrt() - 0.2 * (y - z) ** 2

    def law(theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        d = torch.distributions
        found = d.Geometric(logits=theta) if name == "failures" else d.Binomial(4, logits=theta)
        return found.log_prob(x).sum(-1)

    def exact(problem: Problem) -> torch.Tensor:
        x = torch.cartesian_prod(*[torch.arange(most + 1.0, dtype=torch.float64)] * 2)
        theta = problem.theta.clone().requires_grad_()
        log_q = law(theta, x)
        fx = f(x) - log_q if ratio else f(x)
        return torch.autograd.grad((log_q.exp() * fx).sum(), theta)[0]

    return Problem(name, family, theta, f, Elbo() if ratio else Expectation(), exact=exact)


def problem_of(name: str, small: Callable[[str], Problem]) -> Problem:
    kind = name.removesuffix(" elbo")
    if kind in ("failures", "successes"):
        return enumerable(kind, 80 if kind == "failures" else 4, name != kind)
    return small(name)


@pytest.mark.parametrize("name", [n + s for n in [*SHARED, "failures", "successes"] for s in ("", " elbo")])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_mean_is_the_gradient(
    samples: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = problem_of(name, small)
    found = agreement(go(samples), problem, replicates=8192)
    assert found.z < found.allowed
    sites = {"bits": 3, "amortised counts": 1}.get(name.removesuffix(" elbo"), 2)
    assert (found.f, found.df) == (samples * (1 + sites) * max(problem.rows, 1), 0)


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(go(2), replace(small("amortised categories elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("name", ["bits", "categories", "counts", "failures", "successes"])
def test_a_weight_a_tenth_too_large_is_seen(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(name, small)
    right = module.WEIGHTS[problem.family_name]
    monkeypatch.setitem(module.WEIGHTS, problem.family_name, lambda q, z: 1.1 * right(q, z))
    found = agreement(go(4), problem, replicates=32_768)
    assert found.z > found.allowed


@pytest.mark.parametrize("name", ["counts", "amortised counts elbo"])
def test_of_poisson_variables_it_is_the_measure_valued_gradient(name: str, small: Callable[[str], Problem]) -> None:
    ours, other = (gradients(prepare(e, small(name)), range(64)) for e in (go(), measure_valued_poisson()))
    assert torch.allclose(ours, other, rtol=1e-13, atol=1e-13)


def test_of_two_categories_it_is_that_of_bits() -> None:
    """theta = (0, l): category 1 is a bit of logit l; of the same point, the gradient in l is that of the bit."""
    q, b = Categorical(tensor(0.0, 0.7)[None]), Bernoulli(tensor(0.7))
    for bit in (0.0, 1.0):
        weight = module.of_categories(q, tensor(1 - bit, bit)[None])
        assert torch.allclose(weight[0], tensor(-1.0, 1.0) * module.of_bits(b, tensor(bit)), rtol=1e-14)


def test_of_counts_and_a_linear_f_it_has_no_variance() -> None:
    """f(z + 1) - f(z) is the slope, and the weight of a Poisson variable is constant."""
    problem = Problem("linear", Poisson, tensor(0.3, -1.0), lambda x: x @ tensor(2.0, -0.5).to(x))
    g = gradients(prepare(go(), problem), range(64))
    assert torch.allclose(g, (problem.theta.exp() * tensor(2.0, -0.5)).expand_as(g), rtol=1e-12)


def test_the_step_up_stays_on_the_support() -> None:
    assert step_up(Bernoulli(tensor(0.0, 0.0)), tensor(0.0, 1.0)).tolist() == [1, 1]
    assert step_up(Binomial(4)(tensor(0.0, 0.0)), tensor(3.0, 4.0)).tolist() == [4, 4]
    assert step_up(Poisson(tensor(0.0, 0.0)), tensor(3.0, 4.0)).tolist() == [4, 5]
    q = Categorical(torch.zeros(3, 3).double())
    assert step_up(q, torch.eye(3).double()).argmax(-1).tolist() == [1, 2, 2]


def test_far_logits() -> None:
    """Weights of +-30 neither overflow nor lose 1 - F where F is nearly 1."""
    q = Categorical(tensor(30.0, -30.0, 0.0)[None])
    for z in torch.eye(3, dtype=torch.float64):
        assert module.of_categories(q, z[None]).isfinite().all()
    top, middle = q.p[0, 2], module.of_categories(q, tensor(1.0, 0.0, 0.0)[None])[0]
    assert middle[0].item() == pytest.approx(-(q.p[0, 1] + top).item(), rel=1e-12)


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    assert "go is for bernoulli or categorical or poisson" in str(mismatch(go(), small("normals")))
    with pytest.raises(ValueError, match=r"go\[samples=0\]: samples must be at least 1"):
        go(0)
