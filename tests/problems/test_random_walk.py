"""The random walk: walks by hand, its gradient by three ways, and the step that is certain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from estimators import ESTIMATORS
from problems.random_walk import random_walk
from problems.truth import true_gradient


@pytest.mark.parametrize("point", ["init", "short", "long"])
@pytest.mark.parametrize("steps", [2, 7])
def test_its_gradient_is_that_of_the_sum_over_every_walk(steps: int, point: str) -> None:
    problem = random_walk(steps).at(point)
    own, wanted = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert own is not None
    assert wanted is not None
    assert (own.tier, wanted.tier) == ("closed form", "enumeration")
    torch.testing.assert_close(own.gradient, wanted.gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("point", ["init", "short", "long"])
def test_its_gradient_at_the_paper_s_size(point: str, differences: Callable[..., Tensor]) -> None:
    """E X_n^2 from the recursion of the probabilities of each place, in plain Python; n = 50."""
    problem = random_walk(50).at(point)

    def L(theta: list[float]) -> float:
        p, at = math.exp(theta[0]), {0: 1.0}
        for _ in range(50):
            then: dict[int, float] = {}
            for X, share in at.items():
                up = math.exp(-X / p)
                then[X + 1] = then.get(X + 1, 0.0) + share * up
                if X:
                    then[X - 1] = then.get(X - 1, 0.0) + share * (1 - up)
            at = then
        return sum(share * X**2 for X, share in at.items())

    truth = true_gradient(problem)
    assert truth is not None
    torch.testing.assert_close(truth.gradient, differences(L, problem.theta.tolist()), rtol=1e-7, atol=0)


def test_a_walk_by_hand() -> None:
    """Up, up, down, up: X = 0, 1, 2, 1, 2; f = 4. Steps up have probability 1, e^{-1/p}, e^{-2/p}, e^{-1/p}, p = 8."""
    problem = random_walk(4)
    x = torch.tensor([1.0, 1, 0, 1]).double()
    assert float(problem.f(x)) == 4
    assert problem.scalar_f is not None
    assert problem.scalar_f(x.tolist()) == 4
    up = problem.bind(problem.theta).params(x[None, None])[0, 0].sigmoid()
    assert up.tolist() == [pytest.approx(1, abs=1e-15), *(pytest.approx(math.exp(-X / 8)) for X in (1, 2, 1))]


@pytest.mark.parametrize("log_p", [-30.0, -6.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_never_falls_below_zero_and_gives_numbers_everywhere(log_p: float, dtype: torch.dtype) -> None:
    """For p next to nil the walk goes up and down between 0 and 1; for a huge one it only goes up."""
    problem = random_walk(6)
    q = problem.bind(torch.tensor([log_p], dtype=dtype))
    noise = torch.rand(1, 500, 6, generator=torch.Generator().manual_seed(2)).to(dtype)
    x = q.sample(noise)
    places = (2 * x - 1).cumsum(-1)
    assert float(places.min()) >= 0
    assert set(problem.f(x).flatten().tolist()) == ({0.0} if log_p < 0 else {36.0})
    for found in (q.log_prob(x), q.local(x), q.pull(x, q.local(x))):
        assert found.dtype == dtype
        assert found.isfinite().all()
    truth = true_gradient(replace(problem, theta=torch.tensor([log_p], dtype=torch.float64)))
    assert truth is not None
    assert float(truth.gradient) == pytest.approx(0, abs=1e-10)


def test_points_are_lengths_of_the_decay() -> None:
    problem = random_walk(50)
    assert {name: point.theta.exp().tolist() for name, point in problem.points.items()} == {
        "init": [pytest.approx(100)],
        "short": [pytest.approx(25)],
        "long": [pytest.approx(1000)],
    }


@pytest.mark.parametrize("name", ["reinforce", "rloo", "ram", "stochastic_ad", "local_expectation", "disarm_layers"])
def test_estimators_of_different_kinds_reach_the_truth(name: str) -> None:
    """Holm at 1e-5 over the points; the other checks of the public suite as well."""
    assert failures(check(ESTIMATORS[name](), [random_walk(5)], replicates=8192, level=1e-5)) == []


def test_a_walk_of_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^random_walk\[steps=1\]: steps must be at least 2$"):
        random_walk(1)
