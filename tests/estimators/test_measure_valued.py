"""Measure-valued derivatives of every family that has them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import distributions

from bench.evaluate import gradients, prepare
from estimators.measure_valued import (
    combine_bernoulli,
    combine_categorical,
    combine_gamma,
    combine_normal,
    combine_poisson,
    draw_binomial,
    draw_geometric,
    draw_normal,
    draw_weibull,
    measure_valued_bernoulli,
    measure_valued_binomial,
    measure_valued_categorical,
    measure_valued_gamma,
    measure_valued_geometric,
    measure_valued_normal,
    measure_valued_poisson,
    measure_valued_weibull,
)
from estimators.replaced import replaced
from problems.base import Problem
from problems.families.binomial import Binomial
from problems.families.categorical import Categorical
from problems.families.gamma import Gamma
from problems.families.geometric import Geometric
from problems.families.normal import Normal
from problems.families.weibull import Weibull
from problems.objectives import Elbo, Expectation

DATA = torch.tensor([[0.9, -0.4], [-1.1, 0.2], [0.3, 1.3]], dtype=torch.float64)


def smooth(x):
    y, z = x.unbind(-1)
    return (1 + y + 2 * z).sqrt() - 0.2 * (y - z) ** 2


def of_two(name, family, law, values, weight, objective):
    """`smooth` of two sites, or for each of three data with an encoder; exact by a weighted sum over pairs of values."""
    pairs = torch.cartesian_prod(values, values)
    weights = torch.cartesian_prod(weight, weight).prod(-1)
    amortised = name.startswith("amortised")

    def f(x, data):
        return smooth(x) + data.sum(-1) * x[..., 0]

    def encode(w, data):
        return 0.4 * data @ w.reshape(2, 2)

    def exact(problem):
        theta = problem.theta.clone().requires_grad_()
        x, sites = (pairs[:, None], encode(theta, DATA)) if amortised else (pairs, theta)
        log_q = law(sites).log_prob(x).sum(-1)
        fx = f(x, DATA) if amortised else smooth(x)
        terms = log_q.exp() * (fx - log_q if objective.ratio else fx)
        return torch.autograd.grad((terms.reshape(len(pairs), -1) * weights[:, None]).sum(), theta)[0]

    theta = torch.tensor([0.5, -0.3, 0.7, 0.2] if amortised else [0.4, -0.3], dtype=torch.float64)
    with_data = {"encode": encode, "data": DATA} if amortised else {}
    return Problem(name, family, theta, f if amortised else smooth, objective, exact=exact, **with_data)


def made(name):
    """geometrics, binomials and weibulls, alone or amortised, and Elbo."""
    kind, objective = name.removeprefix("amortised ").removesuffix(" elbo"), Elbo() if "elbo" in name else Expectation()
    if kind == "geometrics":
        values = torch.arange(80, dtype=torch.float64)
        law = lambda t: distributions.Geometric(logits=t)  # noqa: E731
        return of_two(name, Geometric, law, values, torch.ones(80).double(), objective)
    if kind == "binomials":
        law = lambda t: distributions.Binomial(4, logits=t)  # noqa: E731
        return of_two(name, Binomial(4), law, torch.arange(5).double(), torch.ones(5).double(), objective)
    values = torch.arange(-30, 3, 0.08, dtype=torch.float64).exp()
    law = lambda t: distributions.Weibull((-t / 1.5).exp(), t.new_tensor(1.5))  # noqa: E731
    return of_two(name, Weibull(1.5), law, values, 0.08 * values, objective)


@pytest.fixture(scope="module")
def known(small):
    """`small`, and what is made here."""
    return lambda name: made(name) if any(kind in name for kind in MADE) else small(name)


MADE = ("geometrics", "binomials", "weibulls")
PAIRS = [
    (measure_valued_normal, "normals", 8),
    (measure_valued_bernoulli, "bits", 6),
    (measure_valued_categorical, "categories", 6),
    (measure_valued_poisson, "counts", 3),
    (measure_valued_gamma, "gammas", 5),
    (measure_valued_geometric, "geometrics", 3),
    (measure_valued_binomial, "binomials", 3),
    (measure_valued_weibull, "weibulls", 3),
    (measure_valued_normal, "amortised normals", 3 * 8),
    (measure_valued_bernoulli, "amortised bits", 3 * 4),
    (measure_valued_categorical, "amortised categories", 3 * 6),
    (measure_valued_poisson, "amortised counts", 3 * 2),
    (measure_valued_gamma, "amortised gammas", 3 * 5),
    (measure_valued_geometric, "amortised geometrics", 3 * 3),
    (measure_valued_binomial, "amortised binomials", 3 * 3),
    (measure_valued_weibull, "amortised weibulls", 3 * 3),
]


@pytest.mark.parametrize("objective", ["", " elbo"])
@pytest.mark.parametrize(("make", "problem", "evaluations"), PAIRS)
def test_they_agree_with_the_exact_gradient(agreement, known, make, problem, evaluations, objective):
    found = agreement(make(), known(problem + objective))
    assert found.z < found.allowed
    assert (found.f, found.df) == (evaluations, 0)


@pytest.mark.parametrize(("make", "problem", "evaluations"), PAIRS[8:])
def test_rows_drawn_for_each_replicate_agree(agreement, known, make, problem, evaluations):
    found = agreement(make(), replace(known(problem), batch=2))
    assert found.z < found.allowed
    assert found.f == evaluations * 2 / 3


def test_wrong_constants_are_seen(agreement, known):
    def means(q, fx):
        return combine_normal(q, fx) * torch.tensor([[1.05], [1.0]], dtype=torch.float64)

    def natural(q, fx):
        """dE/d sigma in the place of dE/d log sigma."""
        g = combine_normal(q, fx)
        return torch.stack([g[..., 0, :], g[..., 1, :] / q.sigma], -2)

    def per_rate(q, fx):
        return combine_poisson(q, fx) / q.rate

    def per_probability(q, fx):
        return combine_bernoulli(q, fx) / (4 * q.p * (1 - q.p))

    def without_the_others(q, noise, fx):
        return combine_categorical(q, noise, fx) / (1 - q.p)

    def half_the_shape(q, noise, fx):
        return combine_gamma(q, noise, fx) * torch.tensor([[0.5], [1.0]], dtype=torch.float64)

    mutants = [
        (measure_valued_categorical, "categories", without_the_others),
        (measure_valued_gamma, "gammas", half_the_shape),
        (measure_valued_normal, "normals", means),
        (measure_valued_normal, "normals", natural),
        (measure_valued_poisson, "counts", per_rate),
        (measure_valued_bernoulli, "bits", per_probability),
    ]
    for make, problem, combine in mutants:
        found = agreement(replace(make(), combine=combine), known(problem), replicates=65_536)
        assert found.z > found.allowed, combine.__name__


def test_negative_parts_of_another_law_are_seen(agreement, known):
    def one_less(q, noise):
        x = draw_geometric(q, noise)
        return torch.cat([x[:1], replaced(x[0], (x[0] + q.sample(noise[1]))[None])])

    def always_up(q, noise):
        x = draw_binomial(q, noise)[0]
        return torch.cat([x[None], replaced(x, (x + 1)[None])])

    def halved(q, noise):
        return draw_weibull(q, torch.stack([noise[0], noise[1] / 2]))

    mutants = [
        (measure_valued_geometric, "geometrics", one_less),
        (measure_valued_binomial, "binomials", always_up),
        (measure_valued_weibull, "weibulls", halved),
    ]
    for make, problem, draw in mutants:
        found = agreement(replace(make(), draw=draw), known(problem), replicates=65_536)
        assert found.z > found.allowed, draw.__name__


def test_a_trial_turned_round_leaves_a_point_of_the_support():
    """Also where a uniform rounds to 0 or 1."""
    noise = torch.tensor([0.0, 0.5, 1.0])
    u = torch.cartesian_prod(noise, noise).T[..., None]
    x = draw_binomial(Binomial(3)(torch.tensor([0.4])), u)
    assert bool(((x >= 0) & (x <= 3)).all())
    assert bool(((x[1] - x[0]).abs() == 1).all())


def test_variances_of_a_linear_f_are_known(agreement):
    """f = x of one variable: -(1 - p)(1 + y); n p (1 - p) itself; -E'/rate; 2 V x and -a E/b."""

    def alone(family, *theta):
        shape = (2, 1) if family is Gamma else (1,)
        at = torch.tensor(theta, dtype=torch.float64).reshape(shape)
        means = {Gamma: lambda t: t[:1].exp() / t[1:].exp(), Geometric: lambda t: (-t).exp()}
        mean = means.get(family, lambda t: family(t).mean)

        def exact(problem):
            leaf = problem.theta.clone().requires_grad_()
            return torch.autograd.grad(mean(leaf).sum(), leaf)[0]

        return Problem("linear", family, at, lambda x: x[..., 0], exact=exact)

    p, a, b = 1 / (1 + math.exp(-0.4)), math.exp(0.3), math.exp(-0.2)
    cases = [
        (measure_valued_geometric, alone(Geometric, 0.4), [(1 - p) ** 3 / p**2]),
        (measure_valued_binomial, alone(Binomial(5), 0.4), [0.0]),
        (measure_valued_weibull, alone(Weibull(1.0), 0.4), [math.exp(-0.8)]),
        (measure_valued_gamma, alone(Gamma, 0.3, -0.2), [(4 / 3 * a * (a + 1) - a * a) / b**2, a * a / b**2]),
    ]
    for make, problem, wanted in cases:
        found = agreement(make(), problem, replicates=65_536)
        assert found.z < found.allowed
        off = (found.variance - torch.tensor(wanted, dtype=torch.float64)).abs()
        assert bool((off <= 5 * found.variance_se + 1e-25).all()), make.__name__


