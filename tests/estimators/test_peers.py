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
from estimators.base import claim_of, mismatch
from estimators.peers import PEERS, library
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.families.bernoulli import Bernoulli
from problems.gamma_cost import gamma_cost
from problems.gaussian_cost import gaussian_cost
from problems.poisson_cost import poisson_cost
from problems.quadratic import quadratic
from problems.truth import true_gradient

INSTALLED = [name for name in PEERS if find_spec(library(name))]
PROBLEMS = [
    bernoulli_toy(dim=3).at("mid"),
    quadratic(family="categorical", dim=2, categories=3),
    gaussian_cost(dim=2),
    gamma_cost(),
    poisson_cost(dim=2),
]


@pytest.mark.parametrize("name", INSTALLED)
def test_it_passes_the_public_suite(name: str) -> None:
    """Holm at 1e-4 over its pairs."""
    findings = check(PEERS[name](), [p for p in PROBLEMS if mismatch(PEERS[name](), p) is None], level=1e-4)
    assert findings
    assert failures(findings) == []


def measured(name: str, problem: Problem, replicates: int = 32_768) -> tuple[torch.Tensor, Count]:
    count = Count()
    return gradients(prepare(PEERS[name](), problem), range(replicates), count=count), count


PATHWISE = [n for n in INSTALLED if "score" not in n and "measure" not in n]


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


@pytest.mark.parametrize("name", [n for n in INSTALLED if "bernoulli" in (PEERS[n]().family or ())])
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
