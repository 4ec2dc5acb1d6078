"""Twenty Gaussians on a line: the network, the densities and every bound in plain Python; who fits one datum without a network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators.base import mismatch, size_of
from estimators.disarm_categorical import disarm_categorical
from estimators.importance_weighted import iwae_score, vimco
from estimators.indecater import indecater
from estimators.noise import MEASURE, addressed
from estimators.peers.pyro_elbo import pyro_renyi_elbo, pyro_reweighted_wake_sleep
from estimators.score_function import rloo
from problems.families.categorical import Categorical
from problems.gmm_inference import draws, gmm_inference, weights
from problems.truth import terms, true_gradient

C, H, N = 4, 2, 3
FIXED = [(c + 5) / sum(i + 5 for i in range(C)) for c in range(C)]


def softmax(values: list[float]) -> list[float]:
    most = max(values)
    total = sum(math.exp(v - most) for v in values)
    return [math.exp(v - most) / total for v in values]


def network(theta: list[float], x: float) -> list[float]:
    """q(c | x): 2 tanh units, which read x / 15 - 1, and 4 logits; weights before biases, row by row."""
    W, b, V, a = theta[:H], theta[H : 2 * H], theta[2 * H : 2 * H + C * H], theta[2 * H + C * H :]
    h = [math.tanh(W[j] * (x / 15 - 1) + b[j]) for j in range(H)]
    return softmax([a[c] + sum(V[c * H + j] * h[j] for j in range(H)) for c in range(C)])


def log_joint(c: int, x: float, p: list[float]) -> float:
    return math.log(p[c]) - (x - 10 * c) ** 2 / 50 - math.log(5 * math.sqrt(2 * math.pi))


def expectation(K: int, of_draw: Callable[[list[float]], float]) -> Callable[..., float]:
    def L(log_p: list[float], q: list[float]) -> float:
        log_w = [v - math.log(p) for v, p in zip(log_p, q, strict=True)]
        each = itertools.product(range(len(q)), repeat=K)
        return sum(math.prod(q[c] for c in draw) * of_draw([log_w[c] for c in draw]) for draw in each)

    return L


def log_mean(log_w: list[float]) -> float:
    return math.log(sum(map(math.exp, log_w)) / len(log_w))


def of_order_two(log_w: list[float]) -> float:
    return -math.log(sum(math.exp(-v) for v in log_w) / len(log_w))


def log_marginal(log_p: list[float], q: list[float]) -> float:
    return math.log(sum(map(math.exp, log_p)))


def thermodynamic(log_p: list[float], q: list[float]) -> float:
    betas = [0.0, *(10 ** (-2 + j / 2) for j in range(5))]
    total = 0.0
    for low, high in itertools.pairwise(betas):
        mass = softmax([(1 - low) * math.log(a) + low * v for a, v in zip(q, log_p, strict=True)])
        total += (high - low) * sum(m * (v - math.log(a)) for m, v, a in zip(mass, log_p, q, strict=True))
    return total


def inclusive_kl(log_p: list[float], q: list[float]) -> float:
    return sum(m * math.log(a) for m, a in zip(softmax(log_p), q, strict=True))


BOUNDS: list[Any] = [
    pytest.param({}, expectation(1, log_mean), id="elbo"),
    pytest.param({"samples": 3}, expectation(3, log_mean), id="of three draws"),
    pytest.param({"samples": 2, "objective": "renyi", "alpha": 2.0}, expectation(2, of_order_two), id="renyi"),
    pytest.param({"objective": "log_marginal"}, log_marginal, id="log marginal"),
    pytest.param({"objective": "thermodynamic"}, thermodynamic, id="thermodynamic"),
    pytest.param({"objective": "inclusive_kl"}, inclusive_kl, id="inclusive kl"),
]


@pytest.mark.parametrize(("settings", "of_datum"), BOUNDS)
def test_truth_is_the_plain_sum_over_components(
    settings: dict[str, Any], of_datum: Callable[..., float], differences: Callable[..., Tensor]
) -> None:
    problem = gmm_inference(C, H, N, **settings)
    assert problem.data is not None
    rows, P = problem.data[:, 0].tolist(), len(problem.theta)
    at = problem.theta.tolist() + ([] if problem.model is None else problem.model.tolist())

    def L(numbers: list[float]) -> float:
        p = softmax(numbers[P:]) if problem.model is not None else FIXED
        return sum(of_datum([log_joint(c, x, p) for c in range(C)], network(numbers[:P], x)) for x in rows)

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    torch.testing.assert_close(truth.gradient, differences(L, at), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("settings", "of_datum"), [one for one in BOUNDS if one.id != "log marginal"])
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_so_it_is_of_one_datum_with_free_logits(
    settings: dict[str, Any], of_datum: Callable[..., float], point: str, differences: Callable[..., Tensor]
) -> None:
    problem = gmm_inference(C, amortised=False, **settings).at(point)
    x = float(draws(C, 1)[0])
    log_p = [log_joint(c, x, FIXED) for c in range(C)]
    share = {"init": 1.0, "mid": 0.5, "converged": 0.1}[point]
    mixed = [math.log((1 - share) * v + share / C) for v in softmax(log_p)]
    torch.testing.assert_close(problem.theta, torch.tensor([mixed], dtype=torch.float64), rtol=1e-12, atol=1e-12)
    truth = true_gradient(problem)
    assert truth is not None
    wanted = differences(lambda theta: of_datum(log_p, softmax(theta)), mixed)
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-7)


def test_f_is_the_density_of_the_means_mixture_off_the_support() -> None:
    """Of 20 components: N(x; 10 E c, 5^2) and c.log p, by torch.distributions."""
    problem = gmm_inference()
    assert problem.data is not None
    assert problem.model is not None
    c = torch.rand(5, 7, 16, 1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    mean = 10 * (c.squeeze(-2) * torch.arange(20)).sum(-1)
    density = torch.distributions.Normal(mean, 5.0).log_prob(problem.data[:, 0])
    wanted = density + (c.squeeze(-2) * problem.model.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(problem.value(c), wanted, rtol=1e-12, atol=0)


def test_four_draws_are_still_summed() -> None:
    assert terms(gmm_inference(samples=4)) == 160_000
    assert terms(gmm_inference(samples=5)) is None


def test_a_bound_is_taken_at_the_points_of_the_elbo_and_the_posterior_too() -> None:
    elbo = gmm_inference()
    assert list(elbo.points) == ["init", "mid", "converged"]
    for other in (gmm_inference(samples=3), gmm_inference(objective="inclusive_kl")):
        assert list(other.points) == list(elbo.points)
        assert torch.equal(other.points["converged"].theta, elbo.points["converged"].theta)


def test_what_is_handed_a_plain_f_fits_one_datum() -> None:
    """Bounds of other libraries, which want neither encoder, data nor model."""
    bound, renyi = (gmm_inference(amortised=False, samples=3, objective=name) for name in ("elbo", "renyi"))
    posterior = gmm_inference(amortised=False, objective="inclusive_kl")
    assert [mismatch(pyro_renyi_elbo(), p) for p in (bound, renyi)] == [None, None]
    assert mismatch(pyro_reweighted_wake_sleep(), posterior) is None


@pytest.mark.parametrize("make", [rloo, disarm_categorical, indecater, vimco, iwae_score])
def test_small_ones_pass_the_suite(make: Callable[[], Any]) -> None:
    """Scores, antithetic pairs, the one site summed out; a bound's score, and one with what it leaves out as baseline."""
    problems = [gmm_inference(C, H, N), gmm_inference(C, H, N, samples=3), gmm_inference(C, amortised=False, samples=3)]
    found = check(make(), problems, level=1e-4)
    assert failures(found) == []
    assert any(f.p == f.p for f in found)