def test_the_shape_of_a_gamma_has_a_finite_variance_where_f_jumps(agreement):
    """f = 1[x > 1]: E [2 V / (1 - S)]^2 1[S x < 1 < x], by scipy's integral over V, less the squared mean."""
    a, b = 1.7, 0.8
    law = scipy.stats.gamma(a, scale=1 / b)

    def of_V(V):
        S = (1 - V * V) ** (1 / a)
        return (2 * V / (1 - S)) ** 2 * (law.sf(1) - law.sf(1 / S))

    step = 1e-5
    up, down = (scipy.stats.gamma(a * math.exp(h), scale=1 / b).sf(1) for h in (step, -step))
    slope = (up - down) / (2 * step)
    d_rate = -law.pdf(1.0)
    wanted = scipy.integrate.quad(of_V, 0, 1, limit=200)[0] - slope**2
    theta = torch.tensor([[math.log(a)], [math.log(b)]], dtype=torch.float64)
    truth = torch.tensor([slope, d_rate], dtype=torch.float64)
    problem = Problem("jump", Gamma, theta, lambda x: (x[..., 0] > 1).to(x), exact=lambda problem: truth)
    found = agreement(measure_valued_gamma(), problem, replicates=262_144)
    assert found.z < found.allowed
    assert abs(float(found.variance[0]) - wanted) < 5 * float(found.variance_se[0])


