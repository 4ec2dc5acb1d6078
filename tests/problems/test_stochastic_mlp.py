"""The stochastic classifier against numpy, plain Python, plain enumeration and plain autograd, and estimators at its points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, initial_state, prepare
from bench.measure import observe
from bench.measurement import bias_test
from estimators.base import Estimator, Noise, claim_of
from estimators.disarm import disarm
from estimators.disarm_layers import disarm_layers
from estimators.local_expectation import local_expectation
from estimators.noise import MEASURE, addressed
from estimators.psa import psa
from estimators.rebar import rebar
from estimators.score_function import rloo
from estimators.straight_through import straight_through
from problems.base import Problem
from problems.labelled_digits import labelled_digits
from problems.stochastic_mlp import stochastic_mlp
from problems.truth import enumerated, true_gradient


def exact_gradient(problem: Problem) -> Tensor:
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    return truth.gradient


def scattered(problem: Problem, seed: int = 0) -> Problem:
    """The same problem at random weights."""
    generator = torch.Generator().manual_seed(seed)
    assert problem.model is not None
    theta, model = (
        torch.randn(len(t), generator=generator, dtype=torch.float64) for t in (problem.theta, problem.model)
    )
    return replace(problem, theta=theta / 4, model=model)


def test_rows_are_digits_and_their_labels() -> None:
    rows = labelled_digits(40)
    assert rows.shape == (40, 74)
    assert rows[:, 64:].argmax(-1).tolist() == load_digits().target[:40].tolist()
    assert rows[:10, 64:].argmax(-1).tolist() == list(range(10))
    assert set(rows.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("layers", [1, 2])
def test_f_is_the_log_probability_of_the_label(layers: int) -> None:
    """Of the last layer alone."""
    problem = scattered(stochastic_mlp(layers, 3, data=7, batch=0))
    rng = np.random.default_rng(layers)
    h = rng.integers(2, size=(2, 5, 7, 3 * layers)).astype(float)
    assert problem.model is not None
    W, b = problem.model[:30].reshape(3, 10).numpy(), problem.model[30:].numpy()
    scores = h[..., -3:] @ W + b
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    wanted = np.take_along_axis(log_p, np.broadcast_to(load_digits().target[:7, None], (2, 5, 7, 1)), -1)[..., 0]
    np.testing.assert_allclose(problem.value(torch.from_numpy(h)).numpy(), wanted, rtol=1e-12)


def affine(weights: Sequence[float], h: Sequence[float], outputs: int) -> list[float]:
    bias = weights[len(h) * outputs :]
    return [bias[o] + sum(h[i] * weights[i * outputs + o] for i in range(len(h))) for o in range(outputs)]


def probability(bits: Sequence[float], logits: Sequence[float]) -> float:
    return math.prod(1 / (1 + math.exp(-t if b else t)) for b, t in zip(bits, logits, strict=True))


@pytest.mark.parametrize("layers", [1, 2])
def test_truth_is_the_sum_over_hidden_states(layers: int, differences: Callable[..., Tensor]) -> None:
    """In plain Python, by central differences."""
    problem = scattered(stochastic_mlp(layers, 2, data=2, batch=0))
    assert problem.data is not None
    assert problem.model is not None
    P, images = len(problem.theta), problem.data[:, :64].tolist()

    def L(weights: list[float]) -> float:
        theta, model, total = weights[:P], weights[P:], 0.0
        for label, pixels in enumerate(images):
            first = affine(theta[:130], pixels, 2)
            for h in itertools.product([0.0, 1.0], repeat=2 * layers):
                q = probability(h[:2], first)
                if layers == 2:
                    q *= probability(h[2:], affine(theta[130:], h[:2], 2))
                scores = affine(model, h[-2:], 10)
                total += q * (scores[label] - math.log(sum(map(math.exp, scores))))
        return total

    wanted = differences(L, torch.cat([problem.theta, problem.model]).tolist())
    torch.testing.assert_close(exact_gradient(problem), wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("layers", "hidden"), [(1, 1), (1, 6), (2, 1), (2, 3), (2, 4)])
def test_the_sums_are_the_plain_enumeration(layers: int, hidden: int) -> None:
    problem = scattered(stochastic_mlp(layers, hidden, data=12, batch=3), hidden)
    torch.testing.assert_close(exact_gradient(problem), enumerated(problem).gradient, rtol=1e-10, atol=1e-10)


def plainly(problem: Problem, seed: int, replicates: int) -> Tensor:
    """RLOO with two samples by autograd of a surrogate, in the weights of the hidden layers and of the softmax."""
    assert problem.model is not None
    assert problem.data is not None
    layers, hidden = problem.settings["layers"], problem.settings["hidden"]
    trial = prepare(rloo(2), problem, seed)
    event = Noise("uniform", (2,), (layers * hidden,))
    u = addressed(event, trial.key, MEASURE, 0, range(replicates), range(problem.rows), torch.float64)
    x, y = problem.data.split([64, 10], -1)
    rows = []
    for r in range(replicates):
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        maps = [part.reshape(-1, hidden) for part in theta.split([65 * hidden, (hidden + 1) * hidden][:layers])]
        h, log_q = x, torch.zeros(2, problem.rows, dtype=torch.float64)
        for layer, uniform in enumerate(u[:, r].split(hidden, -1)):
            logits = h @ maps[layer][:-1] + maps[layer][-1]
            h = (uniform < logits.sigmoid()).double()
            log_q = log_q + torch.distributions.Bernoulli(logits=logits).log_prob(h).sum(-1)
        table = model.reshape(-1, 10)
        f = torch.distributions.Categorical(logits=h @ table[:-1] + table[-1]).log_prob(y.argmax(-1))
        surrogate = ((f - f.mean(0)).detach() * log_q).sum() + f.mean(0).sum()
        rows.append(torch.cat(torch.autograd.grad(surrogate, (theta, model))))
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [1, 2])
def test_rloo_is_plain_autograd_of_its_surrogate(layers: int) -> None:
    problem = scattered(stochastic_mlp(layers, 4, data=6, batch=0))
    found = gradients(prepare(rloo(2), problem, 3), range(8))
    torch.testing.assert_close(found, plainly(problem, 3, 8), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("layers", "point", "estimator"),
    [
        (1, "init", rloo(4)),
        (1, "mid", disarm()),
        (1, "mid", local_expectation()),
        (1, "converged", rebar()),
        (2, "mid", rloo(4)),
        (2, "converged", disarm_layers()),
    ],
)
def test_estimators_agree_with_the_sums_at_the_stored_points(layers: int, point: str, estimator: Estimator) -> None:
    """The harness's own test of a bias, in every coordinate, at an error rate of 1e-5."""
    problem = stochastic_mlp(layers).at(point)
    assert claim_of(estimator, problem) == "unbiased"
    found = observe(estimator, problem, point=point, replicates=512, backend="torch")
    assert bias_test(found) > 1e-5
    if point == "init":
        assert bias_test(replace(found, truth=1.3 * found.truth)) < 1e-5  # a wrong truth is seen


