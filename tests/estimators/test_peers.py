"""Estimators of other libraries: those that are installed (the extra `peers`) pass the public suite, and are what they say.

torch's own is always there.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from bench.conformance import check, failures
from bench.errors import Refusal
from bench.evaluate import Count, gradients, prepare
from bench.plugins import Entry, catalogue
from bench.selector import choose
from estimators import ESTIMATORS
from estimators.base import claim_of, mismatch
from estimators.peers import PEERS, library
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.families.bernoulli import Bernoulli
from problems.gamma_cost import gamma_cost
from problems.gaussian_cost import gaussian_cost
from problems.objectives import ImportanceWeighted, InclusiveKL, Objective
from problems.poisson_cost import poisson_cost
from problems.quadratic import quadratic
from problems.sorting_smooth import sorting_smooth
from problems.truth import true_gradient

INSTALLED = [name for name in PEERS if find_spec(library(name))]
BOUNDS = ("pyro_renyi_elbo", "pyro_reweighted_wake_sleep")
PLAIN = [name for name in INSTALLED if name not in BOUNDS]
PROBLEMS = [
    bernoulli_toy(dim=3).at("mid"),
    quadratic(family="categorical", dim=2, categories=3),
    gaussian_cost(dim=2),
    gamma_cost(),
    poisson_cost(dim=2),
]


@pytest.mark.parametrize("name", PLAIN)
def test_it_passes_the_public_suite(name: str) -> None:
    """Holm at 1e-4 over its pairs."""
    findings = check(PEERS[name](), [p for p in PROBLEMS if mismatch(PEERS[name](), p) is None], level=1e-4)
    assert findings
    assert failures(findings) == []


def measured(name: str, problem: Problem, replicates: int = 32_768) -> tuple[torch.Tensor, Count]:
    count = Count()
    return gradients(prepare(PEERS[name](), problem), range(replicates), count=count), count


PATHWISE = [n for n in PLAIN if "score" not in n and "measure" not in n]


@pytest.mark.parametrize("name", PATHWISE)
def test_a_path_takes_one_evaluation_and_has_its_variance(name: str) -> None:
    """For (x - k)^2 at the standard Normal, V = 4 + Var(2 x (x - k)) = 4 + 8 + 4 k^2, within 5 standard errors of 3%."""
    theta = torch.zeros(2, 1, dtype=torch.float64)
    k = 0.5
    square = Problem(
        "square", gaussian_cost().family, theta, lambda x: ((x - k) ** 2).sum(-1), smooth=2, exact=lambda p: p.theta
    )
    g, count = measured(name, square)
    assert (count.f, count.gradient) == (len(g), len(g))
    assert float(g.var(0).sum()) == pytest.approx(4 + 8 + 4 * k**2, rel=0.15)


@pytest.mark.parametrize("name", [n for n in PLAIN if "bernoulli" in (PEERS[n]().family or ())])
def test_on_bits_it_is_the_score_function(name: str) -> None:
    """A gradient is f (x - p), so that it has two values."""
    theta = torch.tensor([0.4], dtype=torch.float64)
    f0, f1 = 0.3, 0.9
    g, count = measured(name, Problem("bit", Bernoulli, theta, lambda x: f0 + (f1 - f0) * x[..., 0]))
    p = float(theta.sigmoid())
    assert (count.f, count.gradient) == (len(g), 0)
    assert sorted({round(v, 12) for v in g.flatten().tolist()}) == [round(-f0 * p, 12), round(f1 * (1 - p), 12)]


@pytest.mark.parametrize("name", [n for n in INSTALLED if n == "numpyro_tracegraph_elbo"])
@pytest.mark.parametrize(("logit", "claim"), [(0.0, "biased"), (1e-6, "unbiased")])
def test_numpyro_is_wrong_at_a_logit_of_zero(name: str, logit: float, claim: str) -> None:
    """x = 0 has no score and x = 1 twice its own: the mean is that of f(1) p instead of (f(1) - f(0)) p (1 - p)."""
    problem = Problem("bit", Bernoulli, torch.tensor([logit], dtype=torch.float64), lambda x: 1 + x[..., 0])
    assert claim_of(PEERS[name](), problem) == claim
    g, _ = measured(name, problem)
    truth = true_gradient(problem)
    assert truth is not None
    off = abs(float(g.mean()) - float(truth.gradient)) / (float(g.std()) / len(g) ** 0.5)
    assert (off > 50) == (claim == "biased")
    if claim == "biased":
        assert sorted(set(g.flatten().tolist())) == [0.0, 2.0]


def bits(objective: Objective) -> Problem:
    theta = torch.tensor([0.3, -0.5], dtype=torch.float64)
    return Problem("bits", Bernoulli, theta, lambda x: (x @ torch.tensor([1.0, -0.7]).to(x) - 0.4) ** 3 - 1, objective)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of the means of two sets of gradients, in standard errors."""
    se = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    return float(((a.mean(0) - b.mean(0)) / se).abs().max())


