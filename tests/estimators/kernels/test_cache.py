"""The disk cache: hit by a second process, keyed by content, bounded, and safe when two processes race."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from estimators.kernels import cache, cpu
from estimators.kernels.base import Form
from estimators.kernels.lift import Opaque, digest
from estimators.kernels.tables import pair_and_tables
from problems import PROBLEMS

PROGRAM = """
import json, time
from bench.evaluate import prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from problems import PROBLEMS
kernel = lazy_kernel_for(prepare(ESTIMATORS["reinforce"](), PROBLEMS["bernoulli_toy"](dim=2)))
started = time.perf_counter()
first = kernel.gradients(range(1))
seconds = time.perf_counter() - started
hits = sum(kernel.functions.gradients.stats.cache_hits.values())
print(json.dumps([hits, seconds, first.ravel().tolist()]))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    known = {**os.environ, cache.VARIABLE: str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, float, list[float]]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    hits, seconds, gradient = json.loads(out)
    return hits, seconds, gradient


def test_two_processes_race_a_third_compiles_nothing_and_what_is_gone_is_compiled_again(tmp_path: Path) -> None:
    racing = [start(tmp_path), start(tmp_path)]
    first, second = (finish(process) for process in racing)
    third = finish(start(tmp_path))
    assert first[2] == second[2] == third[2]
    assert third[0] == 1
    assert third[1] < min(first[1], second[1]) / 2, "a hit is a fraction of a compilation, in the same run"
    assert len(list(tmp_path.glob("kernel_*"))) == 1
    assert not list(tmp_path.rglob("*.tmp*"))
    for file in tmp_path.rglob("*.nbc"):
        file.unlink()
    assert finish(start(tmp_path))[::2] == (0, third[2])


def identity(target: float = 0.45, **settings: int) -> str | None:
    problem = PROBLEMS["bernoulli_toy"](target=target)
    pair, _ = pair_and_tables(ESTIMATORS["rloo"](**settings), problem, None, "float64")
    return cpu.identity(pair, True)


def test_content_is_the_name() -> None:
    assert identity(samples=2) == identity(samples=2)
    assert len({identity(samples=2), identity(samples=3), identity(0.46, samples=2)}) == 3


def test_what_f_refers_to_is_part_of_it() -> None:
    a, b = np.array([1.0, 2.0]), np.array([1.0, 2.5])

    def closing_over(values: object) -> str:
        def f(x: object) -> object:
            return values

        return digest(f)

    assert closing_over(a) == closing_over(a.copy()) != closing_over(b)
    assert closing_over(2.0) != closing_over(2)
    with pytest.raises(Opaque, match="numbers, arrays, plain functions"):
        closing_over(object())


def test_what_a_digest_cannot_look_into_is_opaque() -> None:
    """Its name alone would stand for any content."""

    class Constants:
        target = 0.45

    def of_class(x: object) -> object:
        return Constants.target

    def of_module(x: object) -> object:
        return json.dumps

    look_up = {"target": 0.45}.get

    def of_method(x: object) -> object:
        return look_up("target")

    for f in (of_class, of_module, of_method):
        with pytest.raises(Opaque):
            digest(f)


def test_defaults_that_have_names_are_part_of_f() -> None:
    def with_default(value: float) -> str:
        def f(x: object, *, target: float = value) -> object:
            return target

        return digest(f)

    assert with_default(0.45) == with_default(0.45) != with_default(0.46)


def test_a_form_from_elsewhere_is_part_of_the_name() -> None:
    """Files of this package alone are in `sources`."""
    here = pair_and_tables(ESTIMATORS["rloo"](samples=2), PROBLEMS["bernoulli_toy"](), None, "float64")[0]
    names = {cpu.identity(replace(here, estimator=f"{__name__}:{name}"), True) for name in ("one_form", "other_form")}
    assert len(names - {None}) == 2


def one_form(samples: int) -> Form:
    return Form(samples, 2, lambda at: at.f)


def other_form(samples: int) -> Form:
    return Form(samples, 3, lambda at: at.f)


def test_a_learned_state_that_is_missing_is_refused() -> None:
    estimator = ESTIMATORS["optimal_baseline"]()
    with pytest.raises(ValueError, match="optimal_baseline reads a learned state, and none was given"):
        cpu.kernel(estimator, PROBLEMS["bernoulli_toy"](), None, 0, 0)


def test_library_versions_and_sources_are_part_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = cache._hash("text", "identity")
    monkeypatch.setattr(cache, "version", lambda package: "0")
    assert cache._hash("text", "identity") != name
    before = identity(samples=2)
    monkeypatch.setattr(cpu, "sources", lambda: "changed")
    assert identity(samples=2) != before


def test_an_unwritable_folder_compiles_without_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(file))
    monkeypatch.setattr(cache, "_loaded", {})
    from bench.evaluate import prepare

    kernel = lazy_kernel_for(prepare(ESTIMATORS["reinforce"](), PROBLEMS["bernoulli_toy"](dim=1)))
    assert kernel is not None
    assert kernel.gradients(range(2)).shape == (2, 1)


def entry(home: Path, name: str, age: float) -> Path:
    folder = home / f"kernel_{name}"
    folder.mkdir()
    (folder / "code").write_bytes(bytes(1000))
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def test_the_folders_used_longest_ago_go_first(tmp_path: Path) -> None:
    old, middle, recent = entry(tmp_path, "a", 300), entry(tmp_path, "b", 200), entry(tmp_path, "c", 1)
    cache.trim(tmp_path, limit=2000, kept=100)
    assert not old.exists()
    assert middle.exists()
    cache.trim(tmp_path, limit=0, kept=100)
    assert not middle.exists()
    assert recent.exists()


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    assert Path(cpu.__file__).parents[2] not in cache.directory().parents
    monkeypatch.setenv(cache.VARIABLE, "/somewhere")
    assert cache.directory() == Path("/somewhere")
