"""The exact gradients, against central differences of objectives summed in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.families.normal import Normal
from problems.objectives import Elbo, Expectation, ImportanceWeighted, InclusiveKL, LogMarginal, Objective, Renyi
from problems.truth import MOST_STATES, Truth, by_quadrature, exactly, gauss_hermite, terms, true_gradient

CLOSE = 1e-8

Floats = Sequence[float]
Differences = Callable[..., Tensor]


def log_bernoulli(x: Floats, logits: Floats) -> float:
    return sum(-math.log1p(math.exp(-t if b else t)) for b, t in zip(x, logits, strict=True))


def log_mean_exp(values: Floats) -> float:
    return math.log(sum(math.exp(v) for v in values) / len(values))


def mean(values: Floats) -> float:
    return sum(values) / len(values)


def summed(
    K: int,
    value: Callable[[Floats], float],
    states: list[Floats],
    log_q: Callable[[Floats], float],
    fx: Callable[[Floats], float],
) -> float:
    """E value(fx) over K draws: every tuple of states, weighted by its probability."""
    return sum(
        math.exp(sum(log_q(x) for x in xs)) * value([fx(x) for x in xs]) for xs in itertools.product(states, repeat=K)
    )


# A plain problem: three bits, a cubic cost


THETA = [0.3, -0.8, 1.2]
BITS: list[Floats] = list(itertools.product([0.0, 1.0], repeat=3))


def cubic(x: Floats) -> float:
    return (x[0] + 2 * x[1] - x[2] - 0.4) ** 3 + x[0] * x[2]


def torch_cubic(x: Tensor) -> Tensor:
    return (x[..., 0] + 2 * x[..., 1] - x[..., 2] - 0.4) ** 3 + x[..., 0] * x[..., 2]


PLAIN = Problem("plain", Bernoulli, torch.tensor(THETA, dtype=torch.float64), torch_cubic)

SUMS: dict[str, tuple[Objective, int, Callable[[Floats], float], bool]] = {
    "Expectation": (Expectation(), 1, mean, False),
    "Elbo": (Elbo(), 1, mean, True),
    "ImportanceWeighted, K=2": (ImportanceWeighted(2), 2, log_mean_exp, True),
    "ImportanceWeighted, K=3": (ImportanceWeighted(3), 3, log_mean_exp, True),
    "Renyi": (Renyi(0.5, 2), 2, lambda v: log_mean_exp([0.5 * one for one in v]) / 0.5, True),
}


@pytest.mark.parametrize("name", SUMS)
def test_enumeration_of_every_draw(name: str, differences: Differences) -> None:
    objective, K, value, ratio = SUMS[name]

    def L(theta: list[float]) -> float:
        def log_q(x: Floats) -> float:
            return log_bernoulli(x, theta)

        return summed(K, value, BITS, log_q, lambda x: cubic(x) - (log_q(x) if ratio else 0))

    problem = replace(PLAIN, objective=objective)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    assert terms(problem) == 8**K
    assert not truth.se.any()
    torch.testing.assert_close(truth.gradient, differences(L, THETA), rtol=0, atol=CLOSE)
    shifted = differences(L, [THETA[0] + 1e-4, *THETA[1:]])
    assert float((truth.gradient - shifted).abs().max()) > 10 * CLOSE


def test_parts_are_summed() -> None:
    def addends(x: Tensor) -> Tensor:
        return torch.stack([torch_cubic(x) - x[..., 1], x[..., 1]], -1)

    parts = torch.tensor([[True, True, True], [False, True, False]])
    whole, split = true_gradient(PLAIN), true_gradient(replace(PLAIN, f=addends, parts=parts))
    assert whole is not None
    assert split is not None
    torch.testing.assert_close(split.gradient, whole.gradient, rtol=1e-13, atol=1e-13)


# An amortised problem: two bits for each of three data, an encoder, a model


WEIGHTS, MODEL = [0.4, -0.3, 0.8, 0.1], [0.7, -0.5, 0.2]
ROWS = [[0.5, -1.0], [1.5, 0.3], [-0.2, 0.9]]
PAIRS: list[Floats] = list(itertools.product([0.0, 1.0], repeat=2))


def plain_logits(w: Floats, row: Floats) -> list[float]:
    return [row[0] * w[0] + row[1] * w[2], row[0] * w[1] + row[1] * w[3]]


def plain_joint(x: Floats, m: Floats, row: Floats) -> float:
    return -((row[0] - m[0] * x[0] - m[1] * x[1]) ** 2) - (row[1] - m[2] * x[0] * x[1]) ** 2


def joint(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
    first = data[..., 0] - model[0] * x[..., 0] - model[1] * x[..., 1]
    return -(first**2) - (data[..., 1] - model[2] * x[..., 0] * x[..., 1]) ** 2


AMORTISED = Problem(
    "amortised",
    Bernoulli,
    torch.tensor(WEIGHTS, dtype=torch.float64),
    joint,
    objective=Elbo(),
    encode=lambda w, data: data @ w.reshape(2, 2),
    model=torch.tensor(MODEL, dtype=torch.float64),
    data=torch.tensor(ROWS, dtype=torch.float64),
)


@pytest.mark.parametrize("K", [1, 2])
def test_enumeration_sums_over_the_data_and_ends_with_the_model(K: int, differences: Differences) -> None:
    def L(weights: list[float]) -> float:
        w, m = weights[:4], weights[4:]

        def of_row(row: Floats) -> float:
            def log_q(x: Floats) -> float:
                return log_bernoulli(x, plain_logits(w, row))

            return summed(K, log_mean_exp, PAIRS, log_q, lambda x: plain_joint(x, m, row) - log_q(x))

        return sum(of_row(row) for row in ROWS)

    truth = true_gradient(replace(AMORTISED, objective=ImportanceWeighted(K)))
    assert truth is not None
    assert truth.gradient.shape == (7,)
    torch.testing.assert_close(truth.gradient, differences(L, WEIGHTS + MODEL), rtol=0, atol=CLOSE)
    if K == 1:
        elbo = true_gradient(AMORTISED)
        assert elbo is not None
        torch.testing.assert_close(truth.gradient, elbo.gradient, rtol=1e-12, atol=1e-12)


def test_minibatches_have_the_truth_of_all_the_data() -> None:
    whole, batched = true_gradient(AMORTISED), true_gradient(replace(AMORTISED, batch=1))
    assert whole is not None
    assert batched is not None
    assert torch.equal(whole.gradient, batched.gradient)


def test_log_marginal_is_of_the_model_alone(differences: Differences) -> None:
    def L(m: list[float]) -> float:
        return sum(math.log(sum(math.exp(plain_joint(x, m, row)) for x in PAIRS)) for row in ROWS)

    truth = true_gradient(replace(AMORTISED, objective=LogMarginal()))
    assert truth is not None
    assert not truth.gradient[:4].any()
    torch.testing.assert_close(truth.gradient[4:], differences(L, MODEL), rtol=0, atol=CLOSE)


def test_inclusive_kl_is_cross_entropy_under_the_posterior(differences: Differences) -> None:
    def L(w: list[float]) -> float:
        total = 0.0
        for row in ROWS:
            p = [math.exp(plain_joint(x, MODEL, row)) for x in PAIRS]
            log_q = [log_bernoulli(x, plain_logits(w, row)) for x in PAIRS]
            total += sum(a * b for a, b in zip(p, log_q, strict=True)) / sum(p)
        return total

    def fixed(x: Tensor, data: Tensor) -> Tensor:
        return AMORTISED.value(x, AMORTISED.model, data)

    truth = true_gradient(replace(AMORTISED, f=fixed, model=None, objective=InclusiveKL()))
    assert truth is not None
    torch.testing.assert_close(truth.gradient, differences(L, WEIGHTS), rtol=0, atol=CLOSE)


def test_layers_that_read_the_data(differences: Differences) -> None:
    def lower(w: Tensor, earlier: list[Tensor], data: Tensor) -> Tensor:
        return data @ w[:2].reshape(2, 1)

    def upper(w: Tensor, earlier: list[Tensor]) -> Tensor:
        return earlier[0] * w[2] + w[3]

    def L(weights: list[float]) -> float:
        w, m = weights[:4], weights[4:]

        def of_row(row: Floats) -> float:
            def log_q(x: Floats) -> float:
                return log_bernoulli(x, [row[0] * w[0] + row[1] * w[1], x[0] * w[2] + w[3]])

            return summed(1, mean, PAIRS, log_q, lambda x: plain_joint(x, m, row) - log_q(x))

        return sum(of_row(row) for row in ROWS)

    layered = replace(AMORTISED, family=Chain(Bernoulli, [lower, upper], [1, 1], data=True), encode=None)
    truth = true_gradient(layered)
    assert truth is not None
    torch.testing.assert_close(truth.gradient, differences(L, WEIGHTS + MODEL), rtol=0, atol=CLOSE)


def test_categories(differences: Differences) -> None:
    theta = [0.1, 0.5, -0.4, 0.3, -0.2, 0.6]
    table = [[1.0, -0.4, 0.3], [0.2, 0.9, -1.0]]

    def L(t: list[float]) -> float:
        p = [[math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in (t[:3], t[3:])]
        return sum(p[0][i] * p[1][j] * (table[0][i] + table[1][j]) ** 2 for i in range(3) for j in range(3))

    W = torch.tensor(table, dtype=torch.float64)
    problem = Problem(
        "categories",
        Categorical,
        torch.tensor(theta, dtype=torch.float64).reshape(2, 3),
        lambda x: (x * W).sum((-2, -1)) ** 2,
    )
    truth = true_gradient(problem)
    assert truth is not None
    torch.testing.assert_close(truth.gradient, differences(L, theta), rtol=0, atol=CLOSE)


def test_what_cannot_be_enumerated() -> None:
    normal = Problem("normal", Normal, torch.zeros(2, 1, dtype=torch.float64), lambda x: x.sum(-1))
    assert terms(normal) is None
    assert true_gradient(normal) is None
    assert terms(replace(PLAIN, objective=ImportanceWeighted(7))) is None
    bits = MOST_STATES.bit_length() - 1
    assert terms(replace(PLAIN, theta=torch.zeros(bits))) == MOST_STATES
    assert terms(replace(PLAIN, theta=torch.zeros(bits + 1))) is None
    assert terms(replace(PLAIN, theta=torch.zeros(bits), objective=LogMarginal())) == MOST_STATES


def test_a_problem_s_own_truth_comes_first() -> None:
    own = replace(PLAIN, exact=lambda problem: 2 * problem.theta)
    truth = true_gradient(own)
    assert truth is not None
    assert truth.tier == "closed form"
    assert torch.equal(truth.gradient, 2 * PLAIN.theta)
    stated = Truth(torch.ones(3), torch.full((3,), 0.1), "reference")
    assert true_gradient(replace(PLAIN, exact=lambda problem: stated)) is stated
    assert exactly(torch.ones(2, 3, dtype=torch.float32)).gradient.dtype == torch.float64


def test_gauss_hermite_is_exact_to_degree_2n_minus_1() -> None:
    x, w = gauss_hermite(2, 4)
    assert x.shape == (16, 2)
    assert float(w.sum()) == pytest.approx(1, abs=1e-14)
    assert float((w * x[:, 0] ** 6 * x[:, 1] ** 4).sum()) == pytest.approx(15 * 3, rel=1e-12)
    assert float((w * x[:, 0] ** 8).sum()) != pytest.approx(105, rel=1e-3)


def test_quadrature_carries_its_certificate() -> None:
    def smooth(nodes: int) -> Tensor:
        x, w = gauss_hermite(1, nodes)
        return (w[:, None] * (2 * x).cos()).sum(0)

    def rough(nodes: int) -> Tensor:
        x, w = gauss_hermite(1, nodes)
        return (w[:, None] * (x > 0.3)).sum(0)

    truth = by_quadrature(smooth, 30)
    assert truth.tier == "quadrature"
    assert float(truth.gradient) == pytest.approx(math.exp(-2), abs=1e-13)
    with pytest.raises(ArithmeticError, match="quadrature with 30 nodes is off by"):
        by_quadrature(rough, 30)
    with pytest.raises(ArithmeticError, match="off by"):
        by_quadrature(smooth, 4)
    with pytest.raises(ArithmeticError, match="off by nan"):
        by_quadrature(lambda nodes: torch.full((2,), torch.nan), 4)
