"""Ways of choosing rows: agreement with the full gradient, and variances that sums over the data give exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import Mismatch, gradients, prepare
from estimators.base import mismatch
from estimators.minibatch import importance_minibatch, minibatch
from estimators.pathwise import pathwise
from estimators.svrg import svrg
from problems.families.minibatch import Minibatch
from problems.linear_regression_minibatch import draws, linear_regression_minibatch

N, P = 24, 3
WAYS = {
    "with replacement": pathwise(3),
    "distinct": minibatch(3),
    "norm": importance_minibatch(3),
    "lipschitz": importance_minibatch(3, weights="lipschitz"),
    "gradient": importance_minibatch(3, weights="gradient", uniform=0.2),
    "half uniform": importance_minibatch(3, uniform=0.5),
    "anchor": svrg(3),
    "far anchor": svrg(3, distance=2.0),
    "distinct, anchor": svrg(3, replacement=False),
    "table": svrg(3, table=True),
    "distinct, table": svrg(3, replacement=False, table=True),
}
NAMES = pytest.mark.parametrize("name", WAYS)


def problem(point="mid"):
    return linear_regression_minibatch(data=N, dim=P, spread=1.0).at(point)


def addends(theta):
    """grad f_i(w_i) of each row at w `[P]`, or at w_i `[N, P]`."""
    rows, y = draws(N, P, 1.0)
    return (y - (rows * theta).sum(-1))[:, None] * rows


def spread(g):
    """sum_i |g_i - mean|^2, which is (N - 1) S^2."""
    return float((g - g.mean(0)).square().sum())


def exact_variance(name, state):
    """Total variance of K = 3 rows, by sums over the data."""
    theta, K = problem().theta, 3
    g = addends(theta)
    if state is not None and "p" in state:
        p = state["p"]
        return float(((g.square().sum(-1) / p).sum() - g.sum(0).square().sum()) / K)
    if state is not None:
        g = g - addends(state["anchor"])
    replaced = N / K * spread(g)
    return replaced * (N - K) / (N - 1) if "distinct" in name else replaced


@NAMES
def test_it_agrees_with_the_full_gradient(agreement, name):
    found = agreement(WAYS[name], problem())
    assert found.z < found.allowed


@NAMES
def test_its_variance_is_that_of_the_sum_over_the_data(agreement, name):
    found = agreement(WAYS[name], problem())
    assert abs(found.total_variance - exact_variance(name, found.state)) < 4.5 * found.total_variance_se


@NAMES
def test_what_it_asks(agreement, name):
    found = agreement(WAYS[name], problem(), replicates=512)
    asked = 6 if name in ("anchor", "far anchor", "distinct, anchor") else 3
    learned = 0 if name in ("with replacement", "distinct", "norm", "lipschitz", "half uniform") else N
    assert (found.f, found.df, found.hf) == (asked, asked, 0)
    assert (found.learning.f, found.learning.gradient) == (learned, learned)


def test_one_row_may_come_twice_where_they_are_replaced_and_not_where_they_are_distinct(agreement):
    """The finite population's correction, by which the two differ, is seen."""
    found = agreement(minibatch(3), problem())
    assert abs(found.total_variance - exact_variance("replaced", None)) > 4.5 * found.total_variance_se