def test_the_bias_of_straight_through_grows_along_training() -> None:
    """|mean - gradient| / |gradient| in theta, over all the data."""
    biased = []
    for point in ("init", "converged"):
        problem = replace(stochastic_mlp().at(point), batch=0)
        P, truth = len(problem.theta), exact_gradient(problem)
        g = gradients(prepare(straight_through(), problem), range(256)).mean(0)
        biased.append(float((g - truth)[:P].norm() / truth[:P].norm()))
    assert biased[0] < 0.15
    assert biased[1] > 0.8


@pytest.mark.parametrize("settings", [{"hidden": 2}, {"layers": 2, "hidden": 2}])
def test_every_check_passes_where_it_is_small(settings: dict[str, Any]) -> None:
    problem = stochastic_mlp(**settings, data=3, batch=2)
    for estimator in (rloo(2), local_expectation(), psa() if problem.encode else disarm_layers()):
        found = check(estimator, [problem], replicates=4096)
        assert found
        assert failures(found) == []


@pytest.mark.parametrize("estimator", [rloo(2), rebar(), straight_through(), local_expectation()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_certain_bits_give_finite_gradients(estimator: Estimator, dtype: str) -> None:
    """Logits of +-30 and more, and a softmax as sure of itself."""
    start = stochastic_mlp(hidden=4, data=10, batch=0)
    assert start.model is not None
    problem = replace(start, theta=100 * start.theta, model=100 * start.model)
    assert float(problem.site_parameters(problem.theta).abs().max()) > 30
    trial = prepare(estimator, problem, dtype=dtype)
    assert bool(gradients(trial, range(64), initial_state(trial)).isfinite().all())


def test_more_bits_than_can_be_summed_have_no_exact_gradient() -> None:
    for layers, most in [(1, 16), (2, 14)]:
        assert stochastic_mlp(layers, most).exact is not None
        assert stochastic_mlp(layers, most + 1).exact is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": 3}, r"stochastic_mlp\[layers=3\]: layers is 1 or 2"),
        ({"hidden": 0}, r"stochastic_mlp\[hidden=0\]: hidden must be at least 1"),
        ({"data": 2000}, r"stochastic_mlp\[data=2000\]: data is the number of digits, 1 to 1797"),
        ({"data": 10}, r"stochastic_mlp\[batch=20\]: batch is 0 \(all\) or a number of rows up to data=10"),
    ],
)
def test_settings_it_cannot_take(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        stochastic_mlp(**settings)
