"""The mixture's ELBO and bounds, component by component in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from problems.base import Problem
from problems.mixture import draws, mixture
from problems.truth import true_gradient

C, F, N = 3, 2, 4


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def bound(log_w: list[float]) -> float:
    """log of the average weight."""
    return math.log(sum(map(math.exp, log_w)) / len(log_w))


def renyi(log_w: list[float]) -> float:
    """Of order 2: the harmonic mean of the weights."""
    return -math.log(sum(math.exp(-v) for v in log_w) / len(log_w))


@pytest.mark.parametrize(("K", "objective", "of_draw"), [(1, "elbo", bound), (2, "elbo", bound), (2, "renyi", renyi)])
def test_truth_is_the_sum_over_components(
    K: int, objective: str, of_draw: Callable[..., float], differences: Callable[..., Tensor]
) -> None:
    def L(log_w: list[float], q: list[float]) -> float:
        draws = itertools.product(range(C), repeat=K)
        return sum(math.prod(q[c] for c in draw) * of_draw([log_w[c] for c in draw]) for draw in draws)

    held_against(mixture(C, F, N, K, objective, 2.0), L, differences)


def test_thermodynamic_bound_is_the_riemann_sum(differences: Callable[..., Tensor]) -> None:
    """On the left of five parts, evenly spaced in log beta from 1e-2; the log evidence lies above it."""
    betas = [0.0, *(10 ** (-2 + j / 2) for j in range(5))]

    def L(log_w: list[float], q: list[float]) -> float:
        total = 0.0
        for low, high in itertools.pairwise(betas):
            mass = [q[c] * math.exp(low * log_w[c]) for c in range(C)]
            total += (high - low) * sum(m * v for m, v in zip(mass, log_w, strict=True)) / sum(mass)
        return total

    held_against(mixture(C, F, N, 1, "thermodynamic"), L, differences)


def test_log_marginal_is_the_sum_over_components(differences: Callable[..., Tensor]) -> None:
    def L(log_w: list[float], q: list[float]) -> float:
        return math.log(sum(q[c] * math.exp(log_w[c]) for c in range(C)))

    held_against(mixture(C, F, N, 1, "log_marginal"), L, differences)


def held_against(
    problem: Problem, of_datum: Callable[[list[float], list[float]], float], differences: Callable[..., Tensor]
) -> None:
    """The truth beside differences of the sum over the data of of_datum(log w of each component, q)."""
    assert problem.data is not None
    assert problem.model is not None
    rows = problem.data.tolist()

    def L(weights: list[float]) -> float:
        theta, means, w = weights[: (F + 1) * C], weights[(F + 1) * C : -C], softmax(weights[-C:])
        total = 0.0
        for x in rows:
            q = softmax([sum(x[i] * theta[i * C + c] for i in range(F)) + theta[F * C + c] for c in range(C)])
            log_w = [
                math.log(w[c])
                - sum((x[i] - means[c * F + i]) ** 2 + math.log(2 * math.pi) for i in range(F)) / 2
                - math.log(q[c])
                for c in range(C)
            ]
            total += of_datum(log_w, q)
        return total

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    wanted = differences(L, torch.cat([problem.theta, problem.model]).tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-7)


def test_data_come_from_the_stated_mixture() -> None:
    """200 components of about 20 draws each: within 5 standard errors, the scale is 1, the means' spread 2, the shares equal."""
    C, n = 200, 4000
    x, component = draws(C, 2, n)
    counts = torch.bincount(component, minlength=C)
    assert int(counts.min()) > 1
    centres = torch.stack([x[component == c].mean(0) for c in range(C)])
    residual = ((x - centres[component]) ** 2).sum() / (2 * (n - C))
    assert abs(float(residual) - 1) < 5 * math.sqrt(2 / (2 * (n - C)))
    spread = float((centres**2).mean() - (1 / counts).mean())
    assert abs(spread - 4) < 5 * 4 * math.sqrt(2 / (2 * C))
    assert float(((counts - n / C) ** 2).sum() / (n / C)) < C + 5 * math.sqrt(2 * C)
    assert torch.equal(draws(C, 2, n)[0], x)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"categories": 1}, r"mixture\[categories=1\]: categories must be at least 2"),
        ({"dim": 0}, r"mixture\[dim=0\]: dim must be at least 1"),
        ({"data": 0}, r"mixture\[data=0\]: data must be at least 1"),
        ({"samples": 0}, r"mixture\[samples=0\]: samples must be at least 1"),
        ({"objective": "renyi", "alpha": 1.0}, r"Renyi's bound of alpha=1 is the ELBO: take that"),
        (
            {"objective": "kl"},
            r"mixture\[objective=kl\]: objective is elbo, renyi, log_marginal, thermodynamic or inclusive_kl",
        ),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        mixture(**settings)
