"""MIWAE, PIWAE, CIWAE and JVI: their exact means, the estimators that they are at their ends, and the jackknife's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, claim_of, mismatch, target_of
from estimators.combined_bounds import GRADIENTS, ciwae, jvi, miwae, piwae
from estimators.importance_weighted import dreg, iwae_pathwise, iwae_score, vimco
from estimators.log_evidence import mlmc_log_evidence, sumo
from estimators.thermodynamic import tvo
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.linear_gaussian import linear_gaussian
from problems.mixture import mixture
from problems.objectives import ImportanceWeighted, LogMarginal, Objective, Renyi, Thermodynamic
from problems.truth import true_gradient
from tests.estimators.enumerated import exact_mean, first_datum
from tests.estimators.test_importance_weighted import title


def truth(problem: Problem) -> torch.Tensor:
    found = true_gradient(problem)
    assert found is not None
    return found.gradient


def gaussian(samples: int) -> Problem:
    """An importance-weighted bound, known exactly for every number of samples."""
    return linear_gaussian(2, samples, 2).at("mid")


def evidence() -> Problem:
    return linear_gaussian(2, data=2, objective="log_marginal").at("mid")


def of_bound(problem: Problem, samples: int) -> torch.Tensor:
    return truth(replace(problem, objective=ImportanceWeighted(samples)))


def split(problem: Problem, of_theta: torch.Tensor, of_model: torch.Tensor) -> torch.Tensor:
    P = problem.theta.numel()
    return torch.cat([of_theta[:P], of_model[P:]])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_means_over_gaussians(gradient: str, agreement: Callable[..., Any]) -> None:
    """Each against its own mixture of the bounds of 1, 2, 3 and 4 samples, and, where that is another, not against the bound."""
    four, two, log_p = gaussian(4), gaussian(2), evidence()
    cases = [
        (miwae(3, gradient), two, truth(two), 6),
        (piwae(2, gradient), four, split(four, truth(two), truth(four)), 4),
        (ciwae(0.3, gradient), four, 0.3 * of_bound(four, 1) + 0.7 * truth(four), 4),
        (jvi(3, gradient), log_p, 3 * of_bound(log_p, 3) - 2 * of_bound(log_p, 2), 3),
    ]
    for estimator, problem, mean, samples in cases:
        found = agreement(estimator, replace(problem, exact=lambda _, mean=mean: mean))
        assert found.z < found.allowed, estimator.name
        assert (found.f, found.df) == (2 * samples, 0 if gradient == "score" else 2 * samples)
        if estimator.name != "miwae":
            against = agreement(estimator, problem, 65_536)
            assert against.z > against.allowed, estimator.name


@pytest.mark.parametrize("estimator", [piwae(2, "score"), ciwae(0.3, "score"), jvi(4, "score")], ids=title)
def test_their_targets_are_their_exact_means(estimator: Estimator) -> None:
    """Over every draw of four samples of three categories; the target by the bounds' own enumeration."""
    problem = first_datum(mixture(samples=4))
    if estimator.name == "jvi":
        problem = replace(problem, objective=LogMarginal())
    claimed = target_of(estimator, problem)
    assert claimed is not None
    torch.testing.assert_close(exact_mean(estimator, problem), claimed[0], rtol=1e-9, atol=1e-11)
    assert claim_of(estimator, problem) in ("biased", "consistent")
    assert (exact_mean(estimator, problem) - truth(problem)).norm() > 1e-3 * truth(problem).norm()


def test_where_a_bound_is_too_large_to_enumerate_there_is_no_target() -> None:
    assert target_of(jvi(), evidence()) is None
    assert target_of(jvi(20, "score"), mixture(objective="log_marginal")) is None


def test_the_bias_of_the_jackknife_falls_as_one_over_the_samples_squared() -> None:
    """Exactly, over every multiset of draws; that of the bound itself falls as 1/K. In theta, where the truth is nil, as well."""
    problem = replace(first_datum(mixture().at("mid")), objective=LogMarginal())
    wanted = truth(problem)
    P = problem.theta.numel()
    bias = {K: exact_mean(jvi(K, "score"), problem, True) - wanted for K in (2, 3, 4, 8, 16, 32)}
    for part in (slice(None, P), slice(P, None)):
        size = {K: float(b[part].norm()) for K, b in bias.items()}
        assert size[4] < size[3] < size[2]
        assert size[16] / size[32] == pytest.approx(4, rel=0.1)
        assert size[8] / size[16] == pytest.approx(4, rel=0.2)
    plain = [
        float((exact_mean(iwae_score(), replace(problem, objective=ImportanceWeighted(K)), True) - wanted).norm())
        for K in (16, 32)
    ]
    assert plain[0] / plain[1] == pytest.approx(2, rel=0.1)
    assert plain[1] > 10 * float(bias[32].norm())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_at_their_ends_they_are_the_bound(gradient: str) -> None:
    """One group, or no share of the ELBO: the plain estimators of the same noise; PIWAE in theta is MIWAE of the smaller bound."""
    plain = {"pathwise": iwae_pathwise, "dreg": dreg, "score": iwae_score}[gradient]()
    problem = gaussian(4)
    wanted = gradients(prepare(plain, problem), range(32))
    for estimator in (miwae(1, gradient), piwae(1, gradient), ciwae(0.0, gradient)):
        assert claim_of(estimator, problem) == "unbiased"
        torch.testing.assert_close(gradients(prepare(estimator, problem), range(32)), wanted)
    of_groups = gradients(prepare(miwae(2, gradient), replace(problem, objective=ImportanceWeighted(2))), range(32))
    P = problem.theta.numel()
    found = gradients(prepare(piwae(2, gradient), problem), range(32))
    torch.testing.assert_close(found[:, :P], of_groups[:, :P])
    torch.testing.assert_close(found[:, P:], wanted[:, P:])


