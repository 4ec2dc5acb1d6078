"""The noisy cone: its density by hand, its gradient by another quadrature, and the ring that training finds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from bench.conformance import check, failures
from estimators import ESTIMATORS
from problems.noisy_cone import noisy_cone
from problems.truth import true_gradient

CENTRED = [[0.0, 0.0], [1.0, 1.0]]
ON_THE_RING = [[1.9, -0.7], [-1.5, -0.8]]


@pytest.mark.parametrize("at", [CENTRED, ON_THE_RING, [[0.4, 6.0], [-3.0, 1.5]]])
def test_truth_by_differences_over_another_grid(at: list[list[float]], differences: Callable[..., Tensor]) -> None:
    """The bound by Gauss-Legendre panels over eight scales, with scipy's densities."""
    x, w = np.polynomial.legendre.leggauss(20)
    panels = np.linspace(-8, 8, 25)
    nodes = ((panels[1:] + panels[:-1]) / 2)[:, None] + (panels[1] - panels[0]) / 2 * x
    eps, weight = nodes.reshape(-1), np.tile(w * (panels[1] - panels[0]) / 2, 24)
    weight = weight * scipy.stats.norm.pdf(eps)

    def L(theta: list[float]) -> float:
        a, b, s, t = theta
        u, v = a + math.exp(s) * eps[:, None], b + math.exp(t) * eps
        r = u**2 + v**2
        log_p = scipy.stats.norm.logpdf(u, 0, 10) + scipy.stats.norm.logpdf(v, 0, 10)
        log_p = log_p + scipy.stats.norm.logpdf(5, r, 0.1 + r / 100)
        return float(weight @ log_p @ weight + s + t + 1 + math.log(2 * math.pi))

    problem = noisy_cone()
    truth = true_gradient(replace(problem, theta=torch.tensor(at).double()))
    assert truth is not None
    assert truth.tier == "quadrature"
    wanted = differences(L, [*at[0], *at[1]])
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-6 * float(wanted.norm()))


def test_f_by_hand() -> None:
    """At (1, 2) r = 5 is what was seen: the three densities at their modes, but for the prior's 5 / 200."""
    problem = noisy_cone()
    x = torch.tensor([1.0, 2.0]).double()
    wanted = -1.5 * math.log(2 * math.pi) - 2 * math.log(10) - math.log(0.15) - 5 / 200
    assert float(problem.f(x)) == pytest.approx(wanted, rel=1e-14)
    assert problem.scalar_f is not None
    assert problem.scalar_f([1.0, 2.0]) == pytest.approx(wanted, rel=1e-14)
    assert float(problem.f(x) - problem.f(0 * x)) == pytest.approx(1250 - math.log(1.5) - 5 / 200)


def test_the_truth_turns_with_the_ring() -> None:
    """f is the same all around: with x and y exchanged, and a mean mirrored, so is the gradient; at init that of mu is nil."""
    problem = noisy_cone()
    theta = torch.tensor(ON_THE_RING).double()

    def at(there: Tensor) -> Tensor:
        truth = true_gradient(replace(problem, theta=there))
        assert truth is not None
        return truth.gradient.reshape(2, 2)

    torch.testing.assert_close(at(theta.flip(1)), at(theta).flip(1))
    mirrored = theta * torch.tensor([[-1.0, 1], [1, 1]])
    torch.testing.assert_close(at(mirrored), at(theta) * torch.tensor([[-1.0, 1], [1, 1]]))
    start = at(problem.theta)
    assert float(start[0].abs().max()) < 1e-10 * float(start.norm())


def test_training_ends_across_the_ring() -> None:
    """At `converged` E r is what was seen, one scale is about the ring's width, the other longer, and the gradient is small."""
    problem = noisy_cone()
    assert problem.point_names() == ["init", "mid", "converged"]
    theta = problem.points["converged"].theta
    across, along = theta[1].exp().sort().values.tolist()
    assert float(theta[0].square().sum()) + across**2 + along**2 == pytest.approx(5, rel=0.01)
    assert 0.01 < across < 0.1 < along < 1
    first, last = true_gradient(problem), true_gradient(problem.at("converged"))
    assert first is not None
    assert last is not None
    assert float(last.gradient.norm()) < 0.01 * float(first.gradient.norm())


@pytest.mark.parametrize("name", ["reinforce", "rloo", "pathwise", "delta_method", "measure_valued_normal"])
def test_estimators_of_different_kinds_reach_the_truth(name: str) -> None:
    """Holm at 1e-5 over the points; the other checks of the public suite as well."""
    assert failures(check(ESTIMATORS[name](), [noisy_cone()], replicates=8192, level=1e-5)) == []


def test_float32_and_far_away_give_numbers() -> None:
    problem = noisy_cone()
    x = 100 * torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(4))
    assert problem.f(x).dtype == torch.float32
    torch.testing.assert_close(problem.f(x).double(), problem.f(x.double()), rtol=1e-4, atol=1e-3)
    points = x[0, :8].double()
    assert problem.scalar_f is not None
    assert [problem.scalar_f(p) for p in points.tolist()] == pytest.approx(problem.f(points).tolist(), rel=1e-13)


@pytest.mark.parametrize("z", [0.0, -5.0, math.inf])
def test_what_no_ring_explains_is_refused(z: float) -> None:
    with pytest.raises(ValueError, match=rf"^noisy_cone\[z={z}\]: z must be positive and finite$"):
        noisy_cone(z)
