"""The stored references: each is found by the problem it is of, says what made it, and fresh runs of other estimators agree."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.measure import observe
from bench.measurement import bias_test
from bench.plugins import catalogue
from bench.reference import registered
from bench.selector import choose
from bench.statistics import holm
from estimators import ESTIMATORS
from estimators.base import Estimator, claim_of, mismatch
from problems.base import Problem
from problems.reference import FOLDER, fingerprint, read_references
from problems.truth import true_gradient

TARGET = 0.005
SEED = 11
ENTRIES = 2**21  # of the gradients of a check: fewer replicates where one gradient is long
MOST_REPLICATES = 16_384
PREFERRED = ("pathwise", "rloo", "dreg", "vimco", "reinforce", "disarm", "minibatch")
STORED = [
    pytest.param(file.stem, key, entry, id=f"{entry['problem']} at {entry['point']}")
    for file in sorted(FOLDER.glob("*.json"))
    for key, entry in sorted(read_references(file.stem).items())
]


def built(text: str) -> Problem:
    """The problem that an entry names."""
    members = catalogue([]).problems
    (chosen,) = choose(text, members, "problem")
    return members[chosen.name].build(chosen.settings)


@pytest.mark.parametrize(("name", "key", "entry"), STORED)
def test_an_entry_is_of_a_problem_as_it_is_now(name: str, key: str, entry: dict[str, Any]) -> None:
    """A reference whose point or settings are no longer the problem's would never be read."""
    problem = built(entry["problem"]).at(entry["point"])
    assert problem.name == name
    assert fingerprint(problem) == key
    found = true_gradient(problem)
    assert found.tier == "reference"
    assert found.gradient.tolist() == entry["gradient"]
    assert len(entry["gradient"]) == len(entry["se"]) == problem.dim


@pytest.mark.parametrize(("name", "key", "entry"), STORED)
def test_an_entry_says_what_made_it_and_how_well_it_is_known(name: str, key: str, entry: dict[str, Any]) -> None:
    assert entry["command"].startswith(f'python -m bench reference "{entry["problem"]}" --point {entry["point"]}')
    assert {"seed", "versions", "date", "replicates", "estimator"} <= set(entry)
    error, norm = math.hypot(*entry["se"]), math.hypot(*entry["gradient"])
    assert entry["relative_se"] == pytest.approx(error / norm, rel=1e-3)
    if entry["estimator"] == "enumeration":
        assert error == 0
        return
    assert entry["check"]["distance"] < 4
    assert entry["check"]["estimator"].split("[")[0] != entry["estimator"].split("[")[0]


def two_others(problem: Problem, than: str) -> list[Estimator]:
    """Two unbiased estimators of other names than the one that made the reference; the most usual that fit."""
    usual = sorted(registered(), key=lambda e: PREFERRED.index(e.name) if e.name in PREFERRED else len(ESTIMATORS))
    fit = {
        e.name: e
        for e in reversed(usual)
        if e.name != than and mismatch(e, problem) is None and claim_of(e, problem) == "unbiased" and e.learning is None
    }
    return list(fit.values())[-2:]


@pytest.mark.parametrize("name", sorted({file.stem for file in FOLDER.glob("*.json")}))
def test_two_unbiased_estimators_agree_with_every_reference(name: str) -> None:
    """Holm at 1e-4 over all of a problem's references; and they see it where a reference is a fifth too long."""
    p, longer = [], []
    for entry in read_references(name).values():
        problem = built(entry["problem"]).at(entry["point"])
        truth = true_gradient(problem)
        assert truth is not None
        n = min(MOST_REPLICATES, ENTRIES // problem.dim)
        others = two_others(problem, entry["estimator"].split("[")[0])
        assert len(others) == 2
        for estimator in others:
            outcome = observe(estimator, problem, replicates=n, seed=SEED, backend="torch", subsampling=False)
            p.append(bias_test(outcome))
            longer.append(bias_test(replace(outcome, truth=1.2 * outcome.truth)))
    assert not holm(np.array(p), 1e-4).rejected.any()
    assert holm(np.array(longer), 1e-4).rejected.any()
