"""The Bayesian network against numpy, plain autograd and a quadrature over its weights; three views with one gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators.base import Estimator, Noise
from estimators.flipout import flipout
from estimators.measure_valued import measure_valued_normal
from estimators.noise import MEASURE, addressed, rows_without_replacement
from estimators.pathwise import pathwise, pathwise_total
from estimators.score_function import rloo
from problems.bnn import bnn, elbo_gradient, minus_kl, moments_of_relu, moments_of_tanh
from problems.regression import friedman, initial_weights, layers, size
from problems.truth import true_gradient

SMALL = {"hidden": 2, "inputs": 2, "data": 3}
VIEWS = [
    ("weights", "closed_form"),
    ("weights", "sampled"),
    ("per_datum", "closed_form"),
    ("activations", "closed_form"),
]


def test_the_data_are_the_first_of_one_list() -> None:
    rows = friedman(512, 16).numpy()
    assert rows.shape == (512, 17)
    np.testing.assert_allclose(rows.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(rows.std(0), 1, atol=0.1)
    assert np.array_equal(friedman(20, 8).numpy(), rows[:20, [*range(8), 16]])
    u = rows[:, :16] / math.sqrt(12) + 0.5
    assert (u > 0).all()
    assert (u < 1).all()
    signal = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4]
    slope, offset = np.polyfit(signal, rows[:, 16], 1)
    residual = rows[:, 16] - slope * signal - offset
    assert residual.std() / slope == pytest.approx(1, abs=0.1)
    assert abs(np.corrcoef(rows[:, 5], rows[:, 16])[0, 1]) < 0.1


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_f_is_the_log_likelihood_or_a_share_of_the_log_joint(activation: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (t.numpy() for t in friedman(5, 3).split([3, 1], -1))
    w = rng.standard_normal((4, 2, 5, size(3, 6)))
    W, b, v, c = w[..., :18].reshape(4, 2, 5, 6, 3), w[..., 18:24], w[..., 24:30], w[..., 30]
    h = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0)}[activation](np.einsum("krnhi,ni->krnh", W, x) + b)
    wanted = norm.logpdf(y[:, 0], (v * h).sum(-1) + c, 0.3)
    settings = {"hidden": 6, "inputs": 3, "data": 5, "batch": 0, "activation": activation}
    for view in ("weights", "per_datum"):
        np.testing.assert_allclose(bnn(**settings, view=view).value(torch.from_numpy(w)), wanted, rtol=1e-12)
    joint = bnn(**settings, kl="sampled").value(torch.from_numpy(w))
    np.testing.assert_allclose(joint, wanted + norm.logpdf(w).sum(-1) / 5, rtol=1e-12)
    a = rng.standard_normal((4, 2, 5, 7))
    found = bnn(**settings, view="activations").value(torch.from_numpy(a))
    np.testing.assert_allclose(found, norm.logpdf(y[:, 0], a[..., -1], 0.3), rtol=1e-12)


def test_the_term_in_closed_form_is_the_divergence() -> None:
    theta = torch.randn(2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q, p = torch.distributions.Normal(theta[0], theta[1].exp()), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(minus_kl(theta), -torch.distributions.kl_divergence(q, p).sum())


def test_the_exact_gradient_is_the_slope_of_the_elbo_over_the_weights() -> None:
    """One input, one hidden unit: four weights, by a product of Gauss-Hermite rules over all of them, differenced in numpy."""
    nodes, weight = np.polynomial.hermite_e.hermegauss(24)
    z = np.stack(np.meshgrid(*[nodes] * 4, indexing="ij"), -1).reshape(-1, 4)
    chance = np.prod(np.stack(np.meshgrid(*[weight / math.sqrt(2 * math.pi)] * 4, indexing="ij"), -1).reshape(-1, 4), 1)
    x, y = friedman(3, 1).numpy().T

    def elbo(theta: np.ndarray) -> float:
        mu, sigma = theta[0], np.exp(theta[1])
        W, b, v, c = (mu + sigma * z).T[:, :, None]
        likelihood = chance @ norm.logpdf(y, v * np.tanh(W * x + b) + c, 0.3).sum(-1)
        return float(likelihood + (theta[1] - 0.5 * (mu**2 + sigma**2 - 1)).sum())

    theta = np.array([[0.7, -0.3, 0.9, 0.2], [-1.0, -0.8, -0.5, -1.2]])
    rows = friedman(3, 1)
    found = elbo_gradient(torch.from_numpy(theta), rows, 1, 1, lambda m, s: moments_of_tanh(m, s, 160)).numpy()
    for place in np.ndindex(2, 4):
        step = np.zeros_like(theta)
        step[place] = 1e-4
        slope = (elbo(theta + step) - elbo(theta - step)) / 2e-4
        assert found[place[0] * 4 + place[1]] == pytest.approx(slope, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("m", "s"), [(0.4, 0.7), (-2.0, 1.5), (3.0, 0.2)])
def test_moments_of_a_hidden_unit(m: float, s: float) -> None:
    at = torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)

    def moment(h: Callable[[float], float], power: int) -> float:
        sides = ((-12.0, -m / s), (-m / s, 12.0))  # of the kink
        return float(sum(quad(lambda z: h(m + s * z) ** power * norm.pdf(z), *side)[0] for side in sides))

    for h, found in ((math.tanh, moments_of_tanh(*at, 160)), (lambda a: max(a, 0.0), moments_of_relu(*at))):
        for power in (1, 2):
            assert float(found[power - 1]) == pytest.approx(moment(h, power), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_all_views_stand_at_the_same_points_with_the_same_gradient(point: str) -> None:
    found = []
    for view, kl in VIEWS:
        problem = bnn(view=view, kl=kl).at(point)
        truth = true_gradient(problem)
        assert truth is not None
        assert truth.tier == "quadrature"
        found.append((problem.theta, truth.gradient))
    for theta, gradient in found[1:]:
        assert torch.equal(theta, found[0][0])
        assert torch.equal(gradient, found[0][1])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_exact_gradient_is_that_of_the_rows_it_has(activation: str) -> None:
    three, two = (bnn(hidden=2, inputs=2, data=data, batch=0, activation=activation) for data in (3, 2))
    assert three.data is not None
    found, wanted = true_gradient(replace(three, data=three.data[:2])), true_gradient(two)
    assert found is not None
    assert wanted is not None
    assert torch.equal(found.gradient, wanted.gradient)


def agree(estimators: list[Estimator], replicates: int, **settings: object) -> None:
    """None of them is found biased; a false alarm in 1e-5 of such tests."""
    problem = bnn(**SMALL, **settings)  # type: ignore[arg-type]
    for estimator in estimators:
        findings = check(estimator, [problem], seed=3, replicates=replicates, level=1e-5)
        assert len(findings) > 3
        assert failures(findings) == []


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("view", "kl"), VIEWS)
def test_estimators_agree_with_the_one_gradient_in_every_view(view: str, kl: str, activation: str, batch: int) -> None:
    estimators = [pathwise(), rloo(3)]
    if kl == "sampled":
        estimators.append(pathwise_total())
    if view != "activations":
        estimators += [flipout(), measure_valued_normal()]
    agree(estimators, 4096, view=view, kl=kl, activation=activation, batch=batch)


def test_pathwise_on_activations_is_the_local_reparameterisation_trick() -> None:
    """Pre-activations and output of each datum drawn from what the weights' law says, and plain autograd through them."""
    problem = bnn(hidden=4, inputs=3, data=6, batch=3, view="activations")
    assert problem.data is not None
    trial = prepare(pathwise(), problem, 2)
    indices = rows_without_replacement(trial.key, MEASURE, range(5), 6, 3)
    noise = addressed(Noise("normal", (1,), (5,)), trial.key, MEASURE, 0, range(5), indices, torch.float64)[0]
    found = gradients(trial, range(5))
    for r in range(5):
        theta = problem.theta.clone().requires_grad_()
        mean, variance = layers(theta[0], 3, 4), layers((2 * theta[1]).exp(), 3, 4)
        x, y = problem.data[indices[r]].split([3, 1], -1)
        a = x @ mean.W.T + mean.b + (x**2 @ variance.W.T + variance.b).sqrt() * noise[r, :, :4]
        h = a.tanh()
        o = h @ mean.v + mean.c + (h**2 @ variance.v + variance.c).sqrt() * noise[r, :, 4]
        likelihood = torch.distributions.Normal(o, 0.3).log_prob(y[:, 0]).sum()
        (2 * likelihood + minus_kl(theta)).backward()
        assert theta.grad is not None
        torch.testing.assert_close(found[r], theta.grad.reshape(-1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("view", ["weights", "per_datum"])
def test_pathwise_on_weights_is_plain_autograd(view: str) -> None:
    problem = bnn(hidden=4, inputs=3, data=6, batch=0, view=view)
    assert problem.data is not None
    trial, D = prepare(pathwise(), problem, 2), size(3, 4)
    of = None if view == "weights" else range(6)
    noise = addressed(Noise("normal", (1,), (D,)), trial.key, MEASURE, 0, range(4), of, torch.float64)[0]
    found = gradients(trial, range(4))
    for r in range(4):
        theta = problem.theta.clone().requires_grad_()
        loss = minus_kl(theta)
        for n, row in enumerate(problem.data):
            w = layers(
                theta[0] + theta[1].exp() * noise[r] if of is None else theta[0] + theta[1].exp() * noise[r, n], 3, 4
            )
            o = w.v @ (w.W @ row[:3] + w.b).tanh() + w.c
            loss = loss + torch.distributions.Normal(o, 0.3).log_prob(row[3])
        loss.backward()
        assert theta.grad is not None
        torch.testing.assert_close(found[r], theta.grad.reshape(-1), rtol=1e-10, atol=1e-10)


def test_draws_of_their_own_average_out_where_a_common_one_does_not() -> None:
    """All data in every f: the trace of the covariance of 512 gradients, by view; half of the gaps that are known."""

    def trace(estimator: Estimator, view: str) -> float:
        problem = bnn(batch=0, data=64, view=view)
        return float(gradients(prepare(estimator, problem, 1), range(512)).var(0).sum())

    common, own, signs = trace(pathwise(), "weights"), trace(pathwise(), "per_datum"), trace(flipout(), "per_datum")
    assert common > 3 * own
    assert common > 3 * signs
    assert own > 1.1 * trace(pathwise(), "activations")


def test_it_runs_in_single_precision_and_starts_where_it_says() -> None:
    for view, kl in VIEWS:
        problem = bnn(**SMALL, batch=2, view=view, kl=kl)  # type: ignore[arg-type]
        found = gradients(prepare(pathwise(), problem, 1, dtype="float32"), range(4))
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert torch.equal(problem.theta[0], initial_weights(2, 2))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"view": "units"}, r"bnn\[view=units\]: view is weights, per_datum or activations"),
        ({"kl": "none"}, r"bnn\[kl=none\]: kl is closed_form or sampled"),
        ({"activation": "gelu"}, r"bnn\[activation=gelu\]: activation is tanh or relu"),
        (
            {"view": "activations", "kl": "sampled"},
            r"bnn\[kl=sampled,view=activations\]: log q of the weights is sampled",
        ),
        ({"batch": 129}, r"bnn\[batch=129\]: batch is 0 \(all\) or a number of rows up to data=128"),
        ({"data": 513}, r"bnn\[data=513\]: there are 512"),
        ({"inputs": 17}, r"bnn\[inputs=17\]: there are 16"),
        ({"hidden": 0}, r"bnn\[hidden=0\]: hidden must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bnn(**settings)  # type: ignore[arg-type]
