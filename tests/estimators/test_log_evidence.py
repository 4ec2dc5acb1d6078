"""SUMO and multilevel Monte Carlo: their exact means over every draw and stage, what they cost, and tails that are not trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from bench.measure import measure
from estimators.base import Estimator, claim_of, mismatch, target_of
from estimators.log_evidence import mlmc_log_evidence, sumo
from problems.base import Problem
from problems.linear_gaussian import linear_gaussian
from problems.mixture import mixture
from problems.objectives import ImportanceWeighted
from problems.truth import true_gradient
from tests.estimators.enumerated import exact_mean, first_datum
from tests.estimators.test_importance_weighted import title

# an estimator of four or eight points at most, and the chance of each of its stages
STAGES = [
    (sumo(4), [1 / 2, 1 / 6, 1 / 3]),
    (mlmc_log_evidence(2), [0.6, 0.4]),
    (mlmc_log_evidence(2, form="single"), [0.6, 0.4]),
    (mlmc_log_evidence(3, p=0.3), [0.3, 0.21, 0.49]),
    (mlmc_log_evidence(3, p=0.3, form="single"), [0.3, 0.21, 0.49]),
]


def truth(problem: Problem) -> torch.Tensor:
    found = true_gradient(problem)
    assert found is not None
    return found.gradient


def evidence() -> Problem:
    return linear_gaussian(2, data=2, objective="log_marginal").at("mid")


def of_model(problem: Problem, samples: int) -> torch.Tensor:
    """The model's gradient of the bound of so many samples, and nil in theta."""
    g = truth(replace(problem, objective=ImportanceWeighted(samples)))
    g[: problem.theta.numel()] = 0
    return g


def to_the_stage(estimator: Estimator, u: float) -> Estimator:
    """The same, ended by this uniform number."""
    value: Any = estimator.value

    def held(fx: torch.Tensor) -> torch.Tensor:
        return value(fx, (None, torch.full_like(fx[0], u)))

    return replace(estimator, value=held, noise=None)


@pytest.mark.parametrize(("estimator", "chances"), STAGES, ids=title)
def test_the_mean_over_draws_and_stages_is_the_bound_of_all_points(estimator: Estimator, chances: list[float]) -> None:
    """Exactly: stage s ends where u lies between two of the probabilities of reaching a stage."""
    problem = first_datum(mixture(objective="log_marginal"))
    mean, above = torch.zeros(problem.dim, dtype=torch.float64), 1.0
    for chance in chances:
        mean += chance * exact_mean(to_the_stage(estimator, above - chance / 2), problem)
        above -= chance
    claimed = target_of(estimator, problem)
    assert claimed is not None
    torch.testing.assert_close(mean, claimed[0], rtol=1e-9, atol=1e-12)
    assert claim_of(estimator, problem) == "consistent"
    assert (claimed[0] - truth(problem)).norm() > 1e-3


@pytest.mark.parametrize(
    ("estimator", "most", "evaluations"),
    [
        (sumo(10), 10, 1 + sum(1 / k for k in range(1, 10))),
        (mlmc_log_evidence(3), 8, 2 + 2 * 0.4 + 4 * 0.16),
        (mlmc_log_evidence(4, p=0.7, form="single"), 16, 2 + 2 * 0.3 + 4 * 0.09 + 8 * 0.027),
    ],
    ids=title,
)
def test_means_and_costs_over_gaussians(
    estimator: Estimator, most: int, evaluations: float, agreement: Callable[..., Any]
) -> None:
    """A truncated sum has moments; f is evaluated where the sum is alive, and nowhere else."""
    problem = evidence()
    mean = of_model(problem, most)
    found = agreement(estimator, replace(problem, exact=lambda _: mean), 32_768)
    assert found.z < found.allowed
    assert float(found.gradients[:, : problem.theta.numel()].abs().max()) == 0
    assert found.f == pytest.approx(2 * evaluations, rel=0.02)
    assert found.df == 0


def test_a_tail_of_another_law_is_seen(agreement: Callable[..., Any]) -> None:
    """Stages weighted as if each were half as likely as the one before."""
    problem, right = evidence(), mlmc_log_evidence(3)
    mean = of_model(problem, 8)
    wrong = replace(right, value=mlmc_log_evidence(3, p=0.5).value)
    found = agreement(wrong, replace(problem, exact=lambda _: mean), 65_536)
    assert found.z > found.allowed


def test_longer_sums_have_less_bias_and_more_variance(agreement: Callable[..., Any]) -> None:
    """Of the truth: L_2 and L_32 of Gaussians, known exactly; and the variance of the sums to there."""
    problem = evidence()
    bias = [(of_model(problem, most) - truth(problem)).norm() for most in (2, 32)]
    assert bias[1] < 0.2 * bias[0]
    short, long = (agreement(sumo(most), problem, 8192).total_variance for most in (2, 32))
    assert long > 2 * short


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_of_sumo_is_not_trusted_and_gives_no_false_alarm(seed: int) -> None:
    """Its truncated mean is within 5% of the truth, its tail such that no interval of its variance has an upper end."""
    problem = evidence()
    gap = (of_model(problem, 128) - truth(problem)).norm()
    assert gap < 0.05 * truth(problem).norm()
    m = measure(sumo(), problem, replicates=8192, seed=seed, rounds=0)
    assert m.verdict == "undecided"
    assert m.total_variance_interval[1] == float("inf")


def test_float32_and_far_weights() -> None:
    problem = evidence()
    assert problem.data is not None
    far = replace(problem, data=100 * problem.data)
    for estimator in (sumo(), mlmc_log_evidence(), mlmc_log_evidence(form="single")):
        for dtype in ("float64", "float32"):
            assert gradients(prepare(estimator, far, dtype=dtype), range(256)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    assert mismatch(sumo(), mixture()) == "sumo estimates the gradient of LogMarginal; mixture's objective is Elbo"
    for make, sentence in [
        (lambda: sumo(1), r"sumo\[most=1\]: most must be at least 2"),
        (lambda: mlmc_log_evidence(0), r"mlmc_log_evidence\[levels=0\]: levels must be at least 1"),
        (lambda: mlmc_log_evidence(p=1.0), r"mlmc_log_evidence\[p=1.0\]: p lies between 0 and 1"),
        (lambda: mlmc_log_evidence(form="all"), r"mlmc_log_evidence\[form=all\]: form is roulette or single"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            make()
