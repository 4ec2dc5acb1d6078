"""Stored points come back as they were written; init is the factory's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from problems import PROBLEMS, points
from problems.base import Point
from problems.points import read_points, stored_points, write_points
from problems.reference import fingerprint

RECORD = {
    "command": "bench points toy",
    "estimator": "rloo",
    "steps": 3,
    "seed": 0,
    "versions": {},
    "date": "2025-01-01",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(points, "FOLDER", tmp_path)
    return tmp_path


def point(scale: float, model: bool = True) -> Point:
    g = torch.Generator().manual_seed(int(scale * 10))
    theta = scale * torch.randn(2, 3, generator=g, dtype=torch.float64)
    return Point(theta, torch.randn(4, generator=g, dtype=torch.float64) if model else None)


def test_nothing_stored_gives_init_alone(folder: Path) -> None:
    init = point(1.0)
    found = stored_points("toy", {"a": 1}, init)
    assert list(found) == ["init"]
    assert found["init"] is init


@pytest.mark.parametrize("model", [True, False])
def test_points_come_back_to_eight_digits_and_in_order(folder: Path, model: bool) -> None:
    init, mid, converged = point(1.0, model), point(2.0, model), point(3.0, model)
    records = dict.fromkeys(["init", "mid", "converged"], RECORD)
    write_points("toy", {"a": 1}, {"init": init, "mid": mid, "converged": converged}, records)
    assert list(read_points("toy")["a=1"]) == ["mid", "converged"]
    found = stored_points("toy", {"a": 1}, init)
    assert list(found) == ["init", "mid", "converged"]
    assert found["init"] is init
    for name, there in (("mid", mid), ("converged", converged)):
        torch.testing.assert_close(found[name].theta, there.theta, rtol=5e-8, atol=0)
        assert (found[name].model is None) == (there.model is None)
        assert found[name].theta.dtype == torch.float64
        assert read_points("toy")["a=1"][name]["record"] == RECORD


def test_writing_again_what_was_read_changes_nothing(folder: Path) -> None:
    """Rounding is idempotent, so that the truth is evaluated at exactly the stored numbers."""
    path = write_points("toy", {}, {"mid": point(2.0)}, {"mid": RECORD})
    before = path.read_text()
    write_points("toy", {}, {"mid": stored_points("toy", {}, point(1.0))["mid"]}, {"mid": RECORD})
    assert path.read_text() == before


def test_settings_are_kept_apart_and_only_ones_own_are_replaced(folder: Path) -> None:
    for a in (1, 2):
        write_points("toy", {"a": a}, {"mid": point(a), "old": point(a)}, {"mid": RECORD, "old": RECORD})
    write_points("toy", {"a": 1}, {"mid": point(5.0)}, {"mid": RECORD})
    assert {text: list(found) for text, found in read_points("toy").items()} == {"a=1": ["mid"], "a=2": ["mid", "old"]}
    assert stored_points("toy", {"a": 3}, point(1.0)).keys() == {"init"}


def test_a_point_of_another_shape_is_refused(folder: Path) -> None:
    write_points("toy", {}, {"mid": Point(torch.zeros(3))}, {"mid": RECORD})
    with pytest.raises(ValueError, match=r"point 'mid' of no settings has theta and model of shape \(3,\) and None"):
        stored_points("toy", {}, Point(torch.zeros(4)))


def test_every_stored_file_belongs_to_a_problem_and_names_its_origin() -> None:
    for path in points.FOLDER.glob("*.json"):
        assert path.stem in PROBLEMS
        assert path.stat().st_size < 2_000_000
        for stored in json.loads(path.read_text()).values():
            for entry in stored.values():
                assert {"command", "estimator", "steps", "seed", "versions", "date"} <= entry["record"].keys()


@pytest.mark.parametrize("name", ["sbn", "gaussian_vae", "bayes_logreg", "dropout_bnn", "stochastic_mlp"])
def test_a_point_and_its_reference_are_the_same_whatever_the_batch(name):
    """The gradient is that of all data, however few rows a replicate draws."""
    problem, whole = PROBLEMS[name](), PROBLEMS[name](batch=0)
    other = PROBLEMS[name](batch=3)
    assert list(problem.points) == list(whole.points) == list(other.points) == ["init", "mid", "converged"]
    assert torch.equal(whole.at("mid").theta, other.at("mid").theta)
    assert fingerprint(whole.at("mid")) == fingerprint(other.at("mid"))
