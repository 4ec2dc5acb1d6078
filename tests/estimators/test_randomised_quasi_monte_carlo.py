"""Shifted Sobol points: unbiased, each of them being uniform, with less variance than independent samples, being evenly spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, claim_of, mismatch
from estimators.noise import KINDS, MEASURE, addressed
from estimators.pathwise import pathwise
from estimators.randomised_quasi_monte_carlo import quantile, sobol
from estimators.randomised_quasi_monte_carlo import randomised_quasi_monte_carlo as rqmc
from estimators.score_function import reinforce, rloo
from problems import PROBLEMS
from problems.base import Problem
from problems.families.base import Family, Noise

CONTINUOUS = ["normals", "normals elbo", "amortised normals elbo", "gammas", "gammas elbo", "amortised gammas"]
DISCRETE = ["bits", "categories elbo", "counts", "amortised bits elbo", "layers elbo", "layers of categories"]


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(("samples", "shifts"), [(8, 1), (4, 2)])
def test_the_mean_by_the_path_is_the_gradient(
    samples: int, shifts: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(rqmc(samples, shifts), problem, replicates=8192)
    assert found.z < found.allowed
    evaluations = samples * max(problem.rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


@pytest.mark.parametrize("name", [*DISCRETE, "normals", "gammas elbo"])
@pytest.mark.parametrize(("samples", "shifts"), [(4, 1), (6, 3)])
def test_the_mean_by_the_score_is_the_gradient(
    samples: int, shifts: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(rqmc(samples, shifts, "score"), problem, replicates=8192)
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(problem.rows, 1), 0)


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(rqmc(4), replace(small("amortised normals elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("name", ["normals", "gammas"])
def test_points_that_are_not_shifted_enough_are_seen(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """The first bit of the shift left out: the first point is always in the lower half of the cube."""
    right = rqmc(1)
    assert right.draw is not None
    wrong = replace(right, draw=lambda q, size, noise: right.draw(q, size, noise % 0.5))  # type: ignore[misc]
    found = agreement(wrong, small(name))
    assert found.z > found.allowed


def test_the_other_points_of_a_shift_are_no_baseline(
    agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """They depend on the point whose baseline they would be; the mean of f over another shift does not."""

    def leave_one_out(q: Family, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        return q.score(x, (fx - fx.mean(0)) / 3)

    found = agreement(replace(rqmc(4, 1, "score"), combine=leave_one_out), small("bits"))
    assert found.z > found.allowed


def test_every_interval_has_its_point() -> None:
    """Whatever the shift, of 2^m points one is in each of the 2^m intervals of every coordinate."""
    shift = torch.tensor([0x12345678, 0xFFFFFFFF, 0, 0x80000000, 0x0F0F0F0F])
    words = sobol(16, 5) ^ shift
    for d in range(5):
        assert sorted((words[:, d] >> 28).tolist()) == list(range(16))


def test_one_point_is_one_sample(small: Callable[[str], Problem]) -> None:
    """The first point is zero, so that the shift is the uniform itself: of a family that reads uniforms, the same gradient."""
    for ours, other, name in ((rqmc(1), pathwise(1), "gammas"), (rqmc(1, 1, "score"), reinforce(1), "bits")):
        a, b = (gradients(prepare(e, small(name)), range(64)) for e in (ours, other))
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)
    several, rlooed = (gradients(prepare(e, small("bits")), range(64)) for e in (rqmc(3, 3, "score"), rloo(3)))
    assert torch.allclose(several, rlooed, rtol=1e-13, atol=1e-13)


def test_quantiles_are_the_maps_that_the_noise_is_made_by() -> None:
    """Of the same words; a normal is made of two, and its quantile is held to the distribution function."""

    def noise(kind: str) -> torch.Tensor:
        return addressed(Noise(kind, (2,), (3,)), 5, MEASURE, 0, range(8), None, torch.float64)

    u = noise("uniform")
    for kind in set(KINDS) - {"normal", "sign"}:
        assert torch.allclose(quantile(kind, u), noise(kind), rtol=1e-14)
    assert torch.allclose(torch.special.ndtr(quantile("normal", u)), u, rtol=1e-13)


def less(ours: Estimator, other: Estimator, problem: Problem) -> bool:
    """The total variance is less by four standard errors of the difference."""
    a, b = (
        (g - g.mean(0)).square().sum(1) for g in (gradients(prepare(e, problem), range(4096)) for e in (ours, other))
    )
    return bool((b - a).mean() > 4 * (b - a).std() / 64)


def test_it_has_less_variance_than_independent_samples(small: Callable[[str], Problem]) -> None:
    for name in ("normals", "gammas"):
        assert less(rqmc(16), pathwise(16), small(name))
        assert less(rqmc(16, 1, "score"), reinforce(16), small(name))
    assert less(rqmc(16, 2, "score"), rloo(16), small("bits"))
    assert less(rqmc(16), rqmc(16, 4), small("normals"))


def test_of_one_smooth_coordinate_the_variance_falls_faster_than_one_over_the_samples() -> None:
    """Both of 2^m points in one coordinate: by more than 8 for four times as many, where independent samples have 4."""
    problem = PROBLEMS["gaussian_cost"](cost="exp", k=0.5)
    few, many = (gradients(prepare(rqmc(K), problem), range(2048)).var(0) for K in (16, 64))
    assert (few > 8 * many).all()


def test_without_randomisation_there_is_no_variance_and_little_bias(
    agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    gaps = []
    for samples in (16, 1024):
        estimator = rqmc(samples, randomised=False)
        assert claim_of(estimator, small("normals")) == "consistent"
        found = agreement(estimator, small("normals"), replicates=4)
        assert float(found.variance.max()) < 1e-28
        gaps.append(float((found.mean - found.truth).norm() / found.truth.norm()))
    assert gaps[1] < 0.1 * gaps[0] < 0.1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"samples": 12}, r"samples=12,shifts=1\]: the points of a shift"),
        ({"samples": 8, "shifts": 3}, r"samples=8,shifts=3\]: the points of a shift"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"gradient": "both"}, "gradient is pathwise or score"),
        ({"shifts": 2, "randomised": False}, "there is one fixed shift"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rqmc(**settings)


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    assert "variables; bits's are bernoulli" in str(mismatch(rqmc(), small("bits")))
    assert mismatch(rqmc(gradient="score"), small("bits")) is None
    wide = replace(small("bits"), theta=torch.zeros(30_000, dtype=torch.float64))
    why = "randomised_quasi_monte_carlo has a Sobol sequence of at most 21201 coordinates; a point has 30000"
    assert mismatch(rqmc(gradient="score"), wide) == why