def test_a_share_of_the_elbo_is_credited_sample_by_sample(agreement: Callable[..., Any]) -> None:
    """CIWAE of beta = 1 by the score is the mean of K independent REINFORCE; all of the mean to each would be K times as noisy."""
    P = gaussian(4).theta.numel()
    problems = [replace(gaussian(4), objective=ImportanceWeighted(K)) for K in (1, 4)]
    of_one, of_four = (agreement(ciwae(1.0, "score"), problem) for problem in problems)
    one, four = (float(found.gradients[:, :P].var(0).sum()) for found in (of_one, of_four))
    assert one / four == pytest.approx(4, rel=0.1)


def test_more_groups_have_as_much_less_variance(agreement: Callable[..., Any]) -> None:
    one, four = (agreement(miwae(M), gaussian(2)) for M in (1, 4))
    assert one.total_variance / four.total_variance == pytest.approx(4, rel=0.05)


def test_weights_far_apart_give_no_nan(agreement: Callable[..., Any]) -> None:
    for gradient in GRADIENTS:
        combine: Any = jvi(3, gradient).combine
        log_w = torch.tensor([[1000.0, 0.0], [-900.0, 0.0], [2.0, 0.0]], dtype=torch.float64)

        class Sum:
            def path(self, x: Any, cotangent: torch.Tensor) -> torch.Tensor:
                return cotangent.sum((0, -1))

            def score(self, x: Any, weight: torch.Tensor) -> torch.Tensor:
                return weight.sum(0)

        known = (Sum(), None, log_w) if gradient == "score" else (Sum(), None, log_w, torch.ones(3, 2, 1).double())
        assert combine(*known).isfinite().all()


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [
        *[(make(gradient="score"), ImportanceWeighted(4)) for make in (miwae, piwae, ciwae)],
        (jvi(gradient="score"), LogMarginal()),
        (sumo(16), LogMarginal()),
        (mlmc_log_evidence(), LogMarginal()),
        (tvo(), Thermodynamic()),
        (iwae_score(), Renyi(3.0, 4)),
        (vimco(), Renyi(-2.0, 4)),
    ],
    ids=lambda one: title(one) if isinstance(one, Estimator) else one.name,
)
def test_extreme_logits_and_a_single_bit(
    estimator: Estimator, objective: Objective, small: Callable[[str], Problem]
) -> None:
    """No NaN, in either precision, where every draw is the same and where they are not."""
    bits = replace(small("bits"), objective=objective)
    one = replace(bernoulli_toy(dim=1), objective=objective)
    for problem in (bits, one):
        for scale in (1.0, 30.0):
            theta = scale * problem.theta.sign()
            for dtype in ("float64", "float32"):
                g = gradients(prepare(estimator, replace(problem, theta=theta), dtype=dtype), range(128))
                assert g.isfinite().all()


def test_a_jackknife_of_all_samples_is_seen(agreement: Callable[..., Any]) -> None:
    """K L_K - (K - 1) L_K: the bound, not its jackknife."""
    problem = evidence()
    mean = 3 * of_bound(problem, 3) - 2 * of_bound(problem, 2)
    wrong = replace(iwae_pathwise(), points=jvi(3).points, claims=jvi(3).claims)
    found = agreement(wrong, replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    why = mismatch(piwae(2), gaussian(3))
    assert why == "piwae puts its samples in 2 groups: the bound's 3 do not divide"
    assert mismatch(miwae(), mixture(samples=2)) == "miwae is for normal or gamma variables; mixture's are categorical"
    for make, sentence in [
        (lambda: jvi(1), r"jvi\[samples=1\]: samples must be at least 2"),
        (lambda: ciwae(1.5), r"ciwae\[beta=1.5\]: beta goes from 0 to 1"),
        (lambda: miwae(0), r"miwae\[groups=0\]: groups must be at least 1"),
        (lambda: piwae(2, "total"), r"piwae\[gradient=total\]: gradient is pathwise, dreg or score"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            make()
