"""Which files a number depends on: imports followed as text, registries left out, plug-ins and data files included."""

from __future__ import annotations

import pytest

import estimators
import problems
from bench import sources
from bench.plan import files_of
from bench.plugins import catalogue


def titles(module, home=None):
    return set(sources.closure([module], home))


def test_an_estimator_depends_on_what_it_imports_and_on_no_other_estimator():
    found = titles("estimators.disarm")
    assert {"estimators/disarm.py", "estimators/base.py", "problems/base.py", "problems/families/base.py"} <= found
    assert not {"estimators/score_function.py", "estimators/__init__.py", "problems/__init__.py"} & found


def test_an_import_inside_a_function_counts():
    assert "problems/reference.py" in titles("problems.truth")  # imported in the body of true_gradient


def test_an_import_for_type_checkers_does_not(tmp_path):
    (tmp_path / "lean.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import aside\nelse:\n    import meant\n"
    )
    for name in ("aside", "meant"):
        (tmp_path / f"{name}.py").write_text("")
    assert titles(tmp_path / "lean.py", tmp_path) == {"lean.py", "meant.py"}


def test_a_module_named_in_a_text_counts(tmp_path):
    (tmp_path / "mine.py").write_text("KERNEL = 'lanes:mine'\nNOT = 'a text: with lanes:in it'\n")
    (tmp_path / "lanes.py").write_text("")
    assert titles(tmp_path / "mine.py", tmp_path) == {"mine.py", "lanes.py"}


def test_who_runs_kernels_belongs_to_members_that_have_one():
    members = catalogue()
    with_kernel, without = (set(files_of(members.estimators[name])) for name in ("disarm", "spsa"))
    assert {"bench/kernels.py", "estimators/kernels/antithetic.py", "estimators/kernels/cpu.py"} <= with_kernel
    assert not any("kernels" in title for title in without)


def test_the_harness_is_what_makes_numbers_not_what_reads_them():
    found = set(sources.harness())
    assert {"bench/evaluate.py", "bench/measure.py", "bench/moments.py", "estimators/noise.py"} <= found
    assert not {"bench/statistics.py", "bench/measurement.py", "bench/cli.py", "bench/store.py"} & found


def test_a_name_from_a_registry_stands_for_its_module(tmp_path):
    (tmp_path / "mine.py").write_text("from problems import Bernoulli, Problem\nfrom estimators import Estimator\n")
    found = titles(tmp_path / "mine.py", tmp_path)
    assert {"mine.py", "problems/families/bernoulli.py", "problems/base.py", "estimators/base.py"} <= found
    assert not {"problems/__init__.py", "estimators/__init__.py", "problems/families/gamma.py"} & found


def test_siblings_packages_and_relative_imports_of_a_plug_in(tmp_path):
    (tmp_path / "mine.py").write_text("import helper\nfrom kit import tool\nimport numpy\n")
    (tmp_path / "helper.py").write_text("from os import path\n")
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "__init__.py").write_text("")
    (kit / "tool.py").write_text("from . import nail\nfrom .nail import hit\n")
    (kit / "nail.py").write_text("")
    (kit / "unused.py").write_text("")
    assert titles(tmp_path / "mine.py", tmp_path) == {
        "mine.py",
        "helper.py",
        "kit/__init__.py",
        "kit/tool.py",
        "kit/nail.py",
    }


def test_a_digest_follows_the_content_and_not_the_place(tmp_path):
    file, other = tmp_path / "a.py", tmp_path / "b.py"
    file.write_text("x = 1\n")
    other.write_text("x = 1\n")
    before = sources.digest(file)
    assert before == sources.digest(other)
    file.write_text("x = 2  # longer\n")
    assert sources.digest(file) != before


def test_points_and_references_stored_for_a_problem_belong_to_it(tmp_path, monkeypatch):
    for folder in ("points", "references"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sbn.json").write_text("{}")
    monkeypatch.setattr(sources, "_root", lambda package: tmp_path)
    assert set(sources.data_files("sbn")) == {"problems/points/sbn.json", "problems/references/sbn.json"}
    assert not sources.data_files("quadratic")


def test_every_registered_member_has_its_own_file_in_its_closure():
    members = catalogue()
    for kind, registry in (("problem", problems.PROBLEMS), ("estimator", estimators.ESTIMATORS)):
        for name in registry:
            module, _ = registry.place(name)
            assert f"{module.replace('.', '/')}.py" in files_of(members.of(kind)[name])


def test_an_edit_of_one_estimator_changes_the_digests_of_its_cells_alone(tmp_path, monkeypatch):
    names = ("rloo", "reinforce", "disarm")
    members = catalogue()
    before = {name: sources.digests(files_of(members.estimators[name])) for name in names}
    monkeypatch.setattr(sources, "digest", lambda file: "edited" if file.name == "disarm.py" else "as before")
    now = {name: sources.digests(files_of(members.estimators[name])) for name in names}
    assert [name for name in names if "edited" in now[name].values()] == ["disarm"]
    assert all(set(before[name]) == set(now[name]) for name in names)


@pytest.mark.parametrize("module", ["torch", "nothing.there", "problems.nothing"])
def test_what_is_not_ours_or_not_there_is_left_out(module):
    assert sources.closure([module]) == {}
