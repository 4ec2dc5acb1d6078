"""Linear regression as an expectation over rows: its truth by differences of the likelihood, and the family of points (i, w)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bench.conformance import check, failures
from bench.evaluate import Mismatch, prepare
from estimators.minibatch import importance_minibatch, minibatch
from estimators.pathwise import pathwise
from estimators.score_function import rloo
from estimators.svrg import svrg
from problems.families.minibatch import Minibatch
from problems.linear_regression_minibatch import draws, linear_regression_minibatch
from problems.truth import true_gradient


@pytest.fixture
def problem():
    return linear_regression_minibatch(data=10, dim=3)


def test_f_is_n_times_the_log_likelihood_of_a_row(problem):
    rows, y = draws(10, 3, 0.5)
    w = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
    x = Minibatch(10)(w).place(torch.tensor([5.0, 0.0]))
    wanted = [10 * torch.distributions.Normal(rows[i] @ w, 1.0).log_prob(y[i]) for i in (5, 0)]
    torch.testing.assert_close(problem.f(x), torch.stack(wanted))
    assert problem.f(x.float()).dtype == torch.float32


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_the_gradient_is_that_of_the_likelihood_of_all_rows(problem, point, differences):
    rows, y = (t.numpy() for t in draws(10, 3, 0.5))

    def L(w: list[float]) -> float:
        return -0.5 * float(((y - rows @ np.array(w)) ** 2).sum()) - 5 * math.log(2 * math.pi)

    there = problem.at(point)
    truth = true_gradient(there)
    assert truth is not None
    assert truth.tier == "closed form"
    torch.testing.assert_close(truth.gradient, differences(L, there.theta.tolist()), rtol=1e-7, atol=1e-7)


def test_at_the_least_squares_the_gradient_is_gone(problem):
    there = problem.at("mid")
    best = true_gradient(type(problem)(**{**vars(problem), "theta": 2 * there.theta, "points": {}}))
    assert best is not None
    assert float(best.gradient.abs().max()) < 1e-10


def test_lengths_of_rows_differ_as_much_as_is_set():
    even = linear_regression_minibatch(spread=0.0).family.norms
    uneven = linear_regression_minibatch(spread=1.0).family.norms
    torch.testing.assert_close(uneven, draws(256, 10, 1.0)[0].norm(dim=-1))
    assert uneven.log().std() > 3 * even.log().std()


def test_every_index_is_drawn_by_its_share_of_the_uniforms():
    w = torch.tensor([0.5, -0.5])
    u = torch.tensor([0.0, 0.249, 0.25, 0.999, 1 - 2.0**-24])[:, None]
    x = Minibatch(4)(w).sample(u)
    assert x[:, 0].tolist() == [0, 0, 1, 3, 3]
    assert x[:, 1:].tolist() == [w.tolist()] * 5
    q = Minibatch(4)(w)
    torch.testing.assert_close(q.log_prob(x).exp(), torch.full((5,), 0.25))
    torch.testing.assert_close(q.path(x[:, None], torch.ones(5, 1, 3)), torch.full((1, 2), 5.0))


def test_what_it_cannot_be():
    with pytest.raises(ValueError, match=r"^Minibatch\(0\): there must be at least 1 datum to draw$"):
        Minibatch(0)
    with pytest.raises(ValueError, match=r"^Minibatch\(2\): norms must be 2 positive numbers, one for each datum$"):
        Minibatch(2, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"least squares needs more data than dimensions$"):
        linear_regression_minibatch(data=3, dim=3)
    with pytest.raises(ValueError, match=r"spread must be at least 0$"):
        linear_regression_minibatch(spread=-1.0)


def test_a_point_mass_has_no_score(problem):
    with pytest.raises(Mismatch, match=r"^rloo is for variables that have a score; .*'s are minibatch$"):
        prepare(rloo(2), problem)


@pytest.mark.parametrize(
    "estimator", [pathwise(2), minibatch(3), importance_minibatch(), svrg(2), svrg(2, table=True)], ids=lambda e: e.name
)
def test_estimators_of_every_kind_conform(problem, estimator):
    findings = check(estimator, [problem])
    assert findings
    assert failures(findings) == []
