"""The M2 model against plain Python, plain autograd and another quadrature, and what a known label means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, distributions, nn

from bench.conformance import check, failures
from bench.evaluate import gradients, initial_state, prepare
from estimators.base import Estimator, Noise, claim_of
from estimators.exact import exact
from estimators.gumbel_softmax import gumbel_softmax
from estimators.noise import INNER_INDEX, MEASURE, addressed
from estimators.rebar import rebar
from estimators.score_function import rloo
from estimators.unordered_set import unordered_set
from problems.base import Problem
from problems.semi_supervised import semi_supervised
from problems.truth import Truth, gauss_hermite, true_gradient


def truth_of(problem: Problem) -> Truth:
    truth = true_gradient(problem)
    assert truth is not None
    return truth


class Networks(nn.Module):
    """The three networks as anyone would write them, holding the weights of a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        hidden, latent = problem.settings["hidden"], problem.settings["latent"]
        sizes = [(64, 10), (74, 2 * latent), (10 + latent, 64)]
        self.classify, self.infer, self.decode = (
            nn.Sequential(nn.Linear(i, hidden), nn.Tanh(), nn.Linear(hidden, o)).double() for i, o in sizes
        )
        assert problem.model is not None
        nn.utils.vector_to_parameters(torch.cat([problem.theta, problem.model]), self.parameters())

    def loss(self, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        """log p(x, y, z) - log q(z | x, y) at the reparameterised z, by torch.distributions."""
        mean, log_scale = self.infer(torch.cat([x, y], -1)).chunk(2, -1)
        q = distributions.Normal(mean, log_scale.exp())
        z = mean + log_scale.exp() * eps
        pixels = distributions.Bernoulli(logits=self.decode(torch.cat([y, z], -1)))
        prior = distributions.Normal(torch.zeros_like(z), 1.0)
        return pixels.log_prob(x).sum(-1) + (prior.log_prob(z) - q.log_prob(z)).sum(-1) - math.log(10)

    def gradient(self, L: Tensor) -> Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(L, list(self.parameters()))])


def objective(net: Networks, problem: Problem, eps: Tensor, weight: Tensor) -> Tensor:
    """J of equation 9, as the paper writes it: rows with a label and rows without, then the classifier's own term."""
    assert problem.data is not None
    N, labelled = problem.rows, problem.settings["labelled"]
    x, y = problem.data.split([64, 10], -1)
    every = torch.eye(10, dtype=torch.float64)

    def bound(x: Tensor, y: Tensor) -> Tensor:
        return weight @ net.loss(x.expand(len(eps), -1), y.expand(len(eps), -1), eps)

    log_q = net.classify(x).log_softmax(-1)
    known = sum(bound(x[i], y[i]) for i in range(labelled))
    unknown = sum(
        log_q[i, c].exp() * (bound(x[i], every[c]) - log_q[i, c]) for i in range(labelled, N) for c in range(10)
    )
    taught = problem.settings["alpha"] * N * (y * log_q)[:labelled].sum() / labelled
    return torch.as_tensor(known + unknown + taught)


@pytest.mark.parametrize(("latent", "nodes"), [(1, 60), (2, 40)])
def test_truth_is_that_of_the_paper_s_objective(latent: int, nodes: int) -> None:
    """By a Gauss-Hermite rule, where the problem's own is a trapezoidal one, through torch's modules."""
    problem = semi_supervised(latent, hidden=3, data=4, batch=2, labelled=2, alpha=0.7)
    net = Networks(problem)
    wanted = net.gradient(objective(net, problem, *gauss_hermite(latent, nodes)))
    truth = truth_of(problem)
    assert truth.tier == "quadrature"
    torch.testing.assert_close(truth.gradient, wanted, rtol=1e-5, atol=1e-6)


def test_truth_is_the_derivative_of_the_objective(differences: Callable[..., Tensor]) -> None:
    """Central differences in each tenth weight."""
    problem = semi_supervised(1, hidden=1, data=3, batch=0, labelled=1)
    assert problem.model is not None
    start = torch.cat([problem.theta, problem.model])
    chosen = list(range(0, len(start), 10))
    rule = gauss_hermite(1, 40)

    def L(values: Sequence[float]) -> float:
        weights = start.clone()
        weights[chosen] = torch.tensor(values, dtype=torch.float64)
        theta, model = weights.split([len(problem.theta), len(start) - len(problem.theta)])
        moved = replace(problem, theta=theta, model=model)
        with torch.no_grad():
            return float(objective(Networks(moved), moved, *rule))

    wanted = differences(L, start[chosen].tolist())
    torch.testing.assert_close(truth_of(problem).gradient[chosen], wanted, rtol=1e-5, atol=1e-6)


def test_f_is_what_plain_modules_give() -> None:
    problem = semi_supervised(hidden=4, data=5, batch=0, labelled=2)
    assert problem.data is not None
    generator = torch.Generator().manual_seed(0)
    y = torch.eye(10, dtype=torch.float64)[torch.randint(10, (3, 6, 5), generator=generator)]
    eps = torch.randn(6, 5, 2, generator=generator, dtype=torch.float64)
    x = problem.data[:, :64].expand(3, 6, 5, 64)
    found = problem.value(y[..., None, :], noise=[eps])
    assert found.shape == (3, 6, 5)
    torch.testing.assert_close(found, Networks(problem).loss(x, y, eps.expand(3, 6, 5, 2)), rtol=1e-12, atol=1e-12)