def test_rloo_is_plain_autograd_of_its_surrogate() -> None:
    """Through a torch network of the same weights, with the model's own gradient after it, on the same noise."""
    problem = gmm_inference()
    assert problem.model is not None
    assert problem.data is not None
    trial = prepare(rloo(2), problem, 3)
    [noise] = Categorical.noise(size_of(problem))
    u = addressed(noise._replace(front=(2,)), trial.key, MEASURE, 0, range(4), range(16), torch.float64)
    rows = []
    for r in range(4):
        net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 20)).double()
        torch.nn.utils.vector_to_parameters(problem.theta, net.parameters())
        model = problem.model.clone().requires_grad_()
        logits = net(problem.data / 95 - 1)[:, None]
        c = problem.family(logits.detach()).sample(u[:, r])
        log_q = torch.distributions.OneHotCategorical(logits=logits).log_prob(c).sum(-1)
        f = problem.f(c, problem.data, model)
        fx = (f - log_q).detach()
        surrogate = ((fx - fx.mean(0)) * log_q).sum() + f.mean(0).sum()
        grads = torch.autograd.grad(surrogate, [*net.parameters(), model])
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    torch.testing.assert_close(gradients(trial, range(4)), torch.stack(rows), rtol=1e-9, atol=1e-9)


def test_data_come_from_the_stated_mixture() -> None:
    """Of 4,000: shares in proportion to c + 5, residuals N(0, 5^2), within 5 standard errors."""
    x, component = draws(20, 4000)
    p = torch.from_numpy(weights(20))
    torch.testing.assert_close(p[19] / p[0], torch.tensor(24 / 5, dtype=torch.float64))
    counts = torch.bincount(component, minlength=20)
    assert float(((counts - 4000 * p) ** 2 / (4000 * p)).sum()) < 19 + 5 * math.sqrt(2 * 19)
    assert torch.equal(draws(20, 7)[0], x[:7])
    residual = x[:, 0] - 10 * component
    assert abs(float(residual.mean())) < 5 * 5 / math.sqrt(4000)
    assert abs(float(residual.square().mean()) - 25) < 5 * 25 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("amortised", [True, False])
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_float32_gives_numbers_and_stays_float32(amortised: bool, point: str) -> None:
    problem = gmm_inference(amortised=amortised).at(point)
    g = gradients(prepare(rloo(4), problem, 0, point, "float32"), range(256))
    assert g.dtype == torch.float32
    assert g.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"categories": 1}, r"gmm_inference\[categories=1\]: categories must be at least 2"),
        ({"hidden": 0}, r"gmm_inference\[hidden=0\]: hidden must be at least 1"),
        ({"data": 0}, r"gmm_inference\[data=0\]: data must be at least 1"),
        ({"samples": 0}, r"gmm_inference\[samples=0\]: samples must be at least 1"),
        ({"objective": "renyi", "alpha": math.nan}, r"gmm_inference\[alpha=nan\]: alpha must be finite"),
        ({"objective": "kl"}, r"gmm_inference\[objective=kl\]: objective is elbo, renyi, .* or inclusive_kl"),
        (
            {"amortised": False, "objective": "log_marginal"},
            r"gmm_inference\[amortised=False,objective=log_marginal\]: q has no part in log p\(x\), .* the gradient is nil",
        ),
    ],
)
def test_settings_it_cannot_take(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        gmm_inference(**settings)