def test_two_categories_of_one_site_are_exact_and_far_logits_keep_their_digits():
    """g = +-p (1 - p) (f_1 - f_0) whatever is drawn, also where 1 - p rounds to nothing."""
    for scale in (1.0, 30.0):
        theta = scale * torch.tensor([[0.7, -0.5]], dtype=torch.float64)
        problem = Problem("pair", Categorical, theta, lambda x: 2 * x[..., 0, 1] + 1)
        g = gradients(prepare(measure_valued_categorical(), problem), range(64))
        p = torch.sigmoid(theta[0, 1] - theta[0, 0]) * torch.sigmoid(theta[0, 0] - theta[0, 1])
        torch.testing.assert_close(g, (2 * p * torch.tensor([-1.0, 1.0]).double()).expand(64, 2), rtol=1e-12, atol=0)


def test_a_negative_part_of_the_scale_that_is_not_normal_is_seen(agreement, small):
    """M itself, without the uniform that makes U M a standard normal, scaled to the same second moment."""

    def draw(q, noise):
        eps, u, normals, U = noise
        return draw_normal(q, (eps, u, normals, torch.full_like(U, 3**-0.5)))

    found = agreement(replace(measure_valued_normal(), draw=draw), small("normals"), replicates=65_536)
    assert found.z > found.allowed


def test_the_last_points_of_the_normal_form_are_samples():
    """Mean and variance of mu + sigma U M within 4 standard errors of mu and sigma^2."""
    q = Normal(torch.tensor([[0.3], [-0.5]], dtype=torch.float64))
    generator, n = torch.Generator().manual_seed(3), 200_000
    eps, *normals = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for _ in range(4))
    u, U = (torch.rand(n, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    x = draw_normal(q, (eps, u, torch.stack(normals), U))[3, :, 0]
    standard = (x - q.mu) / q.sigma
    assert standard.mean().abs() < 4 / n**0.5
    assert (standard.var() - 1).abs() < 4 * (2 / n) ** 0.5
    assert (standard.pow(4).mean() - 3).abs() < 4 * (96 / n) ** 0.5


def test_one_coordinate_is_replaced_at_a_time():
    base = torch.tensor([[1.0, 2.0, 3.0]])
    x = replaced(base, torch.stack([10 * base, -base]))
    assert x[:, 0].tolist() == [[10, 2, 3], [1, 20, 3], [1, 2, 30], [-1, 2, 3], [1, -2, 3], [1, 2, -3]]