@pytest.mark.parametrize(
    "estimator", [minibatch(N), svrg(N, replacement=False), svrg(N, replacement=False, table=True)]
)
def test_all_rows_are_the_full_gradient(agreement, estimator):
    found = agreement(estimator, problem(), replicates=64)
    torch.testing.assert_close(found.gradients, found.truth.expand(64, -1), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("table", [False, True])
def test_an_anchor_at_theta_leaves_no_variance(agreement, table):
    found = agreement(svrg(2, distance=0.0, table=table), problem(), replicates=64)
    torch.testing.assert_close(found.gradients, found.truth.expand(64, -1), rtol=1e-12, atol=1e-9)


def test_variance_falls_with_the_square_of_the_distance(agreement):
    """The residuals are linear in w, so that it does so exactly."""
    far, near = (agreement(svrg(2, distance=d), problem(), replicates=256) for d in (0.2, 0.1))
    torch.testing.assert_close(far.gradients - far.truth, 2 * (near.gradients - near.truth), rtol=1e-6, atol=1e-9)


def test_a_table_of_one_anchor_is_svrg():
    """The same rows and anchors, the gradients kept or asked again."""
    asked, kept = prepare(svrg(2), problem()), prepare(svrg(2, table=True), problem())
    anchor = (problem().theta + 0.1)[None]
    g = N * addends(anchor[0])
    state = {"anchor": anchor, "full": g.mean(0), "table": g}
    torch.testing.assert_close(gradients(asked, range(64), state), gradients(kept, range(64), state))


def test_learned_at_theta_the_probabilities_have_the_least_variance(agreement):
    """((sum |g_i|)^2 - |sum g_i|^2) / K, but for the millionth that is uniform."""
    g = addends(problem().theta)
    least = float((g.norm(dim=-1).sum() ** 2 - g.sum(0).square().sum()) / 3)
    found = agreement(importance_minibatch(3, weights="gradient", uniform=1e-6, distance=0.0), problem())
    assert exact_variance("gradient", found.state) == pytest.approx(least, rel=1e-4)
    assert abs(found.total_variance - least) < 4.5 * found.total_variance_se


def test_uniform_probabilities_are_the_plain_minibatch():
    plain, even = (gradients(prepare(e, problem()), range(64), s) for e, s in ((pathwise(3), None), EVEN))
    torch.testing.assert_close(plain, even)


EVEN = (importance_minibatch(3, uniform=1.0), {"p": torch.full((N,), 1 / N, dtype=torch.float64)})


def test_lengths_of_rows_pay_at_the_default_problem():
    """Exactly, at every point."""
    whole = linear_regression_minibatch()
    rows, y = draws(256, 10, 0.5)
    p = whole.family.norms / whole.family.norms.sum()
    for point in whole.points:
        g = (y - rows @ whole.at(point).theta)[:, None] * rows
        weighted = float((g.square().sum(-1) / p).sum() - g.sum(0).square().sum())
        assert weighted < 0.85 * 256 * spread(g)


def unweighted(q, x, dfx):
    return q.path(x, dfx / 3)


def uncentred(x, dfx):
    return (dfx[:3, ..., 1:] - dfx[3:, ..., 1:]).mean(0)


@pytest.mark.parametrize(
    ("name", "combine"),
    [("norm", unweighted), ("anchor", uncentred), ("distinct", lambda q, x, dfx: q.path(x, dfx / 4))],
)
def test_a_term_left_out_is_seen(agreement, name, combine):
    found = agreement(replace(WAYS[name], combine=combine), problem())
    assert found.z > found.allowed


def test_one_row_of_two(agreement):
    tiny = linear_regression_minibatch(data=2, dim=1)
    for estimator in (pathwise(1), minibatch(1), importance_minibatch(1), svrg(1), svrg(1, replacement=False)):
        found = agreement(estimator, tiny, replicates=4096)
        assert found.z < found.allowed


def test_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"^minibatch\[samples=0\]: samples must be at least 1$"):
        minibatch(0)
    with pytest.raises(Mismatch, match=rf"^minibatch draws {N + 1} distinct rows; there are {N}$"):
        prepare(minibatch(N + 1), problem())
    with pytest.raises(Mismatch, match=rf"^svrg draws {N + 1} distinct rows; there are {N}$"):
        prepare(svrg(N + 1, replacement=False), problem())
    assert mismatch(svrg(N + 1), problem()) is None
    untold = replace(problem(), family=Minibatch(N))
    assert mismatch(importance_minibatch(), untold) == (
        "importance_minibatch[weights=norm] needs the norms of the data, which this problem does not tell"
    )
    assert mismatch(importance_minibatch(weights="gradient", uniform=0.5), untold) is None
    with pytest.raises(ValueError, match=r"uniform part of the probabilities lies between 0 and 1$"):
        importance_minibatch(uniform=1.5)
    with pytest.raises(ValueError, match=r"would never be drawn$"):
        importance_minibatch(weights="gradient")
    with pytest.raises(ValueError, match=r"^svrg\[distance=-1\]: distance must be at least 0$"):
        svrg(distance=-1)
