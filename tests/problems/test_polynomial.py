"""The polynomial toy: its closed form by two ways, its two forms, and which straight-through estimators it tells apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators import ESTIMATORS
from estimators.base import mismatch
from problems.polynomial import polynomial
from problems.truth import true_gradient

POWERS = [1.5, 2.0, 3.0]


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("family", ["categorical", "bernoulli"])
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_closed_form_is_enumeration(p: float, family: str, point: str) -> None:
    problem = polynomial(4, p, family).at(point)
    own, enumerated = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert own is not None
    assert enumerated is not None
    assert (own.tier, enumerated.tier) == ("closed form", "enumeration")
    torch.testing.assert_close(own.gradient, enumerated.gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("p", POWERS)
def test_closed_form_at_the_paper_s_size(p: float, differences: Callable[..., Tensor]) -> None:
    """E f = (1/L) sum_i [pi_i .55^p + (1 - pi_i) .45^p], in plain Python."""
    problem = polynomial(p=p).at("mid")

    def L(theta: list[float]) -> float:
        total = 0.0
        for a, b in zip(theta[::2], theta[1::2], strict=True):
            pi = math.exp(a) / (math.exp(a) + math.exp(b))
            total += pi * 0.55**p + (1 - pi) * 0.45**p
        return total / 128

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.gradient.shape == (256,)
    wanted = differences(L, problem.theta.flatten().tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-10)


def test_f_by_hand() -> None:
    """Bits 1, 0, 0 of p = 3: (.55^3 + 2 .45^3) / 3; both forms."""
    wanted = (0.55**3 + 2 * 0.45**3) / 3
    assert float(polynomial(3, 3.0, "bernoulli").f(torch.tensor([1.0, 0, 0]).double())) == pytest.approx(wanted)
    one_hot = torch.tensor([[1.0, 0], [0, 1], [0, 1]]).double()
    assert float(polynomial(3, 3.0).f(one_hot)) == pytest.approx(wanted)


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_both_forms_have_the_same_law(point: str) -> None:
    """The same probabilities of z = 1, and so the gradient of a bit's logit is that of its first entry's."""
    bits, one_hot = polynomial(5, 3.0, "bernoulli").at(point), polynomial(5, 3.0).at(point)
    torch.testing.assert_close(bits.theta.sigmoid(), one_hot.theta.softmax(-1)[:, 0])
    a, b = true_gradient(bits), true_gradient(one_hot)
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a.gradient, b.gradient[::2])
    torch.testing.assert_close(a.gradient, -b.gradient[1::2])


@pytest.mark.parametrize(
    ("name", "p", "point", "slopes"),
    [
        ("reinmax", 2.0, "mid", [0.5, 0.5]),
        ("reinmax", 1.5, "mid", [0.5, 0.5]),
        ("reinmax", 3.0, "mid", [0.5, 0.5]),
        ("straight_through", 2.0, "init", [0.5, 0.5]),
        ("straight_through", 1.5, "init", [0.5, 0.5]),
        ("straight_through", 3.0, "mid", None),
    ],
)
def test_straight_through_takes_a_mean_of_slopes_for_the_difference(
    name: str, p: float, point: str, slopes: list[float] | None
) -> None:
    """var(z) (w_0 f'(0) + w_1 f'(1)) / L, w = 1/2, or the probabilities (slopes=None): within 5 standard errors, 2e-6 a case."""
    problem = polynomial(3, p).at(point)
    pi = problem.theta.softmax(-1)[:, 0]
    low, high = -p * 0.45 ** (p - 1), p * 0.55 ** (p - 1)
    mean = (1 - pi) * low + pi * high if slopes is None else slopes[0] * low + slopes[1] * high
    g = gradients(prepare(ESTIMATORS[name](), problem), range(2**14))[:, ::2]
    z = (g.mean(0) - pi * (1 - pi) * mean / 3) / (g.std(0) / 2**7)
    assert float(z.abs().max()) < 5


def test_half_of_the_gradient_and_twice_it_and_slopes_by_probability_of_the_wrong_sign() -> None:
    ratios = [p * (0.55 ** (p - 1) - 0.45 ** (p - 1)) / 2 / (0.55**p - 0.45**p) for p in POWERS]
    assert ratios == [pytest.approx(0.5, abs=0.01), pytest.approx(1), pytest.approx(2, abs=0.01)]
    pi = polynomial().points["converged"].theta.softmax(-1)[:, 0]
    for p in POWERS:
        weighed = p * (pi * 0.55 ** (p - 1) - (1 - pi) * 0.45 ** (p - 1))
        assert float(weighed.max()) < 0 < 0.55**p - 0.45**p


@pytest.mark.parametrize("name", ["reinforce", "rloo", "local_expectation", "unordered_set", "rebar"])
def test_estimators_of_different_kinds_reach_the_truth(name: str) -> None:
    """Holm at 1e-5 over the points; the other checks of the public suite as well."""
    assert failures(check(ESTIMATORS[name](), [polynomial(3, 1.5)], replicates=8192, level=1e-5)) == []


def test_what_asks_for_a_second_derivative_is_told_below_two() -> None:
    assert mismatch(ESTIMATORS["delta_method"](), polynomial(3, 1.5, "bernoulli")) is not None
    assert [polynomial(3, p).smooth for p in POWERS] == [1, 2, 2]
    assert [polynomial(3, p).degree for p in POWERS] == [None, 2, None]


@pytest.mark.parametrize("family", ["categorical", "bernoulli"])
def test_logits_of_thirty_leave_numbers(family: str) -> None:
    problem = polynomial(3, 1.5, family)
    for logit in (30.0, -30.0):
        away = (
            torch.full((3,), logit).double() if family == "bernoulli" else torch.tensor([[logit, -logit]] * 3).double()
        )
        truth = true_gradient(replace(problem, theta=away))
        assert truth is not None
        assert truth.gradient.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dim": 0}, r"polynomial\[dim=0\]: dim must be at least 1"),
        ({"p": 1.0}, r"polynomial\[p=1.0\]: p must be finite and above 1, where f has a derivative"),
        ({"family": "normal"}, r"polynomial\[family=normal\]: family is categorical or bernoulli"),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        polynomial(**settings)


@pytest.mark.parametrize("family", ["categorical", "bernoulli"])
@pytest.mark.parametrize("p", POWERS)
def test_scalar_form_is_f(p: float, family: str) -> None:
    problem = polynomial(5, p, family)
    x = torch.randn(4, *problem.theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert problem.scalar_f is not None
    assert [problem.scalar_f(point) for point in x.tolist()] == pytest.approx(problem.f(x).tolist(), rel=1e-13)
