"""The hidden Markov model: its joint, bound and evidence path by path in plain Python, and what its recursions leave out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from estimators import ESTIMATORS
from problems.hmm import draws, hmm
from problems.truth import true_gradient

S, T, N = 2, 4, 2


def log_softmax(values: Sequence[float]) -> list[float]:
    total = math.log(sum(math.exp(v) for v in values))
    return [v - total for v in values]


def log_joint(z: Sequence[int], y: Sequence[float], model: Sequence[float]) -> float:
    """log p(z, y) with the model's numbers as they lie in it."""
    start, mu = log_softmax(model[:S]), model[S + S * S :]
    moves = [log_softmax(model[S + S * s : S + S * (s + 1)]) for s in range(S)]
    total = start[z[0]] + sum(moves[a][b] for a, b in itertools.pairwise(z))
    return total - sum((v - mu[s]) ** 2 + math.log(2 * math.pi) for s, v in zip(z, y, strict=True)) / 2


def log_posterior(z: Sequence[int], y: Sequence[float], theta: Sequence[float], chained: bool) -> float:
    """log q(z | y), step by step."""
    near, total = [0.0, *y, 0.0], 0.0
    for t, s in enumerate(z):
        row = 3 * S + (S * (z[t - 1] + 1 if t else 0) if chained else 0)
        logits = [sum(near[t + i] * theta[S * i + c] for i in range(3)) + theta[row + c] for c in range(S)]
        total += log_softmax(logits)[s]
    return total


@pytest.mark.parametrize("posterior", ["chain", "mean_field"])
@pytest.mark.parametrize("objective", ["elbo", "log_marginal"])
def test_truth_is_the_sum_over_every_path(posterior: str, objective: str, differences: Callable[..., Tensor]) -> None:
    problem = hmm(S, T, N, posterior, objective)
    assert problem.data is not None
    assert problem.model is not None
    rows, P = problem.data.tolist(), len(problem.theta)

    def L(weights: list[float]) -> float:
        total = 0.0
        for y in rows:
            paths = list(itertools.product(range(S), repeat=T))
            log_p = [log_joint(z, y, weights[P:]) for z in paths]
            if objective == "log_marginal":
                total += math.log(sum(map(math.exp, log_p)))
                continue
            log_q = [log_posterior(z, y, weights[:P], posterior == "chain") for z in paths]
            total += sum(math.exp(b) * (a - b) for a, b in zip(log_p, log_q, strict=True))
        return total

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "closed form"
    wanted = differences(L, torch.cat([problem.theta, problem.model]).tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("posterior", ["chain", "mean_field"])
@pytest.mark.parametrize("objective", ["elbo", "log_marginal"])
def test_recursions_are_enumeration(posterior: str, objective: str) -> None:
    """Of the data that are there: of all of them, and of one."""
    problem = hmm(3, 5, 2, posterior, objective)
    assert problem.data is not None
    for there in (problem, replace(problem, data=problem.data[1:])):
        own, wanted = true_gradient(there), true_gradient(replace(there, exact=None))
        assert own is not None
        assert wanted is not None
        assert wanted.tier == "enumeration"
        torch.testing.assert_close(own.gradient, wanted.gradient, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("posterior", ["chain", "mean_field"])
def test_f_and_q_by_hand(posterior: str) -> None:
    problem = hmm(S, T, N, posterior)
    assert problem.data is not None
    assert problem.model is not None
    z = [1, 0, 0, 1]
    x = torch.eye(S).double()[torch.tensor(z)].expand(1, 1, N, T, S)
    fx = problem.value(x)[0, 0].tolist()
    q = problem.bind(problem.site_parameters(problem.theta))
    log_q = q.log_prob(x)[0, 0].tolist()
    for row, y in enumerate(problem.data.tolist()):
        assert fx[row] == pytest.approx(log_joint(z, y, problem.model.tolist()))
        assert log_q[row] == pytest.approx(log_posterior(z, y, problem.theta.tolist(), posterior == "chain"))


def test_sequences_come_from_the_stated_model() -> None:
    """400 sequences of 50: states kept 80% of the time, noise of scale 1, all states as likely, within 5 standard errors."""
    y, z = draws(3, 50, 400)
    n = y.numel()
    kept = (z[:, 1:] == z[:, :-1]).double()
    assert abs(float(kept.mean()) - 0.8) < 5 * math.sqrt(0.16 / kept.numel())
    noise = y - 2.0 * (z - 1)
    assert abs(float(noise.mean())) < 5 / math.sqrt(n)
    assert abs(float(noise.var()) - 1) < 5 * math.sqrt(2 / n)
    first = torch.bincount(z[:, 0], minlength=3) / 400
    assert float((first - 1 / 3).abs().max()) < 5 * math.sqrt(2 / 9 / 400)
    assert torch.equal(draws(3, 50, 400)[0], y)


@pytest.mark.parametrize("posterior", ["chain", "mean_field"])
def test_training_has_raised_the_bound_towards_the_evidence(posterior: str) -> None:
    """At `converged` it is within 1.1 of log p(y), and at the figure of the docstring."""
    from problems.hmm import elbo, evidence

    problem = hmm(posterior=posterior)
    assert problem.point_names() == ["init", "mid", "converged"]
    assert problem.data is not None
    bounds, gaps = [], []
    for point in problem.points.values():
        assert point.model is not None
        bounds.append(float(elbo(point.theta, point.model, problem.data, 3)))
        gaps.append(float(evidence(point.theta, point.model, problem.data, 3)) - bounds[-1])
    assert bounds == sorted(bounds)
    assert min(gaps) > 0
    assert gaps[-1] < 1.1
    assert round(bounds[-1], 1) == {"chain": -118.8, "mean_field": -123.1}[posterior]


@pytest.mark.parametrize(
    ("posterior", "name"),
    [
        *[("chain", name) for name in ("reinforce", "rloo", "ram", "local_expectation", "unordered_set")],
        *[("mean_field", name) for name in ("rloo", "arsm", "local_expectation", "rebar")],
    ],
)
def test_estimators_of_different_kinds_reach_the_truth(posterior: str, name: str) -> None:
    """Holm at 1e-5 over the points; the other checks of the public suite as well."""
    assert failures(check(ESTIMATORS[name](), [hmm(2, 3, 2, posterior)], replicates=4096, level=1e-5)) == []


@pytest.mark.parametrize("scale", [30.0, -30.0])
@pytest.mark.parametrize("posterior", ["chain", "mean_field"])
def test_large_weights_leave_numbers(posterior: str, scale: float) -> None:
    problem = hmm(3, 4, 2, posterior)
    truth = true_gradient(replace(problem, theta=scale * problem.theta))
    assert truth is not None
    assert truth.gradient.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"states": 1}, r"hmm\[states=1\]: states must be at least 2"),
        ({"steps": 1}, r"hmm\[steps=1\]: steps must be at least 2"),
        ({"data": 0}, r"hmm\[data=0\]: data must be at least 1"),
        ({"posterior": "full"}, r"hmm\[posterior=full\]: posterior is chain or mean_field"),
        ({"objective": "renyi"}, r"hmm\[objective=renyi\]: objective is elbo or log_marginal"),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        hmm(**settings)
