"""A run as a whole, in this process: what happens between its stages, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import Refusal
from bench.plan import Cell, Row
from bench.progress import Json, Lines, duration, left
from bench.run import Request, exit_code, run
from bench.store import FILE, Store
from bench.suite import Suite, Table
from bench.worker import Answer

PLUGIN = Path(__file__).parent / "misbehaving.py"


class Silent(Lines):
    """Keeps what it is told."""

    def __init__(self, interval=0.0):
        self.heard = []
        super().__init__(self.heard.append, interval)


def request(root, estimators, plugin=PLUGIN, rounds=0, **more):
    table = Table(["bernoulli_toy[dim=3]"], estimators, points=["init"])
    suite = Suite("t", [table], replicates=256, rounds=rounds)
    return Request(suite, plugins=[str(plugin)], jobs=1, root=root, out=True, **more)


def test_an_edit_while_a_run_is_on_is_noticed(tmp_path):
    """What was measured with the new text must not be stored under the old one."""
    plugin = tmp_path / "edited.py"
    plugin.write_text(PLUGIN.read_text())

    class Editing(Silent):
        def finished(self, row, answer):
            plugin.write_text(PLUGIN.read_text() + "# edited\n")

    with pytest.raises(Refusal, match=r"edited\.py changed while the run was on; start it again"):
        run(request(tmp_path / "out", ["honest", "prints"], plugin), Editing())
    with Store(tmp_path / "out" / FILE) as store:
        (count,) = store.connection.execute("select count(*) from cells").fetchone()
    assert count == 1


def test_a_cell_that_cannot_be_timed_keeps_its_measurement_and_does_not_take_the_others_time(tmp_path):
    made = request(tmp_path / "out", ["honest", "tires"], rounds=7, cell_timeout=3.0)
    done = run(made, Silent())
    assert (done.code, done.measured) == (0, 2)
    rows = pd.read_parquet(done.folder / "results.parquet").set_index("estimator")
    assert (rows["status"] == "done").all()
    assert rows.loc["honest", "ns_per_estimate"] > 0
    assert pd.isna(rows.loc["tires", "ns_per_estimate"])
    assert rows.loc["tires", "total_variance"] == rows.loc["honest", "total_variance"]
    again = run(made, Silent())
    assert (again.measured, again.fresh) == (0, False)  # nor is the timing tried for ever


def test_only_what_is_missing_is_measured_and_the_run_is_the_same(tmp_path):
    root = tmp_path / "out"
    assert run(request(root, ["honest"]), Silent()).measured == 1
    both = run(request(root, ["honest", "prints"]), Silent())
    assert (both.measured, both.total) == (1, 2)
    retried = run(request(root, ["honest", "raises"], retry=True), Silent())
    assert (retried.measured, retried.code) == (1, 1)
    assert run(request(root, ["honest", "raises"]), Silent()).measured == 0
    assert run(request(root, ["honest", "raises"], retry=True), Silent()).measured == 1


def test_a_folder_that_another_run_has_written_since_is_written_again(tmp_path):
    root = tmp_path / "out"
    for estimators in (["honest"], ["prints"], ["honest"]):
        done = run(request(root, estimators), Silent())
        assert list(pd.read_parquet(done.folder / "results.parquet")["estimator"]) == estimators
    assert (done.measured, done.fresh) == (0, True)
    (root / "manifest.json").write_text("{")
    assert run(request(root, ["honest"]), Silent()).fresh


def test_exit_codes():
    fine = {"claimed": "unbiased", "verdict": "unbiased", "status": "done"}
    false = {"claimed": "unbiased", "verdict": "biased", "status": "done"}
    owned = {"claimed": "biased", "verdict": "biased", "status": "done"}
    failed, slow, skipped = ({"claimed": None, "verdict": None, "status": s} for s in ("failed", "timeout", "skipped"))
    assert exit_code([fine, owned, skipped]) == 0
    assert exit_code([fine, failed]) == exit_code([slow]) == 1
    assert exit_code([failed, false]) == 4


ROW = Row("toy", {"dim": 2}, "init", "rloo", {"samples": 2}, cell=Cell("toy", {}, "init", "rloo", {}, *[""] * 3, 0, 64))


def test_plain_lines_say_every_failure_and_now_and_then_how_far_it_is():
    progress = Silent(interval=1e9)
    progress.begin("measuring", 3)
    for status, reason in (("done", ""), ("failed", "it broke"), ("done", "")):
        progress.finished(ROW, Answer(status, reason))
    assert progress.heard == ["failed: rloo on toy at init: it broke", "measuring 3/3, took 0 s (rloo on toy at init)"]
    progress = Silent(interval=0.0)
    progress.begin("timing", 3)
    progress.step("one")
    assert progress.heard == ["timing 1/3, about 0 s left (one)"]


def test_json_lines(capsys):
    progress = Json()
    progress.begin("measuring", 1)
    progress.finished(ROW, Answer("timeout", "too slow", seconds=1.23456))
    stage, cell = map(json.loads, capsys.readouterr().out.splitlines())
    assert stage == {"event": "stage", "stage": "measuring", "total": 1}
    wanted = {"event": "cell", "estimator": "rloo", "status": "timeout", "reason": "too slow", "seconds": 1.235}
    assert wanted.items() <= cell.items()


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text
    assert left(seconds, 1, 2) == f"about {text} left"
