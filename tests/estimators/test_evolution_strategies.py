"""Evolution strategies: the mean is the gradient of the smoothed objective, by quadrature, whatever the baseline and design."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import qmc

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import Estimator, claim_of, mismatch, target_of
from estimators.evolution_strategies import DESIGNS, evolution_strategies, latin, orthogonal, quantiles, sobol
from estimators.finite_difference import finite_difference
from estimators.noise import MEASURE
from problems.base import Problem
from problems.truth import gauss_hermite, log_probability, true_gradient

SIGMA = 0.7
BASELINES = ["none", "centre", "leave_one_out", "antithetic"]
UNBIASED = [(b, d) for b in BASELINES for d in DESIGNS if b != "leave_one_out" or d in ("independent", "orthogonal")]


def claimed(estimator: Estimator, problem: Problem) -> torch.Tensor:
    found = target_of(estimator, problem)
    assert found is not None
    return found[0]


def smoothed(problem: Problem, sigma: float) -> torch.Tensor:
    """E F(theta + sigma eps) eps / sigma by quadrature over all parameters at once, F by enumeration of the support."""
    q = problem.bind(problem.theta)
    x = q.support()
    fx = problem.f(x) - log_probability(q, x) if problem.objective.ratio else problem.f(x)
    eps, weight = gauss_hermite(problem.theta.numel(), 24 if problem.theta.numel() < 4 else 6)
    eps = eps.unflatten(-1, problem.theta.shape)
    log_q = log_probability(q.at(problem.theta + sigma * eps[:, None]), x)
    return torch.einsum("n,ns,s,n...->...", weight, log_q.exp(), fx, eps) / sigma


@pytest.mark.parametrize("name", ["bits", "bits elbo", "categories", "categories elbo"])
def test_the_claim_is_the_gradient_of_the_smoothed_objective(name: str, small: Callable[[str], Problem]) -> None:
    problem = small(name)
    sigma, tolerance = (SIGMA, 1e-8) if "bits" in name else (0.1, 1e-7)
    found = claimed(evolution_strategies(sigma=sigma), problem)
    torch.testing.assert_close(found, smoothed(problem, sigma).reshape(-1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize(("baseline", "design"), UNBIASED)
def test_the_mean_is_the_gradient_of_the_smoothed_objective(
    baseline: str, design: str, common: bool, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small("bits elbo")
    estimator = evolution_strategies(4, SIGMA, baseline, design, common)
    mean = claimed(estimator, problem)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (5 if baseline == "centre" else 4, 0)
    assert claim_of(estimator, problem) == "biased"


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("name", ["categories", "amortised bits elbo", "amortised categories"])
def test_other_sites_an_encoder_and_a_model(
    name: str, batch: int, design: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    problem = replace(problem, batch=batch) if problem.rows else problem
    estimator = evolution_strategies(4, SIGMA, design=design)
    mean = claimed(estimator, problem)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed


def test_the_objective_itself_has_another_gradient(
    agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    found = agreement(evolution_strategies(8, 1.5), small("bits"), replicates=2**16)
    assert found.z > found.allowed


def test_of_normals_the_mean_is_smoothed_too(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """By quadrature over the four parameters and both variables."""
    problem, sigma = small("normals"), 0.4
    eps, weight = gauss_hermite(6, 7)
    mu, log_sigma = (problem.theta + sigma * eps[:, :4].unflatten(-1, (2, 2))).unbind(-2)
    fx = problem.f(mu + log_sigma.exp() * eps[:, 4:])
    mean = torch.einsum("n,n,np->p", weight, fx, eps[:, :4]) / sigma
    for baseline in ("antithetic", "leave_one_out"):
        found = agreement(evolution_strategies(4, sigma, baseline), replace(problem, exact=lambda _: mean))
        assert found.z < found.allowed


@pytest.mark.parametrize("design", ["latin", "sobol"])
def test_others_that_tell_of_a_point_are_no_baseline_of_it(
    design: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Which is why nothing is claimed of that mean."""
    problem = small("bits")
    estimator = evolution_strategies(4, 1.5, "leave_one_out", design)
    mean = claimed(evolution_strategies(4, 1.5), problem)
    assert target_of(estimator, problem) is None
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


