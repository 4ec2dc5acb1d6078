"""Every family against torch.distributions, autograd and its own distribution function; Chain against its text written out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import Tensor, distributions

from problems.families.base import Family, Noise, Size, across
from problems.families.bernoulli import Bernoulli
from problems.families.beta import Beta, slope
from problems.families.binomial import Binomial
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.families.dirichlet import Dirichlet
from problems.families.gamma import Gamma
from problems.families.geometric import Geometric
from problems.families.normal import Normal
from problems.families.poisson import Poisson
from problems.families.subset import Subset
from problems.families.von_mises import VonMises
from problems.families.weibull import Weibull

K, R, B = 3, 5, 2


class ListedSubsets(distributions.Distribution):
    """Subsets of k sites by summing over them all: the law that Subset(k) must have."""

    def __init__(self, theta: Tensor, k: int) -> None:
        D = theta.shape[-1]
        self.theta = theta
        self.every = torch.tensor(
            [[float(d in s) for d in range(D)] for s in itertools.combinations(range(D), k)]
        ).double()
        self.log_q = (theta[..., None, :] * self.every).sum(-1).log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        return self.log_q.exp() @ self.every

    def log_prob(self, x: Tensor) -> Tensor:
        which = (x[..., None, :] == self.every).all(-1)
        return torch.where(which, self.log_q, 0).sum(-1)


class Angles(distributions.Distribution):
    """von Mises variables in double precision, which torch's are not."""

    def __init__(self, mu: Tensor, kappa: Tensor) -> None:
        self.mu, self.kappa = mu, kappa

    def log_prob(self, x: Tensor) -> Tensor:
        log_I = torch.special.i0e(self.kappa).log() + self.kappa
        return (self.kappa * (x - self.mu).cos() - log_I - np.log(2 * np.pi)).sum(-1)


@dataclass(frozen=True)
class Case:
    family: type[Family]
    theta: Tensor
    law: Callable[[Tensor], Any]
    noise: str = "uniform"
    site: Callable[..., Any] | None = None  # the law of a site by scipy.stats, from its parameters