@pytest.mark.parametrize("name", [n for n in INSTALLED if n == BOUNDS[0]])
def test_renyi_is_iwae_of_reparameterised_variables_and_nil_of_bits(name: str) -> None:
    """The score term of bits is that of the bound of infinitely many samples, which does not depend on q at alpha = 0."""

    def log_p(x: torch.Tensor) -> torch.Tensor:
        return -0.5 * (x**2 + (1.2 - x) ** 2).sum(-1)

    theta = torch.tensor([[0.3], [0.2]], dtype=torch.float64)
    normal = Problem("normal", gaussian_cost().family, theta, log_p, ImportanceWeighted(3), smooth=1)
    assert claim_of(PEERS[name](), normal) == "unbiased"
    g, _ = measured(name, normal)
    ours = gradients(prepare(ESTIMATORS["iwae_pathwise"](), normal), range(len(g)))
    assert apart(g, ours) < 4
    assert claim_of(PEERS[name](), bits(ImportanceWeighted(2))) == "biased"
    nil, count = measured(name, bits(ImportanceWeighted(2)))
    assert nil.abs().max() < 1e-12
    assert (count.f, count.gradient) == (2 * len(nil), 0)


@pytest.mark.parametrize("name", [n for n in INSTALLED if n == BOUNDS[1]])
def test_the_wake_phase_is_that_of_wake_phi(name: str) -> None:
    problem = bits(InclusiveKL())
    g, count = measured(name, problem, 2048)
    assert count.f == 5 * len(g)
    assert apart(g, gradients(prepare(ESTIMATORS["wake_phi"](samples=5), problem), range(len(g)))) < 4


@pytest.mark.parametrize("name", INSTALLED)
def test_a_path_is_refused_where_f_has_no_derivative(name: str) -> None:
    """The order of a sort is a step in every direction; an estimator that takes its derivative would be biased, or fail."""
    why = mismatch(PEERS[name](), sorting_smooth())
    if name in PATHWISE:
        assert why == f"{name} needs 1 derivative of f; sorting_smooth offers none"
    elif name not in BOUNDS:
        assert why is None


def test_what_is_not_installed_is_named_and_left_out_of_globs() -> None:
    def entry(lacks: str) -> Entry:
        return Entry(
            "x_y", "estimator", "built in", "", None, lambda: PEERS["torch_rsample"], lambda: ("", {}), "", lacks
        )

    with pytest.raises(Refusal, match=r"x_y needs x, which is not installed: pip install '\.\[peers\]'"):
        choose("x_y", {"x_y": entry("x")}, "estimator")
    assert [c.name for c in choose("*", {"a": entry("x"), "b": entry("")}, "estimator")] == ["b"]


def test_they_are_listed_whether_installed_or_not() -> None:
    entries = catalogue().estimators
    for name in PEERS:
        assert entries[name].group == "other libraries"
        assert bool(entries[name].lacks) == (name not in INSTALLED)
