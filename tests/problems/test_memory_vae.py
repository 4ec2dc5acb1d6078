"""The autoencoder with a memory against plain modules, plain autograd and another quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

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
from problems.belief_network import digits
from problems.memory_vae import memory_vae
from problems.truth import Truth, gauss_hermite, true_gradient


def truth_of(problem: Problem) -> Truth:
    truth = true_gradient(problem)
    assert truth is not None
    return truth


class Networks(nn.Module):
    """The networks as anyone would write them, holding the weights of a problem, and the memory."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        hidden, latent, side = (problem.settings[name] for name in ("hidden", "latent", "side"))
        pixels = side * side
        sizes = [(pixels, 8), (pixels, 2 * latent), (2 * pixels, 2 * latent), (latent + pixels, pixels)]
        self.query, self.prior, self.posterior, self.decode = (
            nn.Sequential(nn.Linear(i, hidden), nn.Tanh(), nn.Linear(hidden, o)).double() for i, o in sizes
        )
        assert problem.model is not None
        count = sum(p.numel() for p in self.query.parameters())
        query, key = problem.theta.split([count, len(problem.theta) - count])
        nn.utils.vector_to_parameters(torch.cat([query, problem.model]), self.parameters())
        self.key = key.reshape(pixels + 1, 8).clone().requires_grad_()
        self.memory = digits(problem.settings["slots"], side)

    def address(self, x: Tensor) -> Tensor:
        """Logits of the slots."""
        keys = self.memory @ self.key[:-1] + self.key[-1]
        return torch.einsum("bk,mk->bm", self.query(x), keys) / math.sqrt(8)

    def loss(self, x: Tensor, a: Tensor, eps: Tensor) -> Tensor:
        """log p(x, a, z) - log q(z | x, m_a) at the reparameterised z, a the index of a slot, by torch.distributions."""
        m = self.memory[a]
        mean, log_scale = self.prior(m).chunk(2, -1)
        p = distributions.Normal(mean, log_scale.exp())
        mean, log_scale = self.posterior(torch.cat([x, m], -1)).chunk(2, -1)
        q = distributions.Normal(mean, log_scale.exp())
        z = mean + log_scale.exp() * eps
        pixels = distributions.Bernoulli(logits=self.decode(torch.cat([z, m], -1)))
        return pixels.log_prob(x).sum(-1) + (p.log_prob(z) - q.log_prob(z)).sum(-1) - math.log(len(self.memory))

    def gradient(self, L: Tensor) -> Tensor:
        query = list(self.query.parameters())
        rest = [p for net in (self.prior, self.posterior, self.decode) for p in net.parameters()]
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(L, [*query, self.key, *rest])])


def elbo(net: Networks, problem: Problem, eps: Tensor, weight: Tensor) -> Tensor:
    assert problem.data is not None
    x, slots = problem.data, len(net.memory)
    log_q = net.address(x).log_softmax(-1)
    wide = (len(eps), len(x), slots)
    a = torch.arange(slots).expand(wide)
    f = net.loss(x[:, None].expand(*wide, -1), a, eps[:, None, None].expand(*wide, -1))
    return (log_q.exp() * (torch.einsum("g,gbm->bm", weight, f) - log_q)).sum()


@pytest.mark.parametrize(("latent", "nodes"), [(1, 60), (2, 40)])
def test_truth_is_that_of_a_gauss_hermite_rule(latent: int, nodes: int) -> None:
    """Through torch's modules and distributions, where the problem's own rule is a trapezoidal one."""
    problem = memory_vae(3, latent, hidden=3, data=4, batch=2, side=4)
    net = Networks(problem)
    wanted = net.gradient(elbo(net, problem, *gauss_hermite(latent, nodes)))
    truth = truth_of(problem)
    assert truth.tier == "quadrature"
    torch.testing.assert_close(truth.gradient, wanted, rtol=1e-5, atol=1e-5)


def test_truth_is_the_derivative_of_the_elbo(differences: Callable[..., Tensor]) -> None:
    """Central differences in each tenth weight."""
    problem = memory_vae(2, 1, hidden=1, data=2, batch=0, side=4)
    assert problem.model is not None
    start, P = torch.cat([problem.theta, problem.model]), len(problem.theta)
    chosen = list(range(0, len(start), 10))
    rule = gauss_hermite(1, 40)

    def L(values: Sequence[float]) -> float:
        weights = start.clone()
        weights[chosen] = torch.tensor(values, dtype=torch.float64)
        moved = replace(problem, theta=weights[:P], model=weights[P:])
        with torch.no_grad():
            return float(elbo(Networks(moved), moved, *rule))

    wanted = differences(L, start[chosen].tolist())
    torch.testing.assert_close(truth_of(problem).gradient[chosen], wanted, rtol=1e-5, atol=1e-5)


