"""Suites: strictly validated, with the path to the key, and never a traceback."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import Refusal
from bench.plan import Options, make_plan
from bench.plugins import catalogue
from bench.suite import Suite, names, narrowed, parse_suite, read_suite
from problems import PROBLEMS

PLAIN = """
name = "mine"
[[cells]]
problems = ["bernoulli_toy"]
estimators = ["rloo"]
"""


def test_the_built_in_suites_are_valid():
    assert {"smoke", "standard", "full"} <= set(names())
    for name in names():
        assert read_suite(name).name == name


def test_defaults():
    suite = parse_suite(PLAIN, "mine.toml")
    assert (suite.replicates, suite.seed, suite.cells[0].points, suite.cells[0].dtype) == (65_536, 0, "*", "float64")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("estimators", "estimator"),
            "mine.toml: cells[0].estimator: there is no such key; did you mean 'estimators'?",
        ),
        (('name = "mine"', 'name = "mine"\nseeds = 1'), "mine.toml: seeds: there is no such key; did you mean 'seed'?"),
        (('name = "mine"', ""), "mine.toml: name: this key is missing"),
        (('name = "mine"', 'name = "mine"\nreplicates = "many"'), "mine.toml: replicates: expected int, got str"),
        (('name = "mine"', 'name = "mine"\nreplicates = 3'), "mine.toml: replicates: expected int >= 64 (it is 3)"),
        (('["rloo"]', '["rloo", 3]'), "mine.toml: cells[0].estimators[1]: expected str, got int (it is 3)"),
        (('["rloo"]', '"rloo"'), "mine.toml: cells[0].estimators: expected array, got str (it is 'rloo')"),
        (('["rloo"]', "[]"), "mine.toml: cells[0].estimators: expected array of length >= 1"),
        (('["rloo"]', '["rloo"]\ndtype = "float16"'), "mine.toml: cells[0].dtype: invalid enum value"),
        (('["rloo"]', '["rloo"]\nreplicates = true'), "mine.toml: cells[0].replicates: expected int | null, got bool"),
        (("[[cells]]", "[[cells"), "mine.toml: not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(change, said):
    with pytest.raises(Refusal) as refusal:
        parse_suite(PLAIN.replace(*change), "mine.toml")
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)


def test_a_suite_that_is_not_there(tmp_path):
    with pytest.raises(Refusal, match="there is no suite 'smok'; did you mean 'smoke'"):
        read_suite("smok")
    with pytest.raises(Refusal, match=r"there is no file .*mine\.toml"):
        read_suite(str(tmp_path / "mine.toml"))
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match=r"bad\.toml: "):
        read_suite(str(tmp_path / "bad.toml"))


def test_a_file_of_your_own(tmp_path):
    (tmp_path / "mine.toml").write_text(PLAIN)
    assert read_suite(str(tmp_path / "mine.toml")) == parse_suite(PLAIN, "mine.toml")


def test_selectors_replace_the_cells_and_keep_the_rest():
    suite = parse_suite(PLAIN + "replicates = 128\n", "mine.toml")
    assert narrowed(suite, [], []) == suite
    (table,) = narrowed(suite, [], ["arm"]).cells
    assert (table.problems, table.estimators, table.replicates) == (["*"], ["arm"], None)


keys = st.sampled_from(["name", "replicates", "seed", "rounds", "description", "cells", "problems", "points", "x y"])
values = st.recursive(
    st.one_of(st.integers(-(2**70), 2**70), st.booleans(), st.text(max_size=5), st.floats()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def written(value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value)
    return repr(value)


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(keys, values, max_size=5), st.dictionaries(keys, values, max_size=5))
def test_any_toml_gives_a_suite_or_a_sentence(top, table):
    lines = [f"{json.dumps(key)} = {written(value)}" for key, value in top.items() if key != "cells"]
    lines += ["[[cells]]", *(f"{json.dumps(key)} = {written(value)}" for key, value in table.items())]
    _suite_or_sentence("\n".join(lines))


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_text_gives_a_suite_or_a_sentence(text):
    _suite_or_sentence(text)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, len(PLAIN)), st.integers(0, len(PLAIN)), st.text(max_size=3))
def test_a_suite_with_a_slip_gives_a_suite_or_a_sentence(start, stop, slip):
    _suite_or_sentence(PLAIN[:start] + slip + PLAIN[stop:])


def _suite_or_sentence(text):
    try:
        found = parse_suite(text, "mine.toml")
        said = "mine.toml: "
    except Refusal as refusal:
        found, said = None, str(refusal)
    assert found is None or isinstance(found, Suite)
    assert said.startswith("mine.toml: ")
    assert "\n" not in said


@pytest.mark.parametrize("name", ["standard", "full"])
def test_every_problem_runs_with_at_least_three_estimators(name):
    """`full` at every one of its points."""
    members = catalogue([])
    rows = make_plan(read_suite(name), members, Options())
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.cell is not None:
            found.setdefault((row.problem, row.point), set()).add(row.estimator)
    assert {problem for problem, _ in found} == set(PROBLEMS)
    few = {place: estimators for place, estimators in found.items() if len(estimators) < 3}
    assert not few
    if name == "full":
        for problem in PROBLEMS:
            assert {point for where, point in found if where == problem} >= set(PROBLEMS[problem]().point_names())
