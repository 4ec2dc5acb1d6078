"""Losses of an order by hand, and their expectation as a sum over all orders, each by a quadrature of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from bench.conformance import check, failures
from estimators.base import mismatch
from estimators.evolution_strategies import evolution_strategies
from estimators.measure_valued import measure_valued_normal
from estimators.pathwise import pathwise
from estimators.score_function import rloo
from problems.sorting_smooth import LOSSES, mean_inversions, mean_of_ranks, sorting_smooth
from problems.truth import true_gradient

POINTS = ["init", "mid", "converged", "narrow"]
BY_HAND = {  # x -> inversions, squared errors of the ranks, 1 where out of order
    (0.1, 0.2, 0.3): (0, 0, 0),
    (0.2, 0.1, 0.3): (1, 2, 1),
    (5.0, -1.0, 2.0): (2, 6, 1),
    (3.0, 2.0, 1.0): (3, 8, 1),
}


def Phi(t: float) -> float:
    return 0.5 * math.erfc(-t / math.sqrt(2))


def of_an_order(order: tuple[int, ...], mu: list[float], sigma: list[float]) -> float:
    """P(x_a < x_b < x_c) = int N(t; mu_b, sigma_b^2) P(x_a < t) P(x_c > t) dt."""
    a, b, c = order

    def integrand(t: float) -> float:
        s = mu[b] + sigma[b] * t
        ends = Phi((s - mu[a]) / sigma[a]) * Phi((mu[c] - s) / sigma[c])
        return math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi) * ends

    return float(quad(integrand, -9, 9, epsabs=1e-13, epsrel=1e-12, limit=200)[0])


@pytest.mark.parametrize("point", POINTS)
def test_the_gradient_is_that_of_a_sum_over_all_orders(point: str, differences: Callable[..., Tensor]) -> None:
    orders = list(itertools.permutations(range(3)))
    values = torch.empty(6, 3, dtype=torch.float64)
    for row, order in zip(values, orders, strict=True):
        row[list(order)] = torch.arange(3.0, dtype=torch.float64)  # numbers in this order

    def chances(theta: list[float]) -> Tensor:
        mu, sigma = theta[:3], [math.exp(t) for t in theta[3:]]
        return torch.tensor([of_an_order(order, mu, sigma) for order in orders], dtype=torch.float64)

    problem = sorting_smooth()
    theta = problem.points[point].theta.flatten().tolist()
    slopes = torch.stack([differences(lambda t, k=k: float(chances(t)[k]), theta) for k in range(6)])
    for loss in LOSSES:
        of_loss = sorting_smooth(loss=loss).at(point)
        truth = true_gradient(of_loss)
        assert truth is not None
        assert truth.tier == ("closed form" if loss == "inversions" else "quadrature")
        torch.testing.assert_close(truth.gradient, of_loss.f(values) @ slopes, rtol=0, atol=1e-7)
        assert float(truth.gradient.abs().max()) > 1e-3


def test_points_are_as_stated() -> None:
    """The gaps between neighbours, and the one sigma."""
    wanted: dict[str, tuple[list[float], float]] = {
        "init": ([-0.5, 1.5, -0.5, 1.0], 1.0),
        "narrow": ([-0.5, 1.5, -0.5, 1.0], 0.2),
        "mid": ([0.5] * 4, 1.0),
        "converged": ([3.0] * 4, 1.0),
    }
    for name, point in sorting_smooth(5).points.items():
        gaps, sigma = wanted.pop(name)
        assert point.theta[0].diff().tolist() == pytest.approx(gaps)
        assert point.theta[1].exp().tolist() == pytest.approx([sigma] * 5)
    assert not wanted


def test_losses_by_hand() -> None:
    x = torch.tensor(list(BY_HAND), dtype=torch.float64)
    for place, loss in enumerate(("inversions", "ranks", "order")):
        problem = sorting_smooth(loss=loss)
        wanted = [values[place] for values in BY_HAND.values()]
        assert problem.f(x).tolist() == wanted
        assert problem.scalar_f is not None
        assert [problem.scalar_f(list(one)) for one in BY_HAND] == wanted


@pytest.mark.parametrize(
    ("dim", "loss", "point"),
    [*itertools.product([5], LOSSES, POINTS), *[(40, "ranks", point) for point in POINTS], (40, "order", "converged")],
)
def test_a_shift_and_a_stretch_change_nothing(dim: int, loss: str, point: str) -> None:
    """The order is the same, so that sum dL/dmu = 0 and sum mu dL/dmu + dL/dlog sigma = 0."""
    problem = sorting_smooth(dim, loss).at(point)
    truth = true_gradient(problem)
    assert truth is not None
    of_mu, of_log_sigma = truth.gradient.reshape(2, dim)
    size = float(truth.gradient.norm())
    assert abs(float(of_mu.sum())) < 1e-10 * size
    assert abs(float((problem.theta[0] * of_mu).sum() + of_log_sigma.sum())) < 1e-10 * size
    x = torch.randn(50, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(problem.f(3 * x - 2), problem.f(x))


def test_two_numbers_have_one_pair_whatever_the_loss() -> None:
    """ranks counts it twice; order and inversions are the same."""
    theta = torch.tensor([[0.4, -0.3], [0.2, -0.9]], dtype=torch.float64)
    gap = 0.7 / math.hypot(math.exp(0.2), math.exp(-0.9))
    for loss, times in (("inversions", 1), ("ranks", 2), ("order", 1)):
        assert float(LOSSES[loss].mean(theta, 160)) == pytest.approx(times * Phi(gap), rel=1e-13)


def test_scales_that_the_quadrature_cannot_resolve_are_refused() -> None:
    problem = sorting_smooth(loss="ranks")
    assert problem.exact is not None
    theta = problem.theta.clone()
    theta[1] = torch.tensor([3.0, -4.0, 0.0])
    far = type(problem)(**{**vars(problem), "theta": theta})
    with pytest.raises(ArithmeticError, match="quadrature with 400 nodes is off by"):
        problem.exact(far)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_estimators_of_three_kinds_reach_the_truth(loss: str) -> None:
    """Scores, weak derivatives and smoothing, none of which asks a derivative of f: Holm at 1e-4 over four points each."""
    problem = sorting_smooth(4, loss)
    for estimator in (rloo(4), measure_valued_normal(), evolution_strategies()):
        findings = check(estimator, [problem], replicates=4096, level=1e-4)
        assert failures(findings) == []
        assert len({f.point for f in findings}) == 4
    assert "derivative" in str(mismatch(pathwise(), problem))


def test_f_knows_neither_axes_nor_dtype() -> None:
    x = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for loss in LOSSES:
        f = sorting_smooth(5, loss).f
        assert f(x).shape == (2, 3, 7)
        assert f(x.float()).dtype == torch.float32
        assert torch.equal(f(x.float()).double(), f(x))
        mapped = torch.func.vmap(f)(x.flatten(0, 2)).reshape(2, 3, 7)
        assert torch.equal(mapped, f(x))


def test_the_mean_is_that_of_draws() -> None:
    """Eight numbers of different scales: 200,000 draws, |z| < 5."""
    theta = torch.stack([torch.linspace(1, -1, 8), torch.linspace(-0.5, 0.5, 8)]).double()
    eps = torch.randn(200_000, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = theta[0] + theta[1].exp() * eps
    for loss, mean in (("inversions", mean_inversions), ("ranks", mean_of_ranks)):
        f = LOSSES[loss].f(x)
        z = (f.mean() - mean(theta, 160)) / (f.std() / math.sqrt(len(f)))
        assert abs(float(z)) < 5


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sorting_smooth\[dim=1\]: dim must be at least 2"):
        sorting_smooth(1)
    with pytest.raises(ValueError, match=r"sorting_smooth\[loss=swaps\]: loss is inversions, ranks or order"):
        sorting_smooth(loss="swaps")
