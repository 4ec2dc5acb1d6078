"""The belief network on digits against numpy, plain autograd, plain enumeration, and two estimators a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, Noise
from estimators.disarm import disarm
from estimators.noise import MEASURE, addressed
from estimators.score_function import rloo
from problems.base import Problem
from problems.reference import fingerprint, read_references
from problems.sbn import sbn
from problems.truth import enumerated, true_gradient


def weights(flat: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """flat cut into arrays of these shapes, in order and to the end."""
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])
    assert cuts[-1] == len(flat)
    return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts[:-1]), shapes, strict=True)]


def log_bernoulli(bits: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.where(bits == 1, np.log(p), np.log1p(-p)).sum(-1)


@pytest.mark.parametrize("layers", [1, 2])
def test_f_is_the_log_joint(layers: int) -> None:
    problem = sbn(layers=layers, hidden=5, data=7, batch=0)
    rng = np.random.default_rng(layers)
    z = rng.integers(2, size=(3, 4, 7, 5 * layers)).astype(float)
    assert problem.model is not None
    assert problem.data is not None
    model = rng.standard_normal(len(problem.model))
    h1 = z[..., :5]
    if layers == 1:
        W1, b1, top = weights(model, [(5, 64), (64,), (5,)])
        prior = log_bernoulli(h1, expit(top))
    else:
        W1, b1, W2, b2, top = weights(model, [(5, 64), (64,), (5, 5), (5,), (5,)])
        h2 = z[..., 5:]
        prior = log_bernoulli(h1, expit(h2 @ W2 + b2)) + log_bernoulli(h2, expit(top))
    wanted = log_bernoulli(problem.data.numpy(), expit(h1 @ W1 + b1)) + prior
    found = problem.f(torch.from_numpy(z), problem.data, torch.from_numpy(model))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-8)


@pytest.mark.parametrize(("layers", "hidden"), [(1, 1), (1, 5), (2, 1), (2, 4), (2, 5)])
def test_the_sums_are_the_plain_enumeration(layers: int, hidden: int) -> None:
    problem = sbn(layers=layers, hidden=hidden, data=5, batch=2)
    generator = torch.Generator().manual_seed(hidden)
    assert problem.model is not None
    problem = replace(
        problem,
        theta=torch.randn(problem.theta.shape, generator=generator, dtype=torch.float64) / 4,
        model=torch.randn(problem.model.shape, generator=generator, dtype=torch.float64),
    )
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    torch.testing.assert_close(truth.gradient, enumerated(problem).gradient, rtol=1e-7, atol=1e-7)


def plainly(problem: Problem, seed: int, replicates: int) -> torch.Tensor:
    """RLOO with two samples by autograd of a surrogate, in the weights of the encoder and of the model."""
    assert problem.model is not None
    assert problem.data is not None
    layers, hidden = problem.settings["layers"], problem.settings["hidden"]
    trial = prepare(rloo(2), problem, seed)
    event = Noise("uniform", (2,), (layers * hidden,))
    u = addressed(event, trial.key, MEASURE, 0, range(replicates), range(problem.rows), torch.float64)
    shapes = [(64, hidden), (hidden,), (hidden, hidden), (hidden,)][: 2 * layers]
    sizes = [int(np.prod(shape)) for shape in shapes]
    rows = []
    for r in range(replicates):
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        maps = [part.reshape(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
        below, x, log_q = problem.data, [], torch.zeros(2, problem.rows, dtype=torch.float64)
        for layer in range(layers):
            logits = below @ maps[2 * layer] + maps[2 * layer + 1]
            uniform = u[:, r, :, layer * hidden : (layer + 1) * hidden]
            below = (uniform < logits.sigmoid()).double()
            log_q = log_q + torch.distributions.Bernoulli(logits=logits).log_prob(below).sum(-1)
            x.append(below)
        f = problem.f(torch.cat(x, -1), problem.data, model)
        fx = (f - log_q).detach()
        surrogate = ((fx - fx.mean(0)) * log_q).sum() + f.mean(0).sum()
        rows.append(torch.cat(torch.autograd.grad(surrogate, (theta, model))))
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [1, 2])
def test_rloo_is_plain_autograd_of_its_surrogate(layers: int) -> None:
    """The gradient is pulled back through the encoders and comes with the model's own, in that order."""
    problem = sbn(layers=layers, hidden=4, data=6, batch=0)
    found = gradients(prepare(rloo(2), problem, 3), range(8))
    torch.testing.assert_close(found, plainly(problem, 3, 8), rtol=1e-9, atol=1e-9)


def agreement(
    problem: Problem, estimator: Estimator, truth: torch.Tensor, n: int, se: float = 0.0
) -> tuple[float, float]:
    """z along the truth, and the squared distance from it in units of what its noise and the truth's `se` lead to expect."""
    trial = prepare(estimator, problem, 11)
    g = torch.cat([gradients(trial, range(start, start + 64)) for start in range(0, n, 64)])
    along = g @ (truth / truth.norm())
    z = float((along.mean() - truth.norm()) / along.std()) * n**0.5
    return z, float((g.mean(0) - truth).square().sum() / (g.var(0).sum() / n + se**2))


@pytest.mark.parametrize(
    ("layers", "point", "estimator"),
    [
        (1, "init", rloo(4)),
        (1, "mid", disarm()),
        (1, "converged", rloo(4)),
        (2, "mid", rloo(2)),
    ],
)
def test_estimators_agree_with_the_sums_at_the_stored_points(layers: int, point: str, estimator: Estimator) -> None:
    problem = sbn(layers=layers).at(point)
    truth = true_gradient(problem)
    assert truth is not None
    z, ratio = agreement(problem, estimator, truth.gradient, 512)
    assert abs(z) < 4.5
    assert 0.4 < ratio < 2
    if point == "init":
        assert abs(agreement(problem, estimator, 1.2 * truth.gradient, 512)[0]) > 4.5  # a wrong truth is seen


@pytest.mark.parametrize(("point", "estimator"), [("init", rloo(2)), ("mid", disarm()), ("converged", rloo(2))])
def test_another_estimator_agrees_with_the_stored_references(point: str, estimator: Estimator) -> None:
    problem = sbn(hidden=32).at(point)
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "reference"
    assert read_references("sbn")[fingerprint(problem)]["estimator"].split("[")[0] != estimator.name
    z, ratio = agreement(problem, estimator, truth.gradient, 512, float(truth.se.norm()))
    assert abs(z) < 4.5
    assert 0.4 < ratio < 2


def test_drawn_rows_are_scaled_to_all_of_them() -> None:
    whole, drawn = sbn(hidden=4, data=20, batch=0), sbn(hidden=4, data=20, batch=5)
    truth = true_gradient(whole)
    assert truth is not None
    z, ratio = agreement(drawn, rloo(4), truth.gradient, 1024)
    assert abs(z) < 4.5
    assert 0.4 < ratio < 2


def test_more_bits_than_can_be_summed_have_no_exact_gradient() -> None:
    assert sbn(hidden=16).exact is not None
    assert sbn(hidden=17).exact is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": 3}, r"sbn\[layers=3\]: layers is 1 or 2"),
        ({"hidden": 0}, r"sbn\[hidden=0\]: hidden must be at least 1"),
        ({"data": 2000}, r"sbn\[data=2000\]: data is the number of digits, 1 to 1797"),
        ({"data": 10}, r"sbn\[batch=20\]: batch is 0 \(all\) or a number of rows up to data=10"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sbn(**settings)
