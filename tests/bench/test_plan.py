"""Plans: grids, points, what is refused by name and skipped by glob, keys, and what an edit makes stale."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.errors import Refusal
from bench.plan import Options, difference, make_plan, standings
from bench.plugins import catalogue
from bench.store import Store
from bench.suite import parse_suite

PLUGIN = '''
import torch
from estimators.base import Estimator
from problems.bernoulli_toy import bernoulli_toy
from problems.base import Problem
from problems.families.normal import Normal


def mean(x):
    return x.mean(-1)


def bell(dim=2):
    """A Normal problem at one point."""
    return Problem("bell", Normal, torch.zeros(2, dim, dtype=torch.float64), mean)


def never():
    """Cannot be built."""
    raise RuntimeError("no data here")


def bits(rate=1):
    """For bits only."""
    if rate < 0:
        raise ValueError(f"bits[rate={rate}]: rate must be positive")
    return Estimator("bits", 1, lambda q, noise: q.sample(noise), lambda q, x, fx: q.score(x, fx), ["bernoulli"])


PROBLEMS = {"bell": bell, "never": never}
ESTIMATORS = {"bits": bits}
'''


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "plan_plugin.py"
    file.write_text(PLUGIN)
    return catalogue([str(file)])


def suite(*tables, **top):
    lines = ['name = "t"', *(f"{k} = {v}" for k, v in top.items())]
    for table in tables:
        lines += ["[[cells]]", *(f"{k} = {v!r}" for k, v in table.items())]
    return parse_suite("\n".join(lines).replace("'", '"'), "t")


def grid(problems, estimators, **rest):
    return {"problems": problems, "estimators": estimators, **rest}


def plan(members, *tables, options=None, known=None, **top):
    return make_plan(suite(*tables, **top), members, options or Options(), known, "t.toml")


def test_a_row_for_every_pair_setting_and_point(members):
    rows = plan(members, grid(["bernoulli_toy[dim=6,8]"], ["rloo[samples=2,4]", "disarm"]), replicates=128)
    assert len(rows) == 2 * 3 * 3
    assert all(row.cell.replicates == 128 for row in rows)
    assert [row.point for row in rows[:3]] == ["init", "mid", "converged"]
    assert len({row.key for row in rows}) == len(rows)


def test_the_command_line_is_over_the_table_and_the_table_over_the_suite(members):
    tables = [grid(["bernoulli_toy"], ["rloo"], replicates=256, dtype="float32")]
    (row, *_) = plan(members, *tables, replicates=128, seed=3)
    assert (row.cell.replicates, row.cell.seed, row.cell.dtype) == (256, 3, "float32")
    options = Options(["mid"], 512, 7, "torch", "float64", "cuda")
    (row,) = plan(members, *tables, options=options)
    assert row.point == "mid"
    said = {"replicates": 512, "seed": 7, "backend": "torch", "dtype": "float64", "device": "cuda"}
    assert {name: getattr(row.cell, name) for name in said} == said


def test_a_later_table_has_the_last_word_on_a_cell(members):
    rows = plan(
        members,
        grid(["*_toy"], ["rloo", "reinforce"], points=["init"]),
        grid(["bernoulli_toy"], ["rloo"], replicates=4096, points=["init"]),
    )
    found = {(row.problem, row.estimator): row.cell.replicates for row in rows}
    assert found["bernoulli_toy", "rloo"] == 4096
    assert found["bernoulli_toy", "reinforce"] == found["shared_logit_toy", "rloo"] == 65_536


def test_tables_may_name_a_cell_in_two_forms(members):
    one = grid(["bernoulli_toy"], ["rloo"], points=["init"])
    rows = plan(members, one, {**one, "dtype": "float32"}, {**one, "backend": "torch"}, {**one, "replicates": 128})
    found = [(row.cell.dtype, row.cell.backend, row.cell.replicates) for row in rows]
    assert found == [("float64", "auto", 128), ("float32", "auto", 65_536), ("float64", "torch", 65_536)]


def test_an_impossible_pair_is_refused_by_name_and_skipped_by_glob(members):
    with pytest.raises(Refusal, match=r"t\.toml: cells\[0\]: bits is for bernoulli variables; bell's are normal"):
        plan(members, grid(["bell"], ["bits"]))
    for table in (grid(["bel*"], ["bits"]), grid(["bell"], ["bits*"])):
        (row,) = plan(members, table)
        assert (row.status, row.reason) == ("skipped", "bits is for bernoulli variables; bell's are normal")
        assert row.cell is None
        assert (row.facts.family, row.facts.params) == ("normal", 4)


def test_a_refused_setting_is_refused_by_name_and_skipped_by_glob(members):
    with pytest.raises(Refusal, match=r"cells\[0\]\.estimators: bits\[rate=-1\]: rate must be positive"):
        plan(members, grid(["bernoulli_toy"], ["bits[rate=-1]"]))
    rows = plan(members, grid(["bernoulli_toy"], ["bits*[rate=-1,1]"], points=["init"]))
    assert [(row.status, row.cell is None) for row in rows] == [("skipped", True), ("", False)]


def test_a_member_that_cannot_be_built_fails_its_rows(members):
    with pytest.raises(Refusal, match="the problem never cannot be built: RuntimeError: no data here"):
        plan(members, grid(["never"], ["rloo"]))
    (row,) = plan(members, grid(["neve*"], ["rloo"]))
    assert (row.status, row.point) == ("failed", "")
    assert "no data here" in row.reason


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (grid(["bernouli_toy"], ["rloo"]), "cells[0].problems[0]: there is no problem 'bernouli_toy'; did you mean"),
        (grid(["bernoulli_toy"], ["rloo", "rlo"]), "cells[0].estimators[1]: there is no estimator 'rlo'"),
        (grid(["bernoulli_toy"], ["rloo"], points=["end"]), "cells[0].points: bernoulli_toy has no point 'end'"),
    ],
)
def test_errors_have_the_path_to_the_key(members, table, said):
    with pytest.raises(Refusal) as refusal:
        plan(members, table)
    assert str(refusal.value).startswith(f"t.toml: {said}")


def test_a_point_that_only_some_have(members):
    rows = plan(members, grid(["*_toy", "bel*"], ["rloo"]), options=Options(["mid"]))
    assert {row.point for row in rows} == {"mid"}
    assert "bell" not in {row.problem for row in rows}
    with pytest.raises(Refusal, match="no problem of this run has a point 'nowhere'"):
        plan(members, grid(["bel*"], ["rloo"]), options=Options(["nowhere"]))


def test_the_key_is_the_identity_of_the_numbers(members):
    table = grid(["bernoulli_toy"], ["rloo"], points=["init"])
    (base,) = plan(members, table)
    (same,) = plan(members, grid(["bernoulli_toy[dim=6]"], ["rloo[samples=2]"], points=["init"]))
    assert base.key == same.key
    others = [Options(replicates=128), Options(seed=1), Options(backend="torch"), Options(dtype="float32")]
    others += [Options(device="cuda"), Options(points=["mid"])]
    keys = [plan(members, grid(["bernoulli_toy"], ["rloo"]), options=one)[0].key for one in others]
    assert len({base.key, *keys}) == 1 + len(others)
    assert replace(base, sources={**base.sources, "estimators/score_function.py": "0"}).key != base.key


def test_facts_spare_building(members, monkeypatch):
    known = {}
    tables = [grid(["bernoulli_toy", "bel*"], ["*oo", "bit*"])]
    first = plan(members, *tables, known=known)
    monkeypatch.setattr("bench.plugins.Entry.build", lambda *_: pytest.fail("nothing is built that is known"))
    again = plan(members, *tables, known=known)
    assert [(r.key if r.cell else r.reason) for r in first] == [(r.key if r.cell else r.reason) for r in again]


def test_standings_say_stored_new_and_stale_with_the_files(members, tmp_path):
    rows = plan(members, grid(["bernoulli_toy"], ["rloo", "disarm", "reinforce"], points=["init"]))
    rows += plan(members, grid(["bel*"], ["bits"]))
    rloo, disarm = rows[:2]
    old = {**disarm.sources, "estimators/disarm.py": "another", "estimators/gone.py": "x"}
    with Store(tmp_path / "store.sqlite", write=True) as store:
        for row, key, files in ((rloo, rloo.key, rloo.sources), (disarm, "old", old)):
            store.add_cell(key, row.subject, row.cell.identity(), files, "done", "", b"", 0.1, 9.0, "here")
        found = standings(rows, store)
    assert [one.state for one in found] == ["stored", "stale", "new", "skipped"]
    assert found[1].why == "estimators/disarm.py changed, estimators/gone.py is gone"
    assert [one.state for one in standings(rows, None)] == ["new", "new", "new", "skipped"]


def test_difference_in_words():
    assert difference({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == "a changed, c is new, b is gone"