def test_f_is_what_plain_modules_give() -> None:
    problem = memory_vae(4, hidden=4, data=5, batch=0)
    assert problem.data is not None
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(4, (3, 6, 5), generator=generator)
    eps = torch.randn(6, 5, 2, generator=generator, dtype=torch.float64)
    onehot = nn.functional.one_hot(a, 4).double()
    found = problem.value(onehot[..., None, :], noise=[eps])
    wanted = Networks(problem).loss(problem.data.expand(3, 6, 5, 64), a, eps.expand(3, 6, 5, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_memory_and_data_are_other_digits() -> None:
    problem = memory_vae(slots=7, data=9, batch=0)
    assert problem.data is not None
    assert torch.equal(problem.data, digits(16)[7:])
    logits = problem.site_parameters(problem.theta)
    assert logits.shape == (9, 1, 7)
    torch.testing.assert_close(logits[:, 0], Networks(problem).address(problem.data), rtol=1e-12, atol=1e-12)


def test_rloo_is_plain_autograd_of_its_surrogate() -> None:
    """Every network's gradient in one, at the z of the same noise."""
    problem = memory_vae(4, hidden=4, data=5, batch=0)
    assert problem.data is not None
    net, trial, x = Networks(problem), prepare(rloo(2), problem, 3), problem.data
    where = (range(8), range(problem.rows), torch.float64)
    gumbel = addressed(Noise("gumbel", (2,), (1, 4)), trial.key, MEASURE, 0, *where)[..., 0, :]
    eps = addressed(Noise("normal", (), (2,)), trial.key, MEASURE, INNER_INDEX, *where)
    found = gradients(trial, range(8))
    for r in range(8):
        logits = net.address(x)
        a = (logits + gumbel[:, r]).argmax(-1)
        log_q = distributions.Categorical(logits=logits).log_prob(a)
        f = net.loss(x.expand(2, -1, -1), a, eps[r].expand(2, -1, -1))
        fx = (f - log_q).detach()
        surrogate = ((fx - fx.mean(0)) * log_q).sum() + f.mean(0).sum()
        torch.testing.assert_close(found[r], net.gradient(surrogate), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def midway() -> tuple[Problem, Tensor]:
    """The problem at `mid`, all its data taken, and the truth there."""
    problem = replace(memory_vae().at("mid"), batch=0)
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
    problem = memory_vae(3, 1, hidden=2, data=2, batch=1, side=4)
    for estimator in (rloo(2), exact(), unordered_set()):
        found = check(estimator, [problem], replicates=4096)
        assert found
        assert failures(found) == []


@pytest.mark.parametrize("estimator", [rloo(2), rebar(), gumbel_softmax(), exact()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_address_that_is_sure_gives_finite_gradients(estimator: Estimator, dtype: str) -> None:
    start = memory_vae(4, hidden=4, data=10, batch=0, side=4)
    problem = replace(start, theta=10 * start.theta)
    assert float(problem.site_parameters(problem.theta).abs().max()) > 30
    trial = prepare(estimator, problem, dtype=dtype)
    assert bool(gradients(trial, range(64), initial_state(trial)).isfinite().all())


def test_more_latents_than_a_quadrature_takes_have_no_exact_gradient() -> None:
    assert memory_vae(latent=2).exact is not None
    assert memory_vae(latent=3).exact is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"slots": 1}, r"memory_vae\[slots=1\]: slots must be at least 2"),
        ({"latent": 0}, r"memory_vae\[latent=0\]: latent must be at least 1"),
        ({"side": 5}, r"memory_vae\[side=5\]: side is 4 or 8"),
        ({"data": 1790}, r"memory_vae\[data=1790,slots=10\]: there are 1797 digits for both"),
        ({"batch": 60}, r"memory_vae\[batch=60\]: batch is 0 \(all\) or a number of rows up to data=50"),
    ],
)
def test_settings_it_cannot_take(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        memory_vae(**settings)
