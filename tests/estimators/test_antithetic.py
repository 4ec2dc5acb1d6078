"""Antithetic pairs of samples of any family, by the path and by the score, and of Normal variables in particular."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.antithetic import MIRRORED, antithetic, antithetic_normal, by_path, draw
from estimators.base import mismatch, size_of
from estimators.noise import KINDS
from estimators.pathwise import pathwise
from problems.base import Problem
from problems.families.normal import Normal


@pytest.mark.parametrize("problem", ["normals", "normals elbo", "amortised normals", "amortised normals elbo"])
@pytest.mark.parametrize("samples", [2, 6])
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem):
    found = agreement(antithetic_normal(samples), small(problem))
    assert found.z < found.allowed
    evaluations = samples * max(small(problem).rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(antithetic_normal(), replace(small("amortised normals elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["normals", "amortised normals elbo"])
def test_a_wrong_divisor_and_a_wrong_centre_are_seen(agreement, small, problem):
    def scaled(q, x, dfx):
        return 1.1 * by_path(q, x, dfx)

    def about_zero(q, noise):
        """-x in the place of 2 mu - x."""
        x = q.sample(noise)
        return torch.cat([x, -x])

    for wrong in (replace(antithetic_normal(), combine=scaled), replace(antithetic_normal(), draw=about_zero)):
        found = agreement(wrong, small(problem))
        assert found.z > found.allowed


def test_pairs_are_symmetric_about_the_mean(small):
    q = Normal(torch.tensor([[0.3, -2.0], [-0.5, 1.0]], dtype=torch.float64))
    x = draw(q, size_of(small("normals")), torch.tensor([[[0.7, -1.1]], [[0.2, 3.0]]], dtype=torch.float64))
    assert torch.allclose(x[:2] + x[2:], (2 * q.mu).expand(2, 1, 2), rtol=0, atol=1e-15)


def test_the_means_of_a_quadratic_have_no_variance_and_its_scales_that_of_one_sample(agreement):
    """f = x^2 + x: dL/dmu = 2 mu + 1 in every pair; dL/dlog sigma is 2 sigma^2 eps^2 of either half, of variance 8 sigma^4."""
    mu, sigma = 0.3, 0.8
    theta = torch.tensor([[mu], [sigma]], dtype=torch.float64)
    theta[1].log_()
    exact = torch.tensor([[2 * mu + 1], [2 * sigma**2]], dtype=torch.float64)
    problem = Problem("square", Normal, theta, lambda x: (x * x + x).sum(-1), smooth=2, exact=lambda p: exact)
    found = agreement(antithetic_normal(), problem)
    assert torch.allclose(found.gradients[:, 0], exact[0].expand(len(found.gradients)), rtol=0, atol=1e-13)
    assert abs(found.variance[1] - 8 * sigma**4) < 4 * found.variance_se[1]


def test_it_has_less_variance_than_independent_samples(agreement, small):
    ours, other = agreement(antithetic_normal(), small("normals")), agreement(pathwise(2), small("normals"))
    assert (ours.variance[:2] < other.variance[:2] - 4 * other.variance_se[:2]).all()


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_samples_come_in_pairs(samples):
    with pytest.raises(ValueError, match=r"antithetic_normal\[samples=\d\]: samples come in antithetic pairs"):
        antithetic_normal(samples)


PATHS = ["normals", "gammas", "gammas elbo", "amortised gammas elbo"]
SCORES = [
    "bits",
    "categories elbo",
    "counts",
    "normals elbo",
    "amortised categories",
    "layers elbo",
    "layers of categories",
]


@pytest.mark.parametrize(
    ("gradient", "problem"), [*[("pathwise", p) for p in PATHS], *[("score", p) for p in [*SCORES, *PATHS]]]
)
@pytest.mark.parametrize("samples", [2, 4])
def test_of_any_family_it_agrees_with_the_exact_gradient(agreement, small, samples, gradient, problem):
    found = agreement(antithetic(samples, gradient), small(problem), replicates=8192)
    assert found.z < found.allowed
    evaluations = samples * max(small(problem).rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations if gradient == "pathwise" else 0)


@pytest.mark.parametrize("problem", ["bits", "categories", "gammas"])
def test_a_second_half_that_is_shifted_is_seen(agreement, small, monkeypatch, problem):
    """1 - u / 2, and as much more of the noise of categories: no quantile of the same law."""
    monkeypatch.setitem(MIRRORED, "uniform", lambda u: 1 - u / 2)
    monkeypatch.setitem(MIRRORED, "gumbel", lambda g: g.flip(-1) + torch.arange(3).to(g) / 2)
    found = agreement(antithetic(gradient="score"), small(problem))
    assert found.z > found.allowed


def test_every_kind_of_noise_is_turned_to_its_other_quantile():
    u = torch.tensor([2.0**-33, 1e-3, 0.3, 0.5, 0.9, 1 - 2.0**-33], dtype=torch.float64)
    quantile = {
        "uniform": lambda u: u,
        "normal": torch.special.ndtri,
        "exponential": lambda u: -u.log(),
        "gumbel": lambda u: -(-u.log()).log(),
    }
    assert set(MIRRORED) == set(quantile) == set(KINDS) - {"sign"}
    for kind, of in quantile.items():
        assert torch.allclose(MIRRORED[kind](of(u)), of(1 - u), rtol=1e-6, atol=1e-12)


def test_by_the_score_a_constant_has_no_variance_in_the_means_and_a_linear_f_that_of_half_the_samples(agreement, small):
    """g_mu = 1/2 (f(eps) - f(-eps)) eps of N(0, 1): 0, and eps^2 of either half, of variance 2."""
    standard = replace(small("normals"), theta=torch.zeros(2, 1, dtype=torch.float64))
    constant = replace(standard, f=lambda x: 1 + 0 * x.sum(-1))
    assert float(gradients(prepare(antithetic(2, "score"), constant), range(64))[:, 0].abs().max()) == 0
    linear = replace(standard, f=lambda x: x.sum(-1), exact=lambda _: torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    found = agreement(antithetic(2, "score"), linear)
    assert found.z < found.allowed
    assert abs(found.variance[0] - 2) < 4 * found.variance_se[0]


def test_paths_of_gamma_variables_vary_less_than_over_independent_samples(small):
    """f is monotone in both, and so, nearly, are its derivatives."""
    ours, other = (gradients(prepare(e, small("gammas")), range(16_384)) for e in (antithetic(), pathwise(2)))
    less = (other - other.mean(0)).square().sum(1) - (ours - ours.mean(0)).square().sum(1)
    assert less.mean() > 4 * less.std() / 128


def test_of_normal_variables_it_is_antithetic_normal(small):
    a, b = (gradients(prepare(e, small("normals")), range(64)) for e in (antithetic(4), antithetic_normal(4)))
    assert torch.equal(a, b)


def test_settings_and_families_that_make_no_sense_are_refused(small):
    with pytest.raises(ValueError, match=r"antithetic\[samples=3\]: samples come in antithetic pairs"):
        antithetic(3)
    with pytest.raises(ValueError, match=r"antithetic\[gradient=both\]: gradient is pathwise or score"):
        antithetic(gradient="both")
    assert "variables; bits's are bernoulli" in mismatch(antithetic(), small("bits"))
    assert mismatch(antithetic(gradient="score"), small("bits")) is None
