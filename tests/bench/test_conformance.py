"""Every registered estimator passes the public suite on every problem it fits; mistakes are named in words."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module

import pytest
import torch

from bench.conformance import check, failures
from bench.evaluate import prepare
from bench.measure import chunk_of
from bench.plugins import catalogue
from bench.selector import choose
from bench.suite import read_suite
from estimators import ESTIMATORS
from estimators.base import Claim, Estimator, mismatch
from estimators.disarm import disarm
from estimators.score_function import rloo
from problems import PROBLEMS
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.truth import true_gradient


@cache
def problems() -> tuple[Problem, ...]:
    """Those of the conformance suite: every registered problem, small."""
    members = catalogue([]).problems
    texts = [text for table in read_suite("conformance").cells for text in table.problems]
    return tuple(members[c.name].build(c.settings) for text in texts for c in choose(text, members, "problem"))


VARIANTS = [
    "disarm[samples=4]",
    "arm[samples=4]",
    "reinforce[samples=3,baseline=0.3]",
    "rebar[steps=3]",
    "vimco[mean=arithmetic]",
    "unordered_set[samples=3]",
    "reinmax[temperature=1.3]",
]


@pytest.mark.parametrize("text", [*ESTIMATORS, *VARIANTS])
def test_every_estimator_conforms_on_every_problem_it_fits(text: str) -> None:
    """Holm at 1e-4 over the pairs of an estimator: under 1% for all of them together."""
    members = catalogue([]).estimators
    (chosen,) = choose(text, members, "estimator")
    findings = check(members[chosen.name].build(chosen.settings), problems(), level=1e-4)
    assert failures(findings) == []
    assert findings, f"{text} fits no problem"


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_every_problem_has_estimators(name: str) -> None:
    mine = [p for p in problems() if p.name == name]
    assert mine, f"{name} is not in the conformance suite"
    fits = {e for e in ESTIMATORS for p in mine if mismatch(ESTIMATORS[e](), p) is None}
    assert len(fits) >= 3


def sentences(estimator: Estimator) -> str:
    return "\n".join(failures(check(estimator, [bernoulli_toy(dim=3)], replicates=65_536)))


def test_a_bias_is_named() -> None:
    wrong = replace(disarm(), combine=lambda theta, x, fx: 1.3 * disarm().combine(theta, x, fx))  # type: ignore[misc]
    found = sentences(wrong)
    assert "unbiased as claimed [bernoulli_toy[dim=3,target=0.45,form=mean] at init]" in found
    assert "claims to be unbiased, but over 65,536 replicates its mean is off by" in found


@pytest.mark.parametrize(("target", "passes"), [(0.5, True), (0.55, False)])
def test_a_biased_estimator_is_held_to_the_target_of_its_claim(target: float, passes: bool) -> None:
    """Half of RLOO, claimed to be half of the gradient, and a little more than half."""
    claim = Claim("biased", target=lambda p: target * true_gradient(p).gradient, of="a part of it")  # type: ignore[union-attr]
    half = replace(rloo(2), combine=lambda q, x, fx: 0.5 * rloo(2).combine(q, x, fx), claims={"Expectation": claim})  # type: ignore[misc]
    found = sentences(half)
    assert (found == "") == passes
    assert passes or "it claims to be unbiased for a part of it, but over 65,536 replicates" in found


def test_a_claim_without_its_words_is_refused() -> None:
    with pytest.raises(ValueError, match="its claim for Elbo has a condition or a target without its words"):
        replace(rloo(2), claims={"Elbo": Claim("biased", target=lambda p: p.theta)})


def test_no_more_than_a_chunk_is_evaluated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the arrays of 64 replicates would not fit, none of the checks asks for so many."""
    monkeypatch.setattr(import_module("bench.measure"), "MOST_ELEMENTS", 150)
    toy = bernoulli_toy(dim=5)
    chunk, seen = chunk_of(prepare(rloo(2), toy)), []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[1])
        return toy.f(x)

    findings = check(rloo(2), [replace(toy, f=watched, scalar_f=None)], replicates=64)
    assert failures(findings) == []
    assert chunk == max(seen) == 4


def test_hidden_state_is_named() -> None:
    calls = [0.0]

    def drifting(q: object, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return rloo(2).combine(q, x, fx) + 0 * calls[0] + 1e-3 * calls[0]  # type: ignore[misc]

    assert "the same call gave other numbers" in sentences(replace(rloo(2), combine=drifting))


def test_replicates_that_depend_on_each_other_are_named() -> None:
    def centred(q: object, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        return q.score(x, (fx - fx.mean()) / 2)  # type: ignore[attr-defined]

    assert "depends on the others in its block" in sentences(replace(rloo(2), combine=centred))


def test_a_change_of_theta_in_place_is_named() -> None:
    def careless(theta: torch.Tensor, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        theta += 0.0
        theta[0] += 1e-3
        return disarm().combine(theta, x, fx)  # type: ignore[misc]

    assert "changes theta, the model, the data or its learned state in place" in sentences(
        replace(disarm(), combine=careless)
    )


def test_what_is_not_finite_is_named() -> None:
    def logs(theta: torch.Tensor, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        return disarm().combine(theta, x, fx).log()  # type: ignore[misc]

    assert "gradients are not finite" in sentences(replace(disarm(), combine=logs))


def test_float64_constants_are_named() -> None:
    def heavy(theta: torch.Tensor, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        return disarm().combine(theta, x, fx) * torch.ones(3, dtype=torch.float64)  # type: ignore[misc]

    assert "combine gave a gradient in float64 on cpu; this is measured in float32" in sentences(
        replace(disarm(), combine=heavy)
    )


def test_an_error_is_a_finding_not_a_traceback() -> None:
    def broken(theta: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such thing")

    assert "it raised RuntimeError: no such thing" in sentences(replace(disarm(), combine=broken))
    assert "asks for 'noyse'" in sentences(replace(disarm(), draw=lambda theta, noyse: theta))