def test_a_wrong_constant_is_seen(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    problem, estimator = small("bits"), evolution_strategies(4, SIGMA)
    mean = claimed(estimator, problem)
    assert estimator.combine is not None
    combine = estimator.combine
    wrong = replace(estimator, combine=lambda size, noise, fx: 0.9 * combine(size, noise, fx))
    found = agreement(wrong, replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


@pytest.mark.parametrize("name", ["bits", "categories elbo"])
def test_the_bias_falls_as_the_scale_squared(name: str, small: Callable[[str], Problem]) -> None:
    problem = small(name)
    truth = true_gradient(problem)
    assert truth is not None
    long, short = ((claimed(evolution_strategies(sigma=s), problem) - truth.gradient).norm() for s in (0.04, 0.02))
    assert float(long / short) == pytest.approx(4, rel=0.02)


def numbers(kind: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    make = torch.randn if kind == "normal" else torch.rand
    return make(*shape, generator=generator, dtype=torch.float64)


def test_orthogonal_directions_keep_their_lengths_and_the_first_its_place() -> None:
    """Five directions of three parameters: a block of three and one of two."""
    raw = numbers("normal", 5, 4000, 1, 3)
    eps = orthogonal(5, 2, raw).flatten(-2)
    lengths = raw.flatten(-2).norm(dim=-1)
    torch.testing.assert_close(eps.norm(dim=-1), lengths)
    for first, last in ((0, 3), (3, 5)):
        gram = torch.einsum("krp,jrp->rkj", eps[first:last], eps[first:last])
        wanted = torch.diag_embed(lengths[first:last].T ** 2)
        torch.testing.assert_close(gram, wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(eps[first], raw[first, :, 0])
    se = 1 / math.sqrt(4000)
    assert float(eps.mean(1).abs().max()) < 5 * se
    cov = torch.einsum("krp,krq->kpq", eps, eps) / 4000
    assert float((cov - torch.eye(3)).abs().max()) < 5 * math.sqrt(2) * se


@pytest.mark.parametrize("K", [1, 4, 7])
def test_a_latin_hypercube_has_one_point_in_each_stratum(K: int) -> None:
    u = torch.special.ndtr(latin(K, 1, *numbers("uniform", 2, K, 50, 3)))
    strata = (u * K).floor().sort(0).values
    assert torch.equal(strata, torch.arange(K, dtype=torch.float64)[:, None, None].expand(K, 50, 3))


@pytest.mark.parametrize("K", [1, 4, 6])
def test_a_sobol_sequence_is_shifted_modulo_one(K: int) -> None:
    shift = numbers("uniform", 50, 2, 2)
    u = torch.special.ndtr(sobol(K, 2, shift))
    sequence = torch.from_numpy(qmc.Sobol(4, scramble=False).random_base2(3)[:K]).reshape(K, 1, 2, 2)
    torch.testing.assert_close(u, (sequence + shift) % 1, rtol=1e-9, atol=1e-9)


def test_quantiles_are_finite_at_the_ends() -> None:
    for dtype in (torch.float64, torch.float32):
        assert quantiles(torch.tensor([0.0, 0.5, 1.0], dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("baseline", ["none", "antithetic"])
@pytest.mark.parametrize("name", ["bits", "normals"])
def test_no_design_has_more_variance_than_independent_directions(
    name: str, baseline: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """f raised by 3: without a baseline a latin or sobol design, whose directions nearly sum to nil, takes that off."""
    base = small(name)
    problem = replace(base, f=lambda x: base.f(x) + 3)
    found = {d: agreement(evolution_strategies(8, 0.5, baseline, d), problem) for d in DESIGNS}
    plain = found.pop("independent")
    for design, other in found.items():
        error = math.hypot(other.total_variance_se, plain.total_variance_se)
        assert other.total_variance < plain.total_variance + 4 * error, design
        if baseline == "none" and design != "orthogonal":
            assert other.total_variance < 0.8 * plain.total_variance, design


@pytest.mark.parametrize("baseline", ["centre", "leave_one_out", "antithetic"])
def test_a_baseline_takes_off_what_f_has_of_a_constant(
    baseline: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    base = small("bits")
    problem = replace(base, f=lambda x: base.f(x) + 3)
    plain, found = (agreement(evolution_strategies(8, 0.5, b), problem) for b in ("none", baseline))
    assert found.total_variance < plain.total_variance - 4 * plain.total_variance_se


def test_pairs_share_a_draw_of_their_own(small: Callable[[str], Problem]) -> None:
    """Of normals, the midpoint of a pair's logarithmic distances from the mean is that of theta."""
    problem = small("normals")
    known = ask(prepare(evolution_strategies(4, 0.3), problem), range(8), None, MEASURE, Count()).known
    u, eps = known["noise"]
    x = known["x"]
    assert u.shape == (2, 8, 2)
    for k in range(2):
        for end, sign in ((k, 1), (2 + k, -1)):
            mu, log_sigma = (problem.theta + sign * 0.3 * eps[k]).unbind(-2)
            torch.testing.assert_close(x[end], mu + log_sigma.exp() * u[k])


def test_one_pair_is_a_difference_along_one_direction(small: Callable[[str], Problem]) -> None:
    """[f(x+) - f(x-)] eps / (2 sigma), on the noise that the estimator had."""
    problem = small("bits")
    trial = prepare(evolution_strategies(2, 0.3), problem)
    (u, eps), x = (ask(trial, range(64), None, MEASURE, Count()).known[name] for name in ("noise", "x"))
    up, down = ((u[0] < (problem.theta + s * 0.3 * eps[0]).sigmoid()).double() for s in (1, -1))
    assert torch.equal(x, torch.stack([up, down]))
    expected = (problem.f(up) - problem.f(down))[:, None] * eps[0] / 0.6
    torch.testing.assert_close(gradients(trial, range(64)), expected)


@pytest.mark.parametrize("design", DESIGNS)
def test_one_bit_and_one_direction_will_do(
    design: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    theta = torch.tensor([0.4], dtype=torch.float64)
    problem = replace(small("bits"), theta=theta, f=lambda x: 2 * x[..., 0] - 0.5)
    estimator = evolution_strategies(1, SIGMA, "centre", design)
    mean = claimed(estimator, problem)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed


def test_an_infinite_support_has_no_target(small: Callable[[str], Problem]) -> None:
    assert target_of(evolution_strategies(), small("normals")) is None
    assert target_of(evolution_strategies(), small("counts")) is None
    assert target_of(finite_difference(), small("gammas")) is None


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    wrong = [
        ({"samples": 3}, "antithetic directions come in pairs, so samples is even"),
        ({"samples": 1, "baseline": "leave_one_out"}, "samples must be at least 2"),
        ({"sigma": 0}, "the scale must be positive"),
        ({"baseline": "mean"}, "baseline is none, centre, leave_one_out or antithetic"),
        ({"design": "halton"}, "design is independent, orthogonal, latin or sobol"),
    ]
    for settings, why in wrong:
        with pytest.raises(ValueError, match=why):
            evolution_strategies(**settings)  # type: ignore[arg-type]
    wide = replace(small("bits"), theta=torch.zeros(21202, dtype=torch.float64))
    assert mismatch(evolution_strategies(), wide) is None
    assert "at most 21201 parameters; there are 21202" in (mismatch(evolution_strategies(design="sobol"), wide) or "")
    assert "evolution_strategies is for bernoulli" in (mismatch(evolution_strategies(), small("layers")) or "")