def double(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


CASES = {
    "bernoulli": Case(
        Bernoulli,
        double([0.3, -1.2, 2.0], [-0.7, 0.1, 0.9]),
        lambda t: distributions.Independent(distributions.Bernoulli(logits=t, validate_args=False), 1),
        site=lambda t: scipy.stats.bernoulli(scipy.special.expit(t)),
    ),
    "categorical": Case(
        Categorical,
        double([[0.3, -1.2, 0.5], [1.0, 0.2, -0.4]], [[-0.3, 0.6, 0.1], [0.0, 1.5, -1.0]]),
        lambda t: distributions.Independent(distributions.OneHotCategorical(logits=t, validate_args=False), 1),
        noise="gumbel",
    ),
    "normal": Case(
        Normal,
        double([[0.4, -0.8, 2.0], [-0.5, 0.3, 0.0]], [[1.0, 0.0, -1.0], [0.2, -1.0, 0.6]]),
        lambda t: distributions.Independent(distributions.Normal(t[..., 0, :], t[..., 1, :].exp()), 1),
        noise="normal",
        site=lambda mu, s: scipy.stats.norm(mu, np.exp(s)),
    ),
    "gamma": Case(
        Gamma,
        double([[0.4, -1.2, 2.0], [-0.5, 0.3, 0.0]], [[1.0, 0.0, -0.5], [0.2, -1.0, 0.6]]),
        lambda t: distributions.Independent(distributions.Gamma(t[..., 0, :].exp(), t[..., 1, :].exp()), 1),
        site=lambda a, b: scipy.stats.gamma(np.exp(a), scale=np.exp(-b)),
    ),
    "beta": Case(
        Beta,
        double([[0.4, -0.4, 2.0], [-0.5, 0.3, 0.0]], [[1.0, 0.0, -0.5], [0.2, -0.6, 0.6]]),
        lambda t: distributions.Independent(distributions.Beta(t[..., 0, :].exp(), t[..., 1, :].exp()), 1),
        site=lambda a, b: scipy.stats.beta(np.exp(a), np.exp(b)),
    ),
    "dirichlet": Case(
        Dirichlet,
        double([[0.4, -0.4, 2.0], [-0.5, 0.3, 0.0]], [[1.0, 0.0, -0.5], [0.2, -0.6, 0.6]]),
        lambda t: distributions.Independent(distributions.Dirichlet(t.exp()), 1),
    ),
    "von_mises": Case(
        VonMises,
        double([[0.4, -0.8, 3.0], [-0.5, 0.3, 2.0]], [[1.0, 0.0, -2.5], [0.2, -1.0, 0.6]]),
        lambda t: Angles(t[..., 0, :], t[..., 1, :].exp()),
        site=lambda mu, k: scipy.stats.vonmises(np.exp(k), loc=mu),
    ),
    "weibull": Case(
        Weibull(1.5),
        double([0.4, -0.8, 2.0], [1.0, 0.0, -1.0]),
        lambda t: distributions.Independent(distributions.Weibull((-t / 1.5).exp(), t.new_tensor(1.5)), 1),
        noise="exponential",
        site=lambda t: scipy.stats.weibull_min(1.5, scale=np.exp(-t / 1.5)),
    ),
    "poisson": Case(
        Poisson,
        double([0.4, -0.8, 2.0], [1.0, 0.0, -1.0]),
        lambda t: distributions.Independent(distributions.Poisson(t.exp(), validate_args=False), 1),
        site=lambda t: scipy.stats.poisson(np.exp(t)),
    ),
    "geometric": Case(
        Geometric,
        double([0.4, -0.8, 2.0], [1.0, 0.0, -1.0]),
        lambda t: distributions.Independent(distributions.Geometric(logits=t, validate_args=False), 1),
        site=lambda t: scipy.stats.geom(scipy.special.expit(t), loc=-1),
    ),
    "binomial": Case(
        Binomial(4),
        double([0.4, -0.8, 2.0], [1.0, 0.0, -1.0]),
        lambda t: distributions.Independent(distributions.Binomial(4, logits=t, validate_args=False), 1),
        site=lambda t: scipy.stats.binom(4, scipy.special.expit(t)),
    ),
    "subset": Case(Subset(2), double([0.4, -0.8, 2.0, 0.1], [1.0, 0.0, -1.0, 0.3]), lambda t: ListedSubsets(t, 2)),
}
SITES = [pytest.param(case, id=name) for name, case in CASES.items()]


def noise_of(kind: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    u = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(min=1e-12)
    return {"uniform": u, "exponential": -u.log(), "gumbel": -(-u.log()).log(), "normal": normal(shape, seed)}[kind]


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(case: Case, seed: int = 0) -> tuple[Family, Tensor]:
    """q with data, and points [K, R, B, *event]."""
    q = case.family(case.theta)
    return q, q.sample(noise_of(case.noise, (K, R, B, *case.family.event(case.theta[0])), seed))


def size_of(case: Case) -> Size:
    theta = case.theta[0]
    return Size(case.family, tuple(theta.shape), case.family.event(theta), 1, case.family.states(theta))


@pytest.mark.parametrize("case", SITES)
def test_log_prob_is_that_of_torch(case: Case) -> None:
    q, x = drawn(case)
    assert q.log_prob(x).shape == (K, R, B)
    torch.testing.assert_close(q.log_prob(x), case.law(case.theta).log_prob(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", SITES)
def test_score_is_the_derivative_of_the_weighted_log_prob(case: Case) -> None:
    q, x = drawn(case)
    weight = normal((K, R, B), 1)
    theta = case.theta.expand(R, *case.theta.shape).clone().requires_grad_()
    (wanted,) = torch.autograd.grad((weight * case.law(theta).log_prob(x)).sum(), theta)
    torch.testing.assert_close(q.score(x, weight), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", SITES)
def test_local_is_the_score_of_each_site(case: Case) -> None:
    q, x = drawn(case)
    theta = case.theta.expand(K, R, *case.theta.shape).clone().requires_grad_()
    (wanted,) = torch.autograd.grad(case.law(theta).log_prob(x).sum(), theta)
    torch.testing.assert_close(q.local(x).expand_as(wanted), wanted, rtol=1e-10, atol=1e-12)
    assert torch.equal(q.params(x), case.theta)


def test_angles_have_no_mean() -> None:
    q, _ = drawn(CASES["von_mises"])
    with pytest.raises(NotImplementedError, match=r"^von_mises variables offer no mean$"):
        _ = q.mean


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if name != "von_mises"])
def test_mean_and_its_derivative(case: Case) -> None:
    q = case.family(case.theta)
    theta = case.theta.clone().requires_grad_()
    mean = case.law(theta).mean
    torch.testing.assert_close(q.mean, mean.detach(), rtol=1e-12, atol=1e-12)
    g = normal(tuple(mean.shape), 2)
    (wanted,) = torch.autograd.grad(mean, theta, g)
    torch.testing.assert_close(q.mean_pull(g), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", SITES)
def test_at_takes_parameters_of_each_replicate(case: Case) -> None:
    """at() with a replicate axis is the same, replicate by replicate, as binding each one's parameters."""
    q, x = drawn(case)
    theirs = case.theta + 0.3 * normal((R, *case.theta.shape), 3)
    noise = noise_of(case.noise, tuple(x.shape), 4)
    moved = q.at(theirs)
    assert type(moved) is type(q)
    assert moved.local(x).shape == (K, R, *case.theta.shape)
    for r in range(R):
        one = case.family(theirs[r])
        assert torch.equal(moved.sample(noise)[:, r], one.sample(noise[:, r]))
        torch.testing.assert_close(moved.log_prob(x)[:, r], one.log_prob(x[:, r]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", SITES)
def test_single_precision_stays_single(case: Case) -> None:
    q, x = drawn(case)
    single = case.family(case.theta.float())
    y = single.sample(noise_of(case.noise, tuple(x.shape)).float())
    means = (single.mean, single.mean_pull(single.mean)) if case.family is not VonMises else ()
    for found in (y, single.log_prob(y), single.local(y), *means):
        assert found.dtype == torch.float32
    torch.testing.assert_close(single.log_prob(x.float()), q.log_prob(x).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", SITES)
def test_shapes_that_the_harness_reads(case: Case) -> None:
    size = size_of(case)
    q, x = drawn(case)
    assert size.event[0] == size.D
    assert x.ndim - q.event_axes == 3
    [noise] = case.family.noise(size)
    assert noise == Noise(case.noise, (), size.event)
    if case.family.finite:
        support = case.family(case.theta[0]).support()
        assert support.shape == (size.states, *size.event)
        assert len(torch.unique(support, dim=0)) == size.states
        assert float(case.family(case.theta[0]).log_prob(support).exp().sum()) == pytest.approx(1, abs=1e-13)
    else:
        assert size.states is None
        with pytest.raises(NotImplementedError, match="no finite support"):
            q.support()


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "poisson", "geometric", "binomial", "subset"])
def test_discrete_families_have_no_path(name: str) -> None:
    q, x = drawn(CASES[name])
    with pytest.raises(NotImplementedError, match="pathwise"):
        q.path(x, x)


def test_path_of_a_weibull_is_the_derivative_of_its_sampler() -> None:
    q, x = drawn(CASES["weibull"])
    theta = q.theta.expand(R, *q.theta.shape).clone().requires_grad_()
    g, E = normal(tuple(x.shape), 5), noise_of("exponential", tuple(x.shape))
    (wanted,) = torch.autograd.grad((g * (E / theta.exp()) ** (1 / 1.5)).sum(), theta)
    torch.testing.assert_close(q.path(x, g), wanted, rtol=1e-12, atol=1e-12)


def test_path_of_a_normal_is_the_derivative_of_its_sampler() -> None:
    case = CASES["normal"]
    q, x = drawn(case)
    theta = case.theta.expand(R, *case.theta.shape).clone().requires_grad_()
    mu, sigma = theta[..., 0, :], theta[..., 1, :].exp()
    g = normal(tuple(x.shape), 5)
    (wanted,) = torch.autograd.grad((g * (mu + sigma * noise_of("normal", tuple(x.shape)))).sum(), theta)
    torch.testing.assert_close(q.path(x, g), wanted, rtol=1e-12, atol=1e-12)


def test_path_of_a_gamma_is_the_derivative_of_its_inverse_distribution_function() -> None:
    """Central differences of scipy's inverse at the same uniforms, on a grid of them.

    Each dx/da within 1e-3 (torch approximates it), their weighted mean, which is E df/da for f = x^2, within 5e-5.
    """
    u = ((torch.arange(20000, dtype=torch.float64) + 0.5) / 20000).numpy()
    h = 1e-4
    for a, b in [(0.3, 2.0), (1.0, 0.5), (12.0, 3.0)]:
        theta = np.log([[a], [b]])
        q = Gamma(torch.from_numpy(theta))

        def sample(theta: np.ndarray) -> np.ndarray:
            return np.asarray(scipy.special.gammaincinv(np.exp(theta[0]), u) / np.exp(theta[1]))

        x = torch.from_numpy(sample(theta))[:, None]
        for row, rtol, mean_rtol in ((0, 1e-3, 5e-5), (1, 1e-7, 1e-7)):
            step = np.zeros((2, 1))
            step[row] = h
            wanted = torch.from_numpy((sample(theta + step) - sample(theta - step)) / (2 * h))
            found = q.path(x[None], torch.ones(1, *x.shape).double())[:, row, 0]
            torch.testing.assert_close(found, wanted, rtol=rtol, atol=0)
            assert float((found * x[:, 0]).mean()) == pytest.approx(float((wanted * x[:, 0]).mean()), rel=mean_rtol)


BETAS = [(1.0, 1.0), (0.3, 0.3), (0.1, 4.0), (2.0, 3.0), (10.0, 0.3), (7.0, 7.0), (100.0, 100.0), (1000.0, 500.0)]


@pytest.mark.parametrize(("a", "b"), BETAS)
def test_path_of_a_beta_is_the_derivative_of_its_inverse_distribution_function(a: float, b: float) -> None:
    """Central differences of scipy's inverse at the same uniforms, which are good to 3e-5."""
    u = ((torch.arange(999, dtype=torch.float64) + 0.5) / 999).numpy()
    h, x = 1e-4, torch.from_numpy(scipy.special.betaincinv(a, b, u))[:, None]
    kept = (x > 1e-100) & (x < 1 - 1e-3)  # elsewhere the differences are rounded away
    found = Beta(double([a], [b]).log()).path(x[None], torch.ones(1, *x.shape).double())
    for row in range(2):
        up, down = (
            scipy.special.betaincinv(a * np.exp(e * (row == 0)), b * np.exp(e * (row == 1)), u) for e in (h, -h)
        )
        wanted = torch.from_numpy((up - down) / (2 * h))[:, None]
        torch.testing.assert_close(found[:, row][kept], wanted[kept], rtol=3e-5, atol=1e-12)


@pytest.mark.parametrize(("b", "short"), [(0.5, 0.0), (0.1, 0.012875)])
def test_the_score_of_a_beta_is_short_of_what_rounds_to_one(b: float, short: float) -> None:
    """Its mean over a grid of uniforms, refined towards 1; b E (log eps - log(1 - x))+ by scipy's distribution function."""
    q = Beta(double([b], [b]).log())
    edges = 1 - 0.5 ** torch.linspace(0, 33, 33 * 2000 + 1, dtype=torch.float64)  # as far as uniforms go
    u, width = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
    score = q.local(q.sample(u[:, None]))[:, 1, 0]
    assert float((width * score).sum()) == pytest.approx(short, abs=1e-5)


@pytest.mark.parametrize(("a", "b"), BETAS)
def test_slope_of_a_beta_is_good_to_eight_digits(a: float, b: float) -> None:
    """E dx/da = dE x/da and E 2 x dx/da = dE x^2/da, by the trapezium rule in logit x; x = u^(1/a) where b = 1."""
    y = torch.arange(-70 / min(a, 1), 40, 0.005 if max(a, b) > 50 else 0.02, dtype=torch.float64)
    x = y.sigmoid().clamp(max=1 - 2.0**-53)
    q = torch.exp(a * x.log() + b * (-y).sigmoid().log() - scipy.special.betaln(a, b)) * (y[1] - y[0])
    dx = slope(x, torch.full_like(x, a), torch.full_like(x, b))
    s = a + b
    assert float((q * dx).sum()) == pytest.approx(b / s**2, rel=1e-8)
    d_square = ((2 * a + 1) * s * (s + 1) - (a * a + a) * (2 * s + 1)) / (s * (s + 1)) ** 2
    assert float((q * 2 * x * dx).sum()) == pytest.approx(d_square, rel=1e-8)
    torch.testing.assert_close(slope(x, torch.full_like(x, a), torch.ones_like(x)), -x * x.log() / a, rtol=1e-8, atol=0)


def test_path_of_a_dirichlet_of_two_is_that_of_a_beta_and_stays_on_the_simplex() -> None:
    theta = double([0.4, -0.3], [1.0, 2.0])
    x = noise_of("uniform", (4, 5, 2), 9)
    g = normal((4, 5, 2), 10)
    two = Dirichlet(theta).path(torch.stack([x, 1 - x], -1), torch.stack([g, torch.zeros_like(g)], -1))
    torch.testing.assert_close(two, Beta(theta.T).path(x, g).mT)
    q, x = drawn(CASES["dirichlet"])
    assert float(q.path(x, torch.ones_like(x)).abs().max()) < 1e-12


def test_path_of_a_dirichlet_is_the_mean_of_how_its_gamma_variables_move() -> None:
    """E[(d y_j/d alpha_j) / sum y | x_j] by quadrature over the sum, of which x is independent; torch's slopes are good to 1e-3."""
    alpha, x = double(0.7, 1.5, 3.0), double(0.2, 0.5, 0.3)
    total = float(alpha.sum())
    s = torch.from_numpy(scipy.special.gammaincinv(total, ((torch.arange(4000) + 0.5) / 4000).double().numpy()))[
        :, None
    ]
    moves = (torch._standard_gamma_grad(alpha.expand(4000, 3), x * s) / s).mean(0)
    found = Dirichlet(alpha.log()[None]).path(x.expand(1, 1, 1, 3), double(1.0, 0.0, 0.0).expand(1, 1, 1, 3))[0, 0]
    wanted = alpha * moves * (double(1.0, 0.0, 0.0) - x[0])
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=0)


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 3.0, 12.0, 300.0])
def test_angles_invert_their_distribution_function(kappa: float) -> None:
    """F by scipy's adaptive quadrature, to 1e-13; the path against central differences of the sampler, and on to the ends."""
    u = torch.cat([double(2.0**-33, 1e-6, 0.5, 1 - 1e-6), noise_of("uniform", (20,), 8)])[:, None]
    theta = double([0.0], [np.log(kappa)])
    x = VonMises(theta).sample(u)
    for x_, u_ in zip(x[:, 0].tolist(), u[:, 0].tolist(), strict=True):
        F = scipy.integrate.quad(lambda t: np.exp(kappa * (np.cos(t) - 1)), 0, x_, epsabs=0, epsrel=1e-13)[0]
        assert F / (2 * np.pi * scipy.special.ive(0, kappa)) + 0.5 == pytest.approx(u_, abs=1e-14)
    h, middle = double([0.0], [1e-4]), (u > 1e-4) & (u < 1 - 1e-4)
    wanted = (VonMises(theta + h).sample(u) - VonMises(theta - h).sample(u)) / 2e-4
    found = VonMises(theta).path(x[None, :, :], torch.ones(1, *x.shape).double())
    torch.testing.assert_close(found[:, 1][middle], wanted[middle], rtol=1e-6, atol=1e-8)
    assert (found[:, 0] == 1).all()
    ends = VonMises(theta).path(double([-np.pi], [np.pi])[None], torch.ones(1, 2, 1).double())[:, 1]
    assert bool((ends.abs() < 1e-3).all()) or kappa > 10


def samples(case: Case, theta: Tensor, n: int = 20000) -> Tensor:
    return case.family(theta).sample(noise_of(case.noise, (1, n, *case.family.event(theta)), 7))[0]


def p_values(case: Case, x: Tensor, theta: Tensor) -> list[float]:
    """Kolmogorov-Smirnov where continuous, chi-square of the counts where discrete; one p-value a site."""
    t = theta.numpy()
    if not case.family.factorised:
        p = case.law(theta).log_q.exp().numpy()
        which = (x[:, None] == case.family(theta).support()).all(-1)
        return [float(scipy.stats.chisquare(which.sum(0), len(x) * p).pvalue)]
    if case.family is Dirichlet:
        alpha = np.exp(t)
        rest = alpha.sum(-1, keepdims=True) - alpha
        marginals = [
            scipy.stats.kstest(x[:, d, c], scipy.stats.beta(alpha[d, c], rest[d, c]).cdf).pvalue
            for d, c in np.ndindex(alpha.shape)
        ]
        share = x[:, 0, 0] / (x[:, 0, 0] + x[:, 0, 1])
        return [*marginals, scipy.stats.kstest(share, scipy.stats.beta(alpha[0, 0], alpha[0, 1]).cdf).pvalue]
    if case.family is VonMises:
        x = theta[0] + torch.remainder(x - theta[0] + np.pi, 2 * np.pi) - np.pi
    if case.site is None:
        p = np.exp(t) / np.exp(t).sum(-1, keepdims=True)
        return [scipy.stats.chisquare(x[:, d].sum(0), len(x) * p[d]).pvalue for d in range(len(p))]
    laws = [case.site(*np.atleast_2d(t)[:, d]) for d in range(t.shape[-1])]
    return [p_value(law, x[:, d]) for d, law in enumerate(laws)]


def p_value(law: Any, x: Tensor) -> float:
    if not isinstance(law.dist, scipy.stats.rv_discrete):
        return float(scipy.stats.kstest(x, law.cdf).pvalue)
    most = int(law.isf(1e-3)) if law.support()[1] == np.inf else int(law.support()[1])
    probs = np.append(law.pmf(np.arange(most)), law.sf(most - 1))
    counts = torch.bincount(x.long().clamp(max=most), minlength=most + 1).numpy()
    return float(scipy.stats.chisquare(counts, len(x) * probs).pvalue)


@pytest.mark.parametrize("name", CASES)
def test_samples_follow_the_law(name: str) -> None:
    """20,000 draws a site: every p-value above 1e-4, and one below 1e-6 where a parameter is off by 0.15."""
    case = CASES[name]
    theta = case.theta[0]
    x = samples(case, theta)
    assert min(p_values(case, x, theta)) > 1e-4
    wrong = theta.clone()
    wrong[0, ...] = wrong[0] + 0.15 * torch.linspace(1, 2, theta[0].numel()).reshape(theta[0].shape).double()
    assert min(p_values(case, x, wrong)) < 1e-6


@pytest.mark.parametrize("name", ["gamma", "poisson", "geometric", "binomial"])
def test_inversion_is_that_of_scipy(name: str) -> None:
    u = torch.cat([double(0.5, 2.0**-33, 1 - 2.0**-33), noise_of("uniform", (500,), 8)])[:, None]
    for value in (1e-3, 0.3, 1.0, 30.0, 144.0, 1000.0):
        log = torch.tensor([value], dtype=torch.float64).log()
        if name == "poisson":
            wanted = scipy.stats.poisson.ppf(u.numpy(), value)
            assert np.array_equal(Poisson(log).sample(u).numpy(), wanted)
        elif name == "geometric":
            wanted = scipy.stats.geom.ppf(u.numpy(), value / (1 + value), loc=-1)
            assert np.array_equal(Geometric(log).sample(u).numpy(), wanted)
        elif name == "binomial":
            wanted = scipy.stats.binom.ppf(u.numpy(), 30, value / (1 + value))
            assert np.array_equal(Binomial(30)(log).sample(u).numpy(), wanted)
        else:
            x = Gamma(torch.stack([log, torch.zeros(1, dtype=torch.float64)])).sample(u)
            kept = x > 1e-300
            round_trip = scipy.special.gammainc(value, x.numpy())
            np.testing.assert_allclose(round_trip[kept.numpy()], u.numpy()[kept.numpy()], rtol=1e-9)


def test_a_uniform_that_rounds_to_one_gives_finite_points() -> None:
    one = torch.ones(1, 1)
    assert Gamma(torch.zeros(2, 1)).sample(one).isfinite().all()
    assert 0 < float(1 - Beta(torch.full((2, 1), -2.0)).sample(one)) < 1e-6
    assert float(Beta(torch.full((2, 1), -6.0)).sample(1e-6 * one)) > 0
    corner = Dirichlet(torch.full((1, 3), -4.0)).sample(torch.tensor([[[1e-9, 1e-9, 1.0]]]))
    assert 0 < float(corner.min()) < float(corner.max()) < 1
    assert abs(float(VonMises(torch.zeros(2, 1)).sample(one))) < 3.1416
    assert float(Weibull(1.0)(torch.zeros(1)).sample(0 * one)) == pytest.approx(2.0**-33)
    assert Poisson(torch.full((1,), 5.0)).sample(one).isfinite().all()
    assert Geometric(torch.zeros(1)).sample(one) == 32
    assert Binomial(5)(torch.zeros(1)).sample(one) == 5
    assert Subset(2)(torch.zeros(4)).sample(torch.ones(1, 4)).tolist() == [[0, 0, 1, 1]]


def test_helpers() -> None:
    assert across(torch.ones(2, 3), torch.ones(2, 3, 4, 5)).shape == (2, 3, 1, 1)
    assert Categorical.states(torch.zeros(5, 3)) == 243
    assert Bernoulli.states(torch.zeros(200)) == 2**200
    assert Binomial(2) is Binomial(2)
    assert Weibull(2.0) is Weibull(2.0)
    with pytest.raises(ValueError, match=r"^Weibull\(0\): the shape must be positive$"):
        Weibull(0)
    with pytest.raises(ValueError, match=r"^Binomial\(0\): there must be at least 1 trial$"):
        Binomial(0)
    assert Size(Bernoulli, (4,), (4,), 1, 16).D == 4


# Chain: three bits below and two above, whose logits depend on the first layer and on the data


F = 2


def lower(theta: Tensor, earlier: list[Tensor], data: Tensor) -> Tensor:
    return data @ theta[:6].reshape(F, 3)


def upper(theta: Tensor, earlier: list[Tensor]) -> Tensor:
    return earlier[0] @ theta[6:12].reshape(3, 2) + theta[12:14]


Layered = Chain(Bernoulli, [lower, upper], [3, 2], data=True)
WEIGHTS = normal((14,), 11)
DATA = normal((B, F), 12)


def written_out(theta: Tensor, x: Tensor, data: Tensor) -> Tensor:
    """log q(x) of the two layers, one after the other, by torch.distributions."""
    h, z = x[..., :3], x[..., 3:]
    first = distributions.Bernoulli(logits=data @ theta[:6].reshape(F, 3))
    second = distributions.Bernoulli(logits=h @ theta[6:12].reshape(3, 2) + theta[12:14])
    return first.log_prob(h).sum(-1) + second.log_prob(z).sum(-1)


def test_chain_says_what_it_is() -> None:
    assert Layered.name == "chain of bernoulli"
    assert [layer.tolist() for layer in Layered.layers] == [[0, 1, 2], [3, 4]]
    assert Layered.event(WEIGHTS) == (5,)
    assert Layered.states(WEIGHTS) == 32
    assert Layered.noise(Size(Layered, (14,), (5,), 1, 32)) == [Noise("uniform", (), (5,))]
    assert Layered(WEIGHTS, DATA).support().shape == (32, 5)


def test_chain_log_prob_is_the_product_of_its_layers_and_sums_to_one() -> None:
    q = Layered(WEIGHTS, DATA)
    x = q.support()[:, None].expand(32, B, 5)
    torch.testing.assert_close(q.log_prob(x), written_out(WEIGHTS, x, DATA), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.log_prob(x).exp().sum(0), torch.ones(B, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("own_rows", [False, True])
def test_chain_pull_is_autograd(own_rows: bool) -> None:
    """Scores `[R, P]`, with data that all replicates share and with rows of their own."""
    data = normal((R, B, F), 13) if own_rows else DATA
    q = Layered(WEIGHTS, data)
    x = q.sample(noise_of("uniform", (K, R, B, 5), 14))
    weight = normal((K, R, B), 15)
    found = q.score(x, weight)
    assert found.shape == (R, 14)
    for r in range(R):
        theta = WEIGHTS.clone().requires_grad_()
        L = (weight[:, r] * written_out(theta, x[:, r], data[r] if own_rows else data)).sum()
        torch.testing.assert_close(found[r], torch.autograd.grad(L, theta)[0], rtol=1e-11, atol=1e-12)
    g = normal(tuple(x.shape), 16)
    theta = WEIGHTS.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((Layered(theta, data).params(x) * g).sum(), theta)
    torch.testing.assert_close(q.pull(x, g).sum(0), wanted, rtol=1e-11, atol=1e-12)


def test_chain_params_follow_the_point_they_are_asked_for() -> None:
    q = Layered(WEIGHTS, DATA)
    zero, one = torch.zeros(1, 1, B, 5, dtype=torch.float64), torch.ones(1, 1, B, 5, dtype=torch.float64)
    first = q.params(zero).clone()
    assert not torch.equal(q.params(one), first)
    assert torch.equal(q.params(zero), first)
    assert torch.equal(first[..., 3:], WEIGHTS[12:14].expand(1, 1, B, 2))
    torch.testing.assert_close(first[0, 0, :, :3], DATA @ WEIGHTS[:6].reshape(F, 3))


def test_chain_samples_follow_the_law() -> None:
    q = Layered(WEIGHTS, DATA)
    n = 20000
    x = q.sample(noise_of("uniform", (1, n, B, 5), 17))[0]
    code = (x * double(16, 8, 4, 2, 1)).sum(-1).long()
    p = q.log_prob(q.support()[:, None].expand(32, B, 5)).exp()
    for b in range(B):
        counts = torch.bincount(code[:, b], minlength=32).numpy()
        assert scipy.stats.chisquare(counts, n * p[:, b].numpy()).pvalue > 1e-4
        assert scipy.stats.chisquare(counts, n * p[:, 1 - b].numpy()).pvalue < 1e-6


def test_chain_intervention_is_an_edit_of_the_noise() -> None:
    """Editing a late site leaves the earlier ones; editing an early one re-runs the later with the noise they had."""
    q = Layered(WEIGHTS, DATA)
    u = noise_of("uniform", (1, 200, B, 5), 18)
    x = q.sample(u)
    late, early = u.clone(), u.clone()
    late[..., 4], early[..., 0] = 1e-12, 1e-12
    assert torch.equal(q.sample(late)[..., :4], x[..., :4])
    assert bool((q.sample(late)[..., 4] == 1).all())
    pushed = q.sample(early)
    assert bool((pushed[..., 0] == 1).all())
    assert torch.equal(pushed[..., 1:3], x[..., 1:3])
    kept = x[..., 0] == 1
    assert torch.equal(pushed[kept], x[kept])
    assert not torch.equal(pushed[..., 3:], x[..., 3:])


def test_chain_at_other_weights_keeps_its_data() -> None:
    x = Layered(WEIGHTS, DATA).support()[:, None].expand(32, B, 5)
    moved = Layered(WEIGHTS, DATA).at(WEIGHTS + 1)
    torch.testing.assert_close(moved.log_prob(x), written_out(WEIGHTS + 1, x, DATA), rtol=1e-12, atol=1e-12)


def test_chain_of_categories_without_data() -> None:
    """Two steps of three categories, the second's logits a row picked by the first."""
    table = normal((12,), 19)
    steps = [lambda w, earlier: w[:3].reshape(1, 3), lambda w, earlier: earlier[0] @ w[3:].reshape(3, 3)]
    Walk = Chain(Categorical, steps, [1, 1], categories=3)
    q = Walk(table)
    assert Walk.event(table) == (2, 3)
    assert Walk.states(table) == 9
    assert Walk.noise(Size(Walk, (12,), (2, 3), 1, 9)) == [Noise("gumbel", (), (2, 3))]
    log_q = q.log_prob(q.support())
    first, second = table[:3].log_softmax(0), table[3:].reshape(3, 3).log_softmax(-1)
    wanted = [first[i] + second[i, j] for i, j in itertools.product(range(3), range(3))]
    torch.testing.assert_close(log_q, torch.stack(wanted), rtol=1e-12, atol=1e-12)
    x = q.sample(noise_of("gumbel", (K, R, 2, 3), 20))
    weight = normal((K, R), 21)
    w = table.expand(R, 12).clone().requires_grad_()
    L = sum((weight[:, r] * Walk(w[r]).log_prob(x[:, r])).sum() for r in range(R))
    assert isinstance(L, Tensor)
    torch.testing.assert_close(q.score(x, weight), torch.autograd.grad(L, w)[0], rtol=1e-11, atol=1e-12)


def test_chain_of_counts() -> None:
    """Two steps of a binomial variable of two trials, the second's logit moved by the first."""
    Walk = Chain(Binomial(2), [lambda w, earlier: w[:1], lambda w, earlier: w[1] + w[2] * earlier[0]], [1, 1])
    q = Walk(double(0.3, -0.4, 0.8))
    assert Walk.states(q.theta) == len(q.support()) == 9
    assert float(q.log_prob(q.support()).exp().sum()) == pytest.approx(1, abs=1e-13)
