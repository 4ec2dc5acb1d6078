"""References: right within the error they state, resumed to the bit, exact where the support can be summed, and checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import reference as making
from bench.evaluate import prepare
from estimators.base import Estimator, Noise
from estimators.disarm import disarm
from estimators.score_function import reinforce, rloo
from problems import reference as stored
from problems import truth as truths
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.objectives import Elbo
from problems.sbn import sbn
from problems.settings import settings_text

THETA = torch.tensor([-0.7, 0.1, 0.6, 1.2], dtype=torch.float64)
POOL = [reinforce(), rloo(4), disarm()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    monkeypatch.setattr(making, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(truths, "MOST_STATES", 1)  # what follows has an exact gradient, which it must do without
    return tmp_path


@pytest.fixture
def no_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MOST_STATES", 0)


def cubic(**other: Any) -> Problem:
    return Problem("cubic", Bernoulli, THETA, lambda x: (x.sum(-1) - 1.3) ** 3 + x[..., 0] * x[..., 2], Elbo(), **other)


def network() -> Problem:
    """195 weights of an encoder and 259 of a model; every replicate draws 2 of 4 rows."""
    return replace(sbn(hidden=3, data=4, batch=2), exact=None)


def make(problem: Problem, point: str = "init", **other: Any) -> dict[str, Any]:
    """The entry that make_reference stores."""
    settings: dict[str, Any] = {"max_seconds": 60, "report": lambda text: None, "candidates": POOL, **other}
    path = making.make_reference(problem, point, **settings)
    found: dict[str, Any] = json.loads(path.read_text())[stored.fingerprint(problem.at(point))]
    return found


def checkpoint(folder: Path) -> dict[str, np.ndarray]:
    (file,) = (folder / "checkpoints").glob("*.npz")
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.mark.usefixtures("no_enumeration")
def test_a_run_is_right_within_the_error_it_states() -> None:
    entry = make(cubic(), target=0.002)
    assert entry["relative_se"] <= 0.002
    assert entry["estimator"] != entry["check"]["estimator"]
    among = "".join(f' -e "{e.name}[{settings_text(e.settings)}]"' for e in POOL)
    assert entry["command"].endswith(f"--point init{among} --seed 1")
    found = stored.stored_reference(cubic())
    truth = truths.enumerated(cubic())
    assert found is not None
    assert found.tier == "reference"
    z = (found.gradient - truth.gradient) / found.se
    assert z.abs().max() < 4
    assert z.norm() > 0.3  # an error stated too large would hide anything
    assert {"command", "versions", "date", "seed", "replicates"} <= entry.keys()


@pytest.mark.usefixtures("no_enumeration")
def test_a_belief_network_s_run_agrees_with_its_enumeration() -> None:
    problem = network()
    entry = make(problem, replicates=4096, target=0.0)
    truth = truths.enumerated(problem)
    z = (np.array(entry["gradient"]) - truth.gradient.numpy()) / np.maximum(entry["se"], 1e-9)
    live = np.array(entry["se"]) > 1e-9
    assert np.abs(z[live]).max() < 5
    assert 0.3 < (z[live] ** 2).mean() < 2.2  # the numbers hang together: 0.42 to 1.45 over twelve seeds
    assert entry["problem"] == "sbn[batch=2,data=4,hidden=3,layers=1]"


def test_where_the_support_can_be_summed_the_reference_is_exact() -> None:
    problem = network()
    entry = make(problem)
    truth = truths.enumerated(problem)
    assert entry["estimator"] == "enumeration"
    assert entry["relative_se"] == 0
    np.testing.assert_allclose(entry["gradient"], truth.gradient.numpy(), rtol=1e-9)
    assert make(problem, max_seconds=0, replicates=64)["estimator"] != "enumeration"


def test_a_reference_that_nobody_would_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"sbn\[.*\] has an exact gradient"):
        make(sbn(hidden=3, data=4, batch=2))
    monkeypatch.setattr(truths, "MOST_STATES", 16)
    with pytest.raises(ValueError, match="cubic has an exact gradient"):
        make(cubic())


@pytest.mark.usefixtures("no_enumeration")
def test_an_interrupted_run_goes_on_to_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: dict[str, Any] = {"target": 0.0, "replicates": 20_000, "candidates": [rloo(4)]}
    whole = make(cubic(), checkpoints=tmp_path / "elsewhere", **wanted)
    with np.load(next((tmp_path / "elsewhere").glob("*.npz"))) as arrays:
        sums = dict(arrays)
    monkeypatch.setattr(making, "EVERY_SECONDS", 0.0)
    seen: list[str] = []

    def interrupt(text: str) -> None:
        seen.append(text)
        if sum("replicates, relative" in line for line in seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(cubic(), report=interrupt, **wanted)
    assert 0 < checkpoint(folder)["n"] < 20_000
    after: list[str] = []
    resumed = make(cubic(), report=after.append, **wanted)
    assert any("goes on after 8,192 replicates" in line for line in after)
    assert {k: resumed[k] for k in ("gradient", "se", "replicates")} == {
        k: whole[k] for k in ("gradient", "se", "replicates")
    }
    assert all(np.array_equal(sums[name], array) for name, array in checkpoint(folder).items())


@pytest.mark.usefixtures("no_enumeration")
def test_a_longer_time_goes_on_where_the_shorter_ended() -> None:
    first = make(cubic(), target=0.0, replicates=8192, candidates=[rloo(4)])
    second = make(cubic(), target=0.0, replicates=16_384, candidates=[rloo(4)])
    assert (first["replicates"], second["replicates"]) == (8192, 16_384)
    assert second["relative_se"] < first["relative_se"]


@pytest.mark.usefixtures("no_enumeration")
def test_sums_of_another_source_are_not_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    make(cubic(), target=0.0, replicates=8192, candidates=[rloo(4)])
    monkeypatch.setattr(making, "_sources", lambda problem, chosen: "another")
    said: list[str] = []
    make(cubic(), target=0.0, replicates=8192, candidates=[rloo(4)], report=said.append)
    assert not any("goes on" in line for line in said)


@pytest.mark.usefixtures("no_enumeration")
def test_a_target_that_is_not_reached_is_said() -> None:
    said: list[str] = []
    entry = make(cubic(), target=1e-9, replicates=4096, report=said.append)
    assert entry["relative_se"] > 1e-3
    assert "target of 0.00% is not reached: run it again to go on" in said[-1]


@pytest.mark.usefixtures("no_enumeration")
def test_a_false_claim_among_the_two_best_is_caught() -> None:
    honest = rloo(4)
    assert honest.combine is not None

    def shrunk(q: Any, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        g: torch.Tensor = honest.combine(q, x, fx)  # type: ignore[misc]
        return 0.8 * g

    liar = replace(honest, name="liar", combine=shrunk)
    with pytest.raises(ArithmeticError, match="one of them is biased"):
        make(cubic(), target=0.002, candidates=[honest, liar])


def test_the_least_variance_times_seconds_is_chosen_and_heavy_tails_are_not() -> None:
    def heavy(noise: torch.Tensor, q: Any, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        weight = (noise[1] ** -0.9)[..., 0]  # infinite variance, whatever the sample says
        g: torch.Tensor = q.score(x, 1e-9 * weight * fx)
        return g

    tailed = Estimator(
        "tailed", 1, lambda q, noise: q.sample(noise[0][None]), heavy, noise=[Noise("uniform"), Noise("uniform")]
    )
    biased = replace(rloo(2), name="biased", claims={"Elbo": "biased"})
    said: list[str] = []
    best, second = making.choose(cubic(), [tailed, biased, reinforce(), rloo(8), rloo(2)], 0, said.append)
    assert best.name == "rloo"
    assert second.name == "reinforce"
    assert any("tailed" in line and "left out for its heavy tail" in line for line in said)
    assert not any("biased" in line for line in said)
    with pytest.raises(ValueError, match="cubic has no unbiased estimator without a heavy tail"):
        making.choose(cubic(), [tailed, biased], 0, said.append)


@pytest.mark.usefixtures("no_enumeration")
def test_the_noise_is_not_that_of_measured_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    original = making.prepare

    def watched(*arguments: Any) -> Any:
        trial = original(*arguments)
        keys.append(trial.key)
        return trial

    monkeypatch.setattr(making, "prepare", watched)
    make(cubic(), replicates=4096, seed=5)
    assert len(set(keys)) == 3  # the choice, the run and the check
    assert prepare(rloo(4), cubic(), 5, "init").key not in keys
