"""`bench doctor`: what this machine is, and the ceilings that its kernels are held against."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import ceilings, doctor
from bench.cli import cli
from bench.evaluate import prepare
from estimators import ESTIMATORS
from estimators.kernels import cache
from problems import PROBLEMS


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One kernel, one round of few fills, in a cache of its own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "_loaded", {})
    monkeypatch.setattr(doctor, "KERNELS", (("reinforce", {}, "bernoulli_toy", {"dim": 6}),))
    monkeypatch.setattr(doctor, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(ceilings, "ROUNDS", 1)
    monkeypatch.setattr(ceilings, "FILLS", 2)


def test_the_command_gives_the_same_as_json_and_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.examine(rounds=9)
    monkeypatch.setattr(doctor, "examine", lambda: found)
    shown = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).output)
    assert shown["cache"]["kernels"] == 4  # three fillers and a kernel
    assert 0 < shown["cache"]["bytes"] < shown["cache"]["limit"]
    assert shown["ceilings"]["words"] > 0
    assert set(shown["ceilings"]["normals"]) == {"float64", "float32"}
    (kernel,) = shown["kernels"]
    assert kernel["share"] == pytest.approx(6 * kernel["rate"] / shown["ceilings"]["words"])
    console = Console(width=200)
    with console.capture() as text:
        console.print(doctor.table(found))
    for part in (
        "reinforce on bernoulli_toy [dim=6]",
        "of what its random numbers allow",
        "noise floor",
        "GPU",
        "torch",
    ):
        assert part in text.get()


def test_a_buffer_is_filled_with_what_its_name_says() -> None:
    for kind, dtype in (("words", "float64"), ("normals", "float64"), ("normals", "float32")):
        out = ceilings.filled_once(kind, dtype)
        if kind == "words":
            assert out.dtype == np.uint32
            assert len(set(out.tolist())) == len(out)
        else:
            assert out.dtype == dtype
            assert abs(out.mean()) < 5 / len(out) ** 0.5
            assert 0.6 < out.std() < 1.4


@pytest.mark.parametrize(
    ("estimator", "settings", "problem", "where", "read"),
    [
        ("rloo", {"samples": 4}, "bernoulli_toy", {"dim": 200}, (800, 0)),
        ("disarm", {}, "bernoulli_toy", {"dim": 6}, (6, 0)),
        ("measure_valued_normal", {}, "gaussian_cost", {}, (2, 4)),
        ("vimco", {}, "linear_gaussian", {"dim": 3, "samples": 5, "data": 4}, (0, 60)),
    ],
)
def test_numbers_of_a_replicate(
    estimator: str, settings: dict, problem: str, where: dict, read: tuple[int, int]
) -> None:
    trial = prepare(ESTIMATORS[estimator](**settings), PROBLEMS[problem](**where))
    assert ceilings.numbers_read(trial) == ceilings.Reads(*read)