def test_a_known_label_is_drawn_and_costs_no_noise() -> None:
    """With every label known, all that is left of an estimator is the noise of z: theta's gradient is the taught one."""
    problem = semi_supervised(hidden=4, data=6, batch=0, labelled=6)
    assert problem.data is not None
    q = problem.bind(problem.site_parameters(problem.theta))
    assert torch.equal(q.sample(torch.zeros(10, 6, 1, 10))[0, :, 0], problem.data[:, 64:])
    assert float(q.log_prob(problem.data[:, None, 64:]).abs().max()) < 1e-20
    g = gradients(prepare(rloo(2), problem), range(16))
    net = Networks(problem)
    x, y = problem.data.split([64, 10], -1)
    taught = 0.1 * (y * net.classify(x).log_softmax(-1)).sum()
    wanted = torch.autograd.grad(taught, list(net.classify.parameters()))
    torch.testing.assert_close(
        g[:, : len(problem.theta)], torch.cat([w.reshape(-1) for w in wanted]).expand(16, -1), rtol=1e-10, atol=1e-12
    )


def test_rloo_is_plain_autograd_of_its_surrogate() -> None:
    """Every network's gradient in one, at the z of the same noise."""
    problem = semi_supervised(hidden=4, data=5, batch=0, labelled=2)
    assert problem.data is not None
    net, trial = Networks(problem), prepare(rloo(2), problem, 3)
    x, y = problem.data.split([64, 10], -1)
    address = (trial.key, MEASURE)
    where = (range(8), range(problem.rows), torch.float64)
    gumbel = addressed(Noise("gumbel", (2,), (1, 10)), *address, 0, *where)[..., 0, :]
    eps = addressed(Noise("normal", (), (2,)), *address, INNER_INDEX, *where)
    found = gradients(trial, range(8))
    for r in range(8):
        logits = net.classify(x)
        drawn = torch.where(y.sum(-1) > 0, y.argmax(-1), (logits + gumbel[:, r]).argmax(-1))
        log_q = distributions.Categorical(logits=logits).log_prob(drawn) * (y.sum(-1) == 0)
        f = net.loss(x.expand(2, -1, -1), nn.functional.one_hot(drawn, 10).double(), eps[r].expand(2, -1, -1))
        fx = (f - log_q).detach()
        surrogate = ((fx - fx.mean(0)) * log_q).sum() + f.mean(0).sum()
        taught = 0.1 * 5 / 2 * (y * logits.log_softmax(-1)).sum()
        torch.testing.assert_close(found[r], net.gradient(surrogate + taught), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def midway() -> tuple[Problem, Tensor]:
    """The problem at `mid`, all its data taken, and the truth there."""
    problem = replace(semi_supervised().at("mid"), batch=0)
    return problem, truth_of(problem).gradient


@pytest.mark.parametrize("estimator", [rloo(4), unordered_set(), exact()])
def test_estimators_agree_with_the_truth_midway(estimator: Estimator, midway: tuple[Problem, Tensor]) -> None:
    """|z| < 4.5 along the truth, an error rate of 7e-6; a truth a quarter too large is seen."""
    problem, truth = midway
    assert claim_of(estimator, problem) == "unbiased"
    along = gradients(prepare(estimator, problem, 5), range(256)) @ (truth / truth.norm())
    se = float(along.std()) / 256**0.5
    assert abs(float(along.mean() - truth.norm())) < 4.5 * se
    assert abs(float(along.mean() - 1.25 * truth.norm())) > 4.5 * se


def test_every_check_passes_where_it_is_small() -> None:
    problem = semi_supervised(1, hidden=2, data=3, batch=2, labelled=1)
    for estimator in (rloo(2), exact(), unordered_set()):
        found = check(estimator, [problem], replicates=4096)
        assert found
        assert failures(found) == []


@pytest.mark.parametrize("estimator", [rloo(2), rebar(), gumbel_softmax(), exact()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_classifier_that_is_sure_gives_finite_gradients(estimator: Estimator, dtype: str) -> None:
    start = semi_supervised(hidden=4, data=10, batch=0, labelled=5)
    problem = replace(start, theta=100 * start.theta)
    trial = prepare(estimator, problem, dtype=dtype)
    assert bool(gradients(trial, range(64), initial_state(trial)).isfinite().all())


def test_more_latents_than_a_quadrature_takes_have_no_exact_gradient() -> None:
    assert semi_supervised(latent=2).exact is not None
    assert semi_supervised(latent=3).exact is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"latent": 0}, r"semi_supervised\[latent=0\]: latent must be at least 1"),
        ({"alpha": -1}, r"semi_supervised\[alpha=-1\]: alpha must be at least 0, and finite"),
        ({"alpha": math.inf}, r"semi_supervised\[alpha=inf\]: alpha must be at least 0, and finite"),
        ({"labelled": 0}, r"semi_supervised\[labelled=0\]: labelled is a number of rows, 1 to data=50"),
        ({"labelled": 51}, r"semi_supervised\[labelled=51\]: labelled is a number of rows, 1 to data=50"),
        ({"data": 2000}, r"semi_supervised\[data=2000\]: data is the number of digits, 1 to 1797"),
        ({"batch": 60}, r"semi_supervised\[batch=60\]: batch is 0 \(all\) or a number of rows up to data=50"),
    ],
)
def test_settings_it_cannot_take(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        semi_supervised(**settings)
