"""Who can be named: registries, entry points of installed packages, plug-in files; and what is said where one cannot be used."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from bench import sources
from bench.errors import Broken, Refusal
from bench.plan import files_of
from bench.plugins import catalogue, describe

PACKAGE = '''
"""A package somebody has installed."""
from estimators.base import Estimator
from theirs import formula


def theirs_rloo(samples=2):
    """Somebody's RLOO.

    More of it.
    """
    return Estimator("theirs_rloo", samples, formula.draw, formula.combine)
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes it look as if a package with these entry points of bench.estimators were installed."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "members.py").write_text(PACKAGE)
    (package / "formula.py").write_text(
        "def draw(q, noise):\n    return q.sample(noise)\ndef combine(q, x, fx):\n    return q.score(x, fx)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def declare(**points):
        group = "bench.estimators"
        found = metadata.EntryPoints(metadata.EntryPoint(n, v, group) for n, v in points.items())
        monkeypatch.setattr(metadata, "entry_points", lambda **given: found.select(**given))

    return declare


def test_an_entry_point_is_a_member_like_any_other(installed):
    installed(theirs_rloo="theirs.members:theirs_rloo")
    entry = catalogue().estimators["theirs_rloo"]
    assert (entry.summary(), entry.settings()) == ("Somebody's RLOO.", {"samples": 2})
    assert entry.build({"samples": 3}).points == 3
    assert {"theirs/members.py", "theirs/formula.py", "estimators/base.py"} <= set(files_of(entry))
    assert set(sources.digests(files_of(entry))) == set(files_of(entry))


def test_an_entry_point_that_cannot_be_loaded_is_told_when_it_is_needed(installed):
    installed(gone="nowhere.members:gone")
    entry = catalogue().estimators["gone"]
    with pytest.raises(Broken, match=r"the entry point gone = nowhere\.members:gone cannot be loaded"):
        entry.settings()


def test_a_name_is_taken_once(installed):
    installed(rloo="theirs.members:theirs_rloo")
    with pytest.raises(Refusal, match=r"theirs\.members:theirs_rloo: the estimator 'rloo' has a name that is taken"):
        catalogue()


def test_built_in_members_are_described_without_being_imported():
    members = catalogue()
    assert members.problems["bernoulli_toy"].settings()["dim"] == 6
    assert members.estimators["rloo"].summary().startswith("RLOO")
    assert {entry.origin for entry in members.problems.values()} == {"built in"}


def test_a_plug_in_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("value = 7\n")
    (tmp_path / "mine.py").write_text(
        "from neighbour_of_mine import value\nPROBLEMS = {'mine': lambda dim=value: dim}\n"
    )
    entry = catalogue([str(tmp_path / "mine.py")]).problems["mine"]
    assert entry.settings() == {"dim": 7}
    assert set(files_of(entry)) == {"mine.py", "neighbour_of_mine.py"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PROBLEMS = ['a']\n", "PROBLEMS must be a dict of names and factories"),
        ("PROBLEMS = {'a': 3}\n", "PROBLEMS must be a dict of names and factories"),
        ("PROBLEMS = {'a b': print}\n", "'a b' in PROBLEMS is no name"),
        ("import sys\nsys.exit(3)\n", "cannot be imported: SystemExit: 3"),
        ("import nothing_of_that_name\n", "cannot be imported: ModuleNotFoundError: No module named"),
    ],
)
def test_what_is_no_plug_in_is_said(tmp_path, text, said):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(Refusal) as refusal:
        catalogue([str(file)])
    assert said in str(refusal.value)


def _anything(size, *, form="a"):
    """Described."""


def test_a_factory_that_returns_something_else_is_told(tmp_path):
    file = tmp_path / "forgetful.py"
    file.write_text("def mine():\n    0\n\n\nESTIMATORS = {'mine': mine}\nPROBLEMS = {'ours': mine}\n")
    found = catalogue([str(file)])
    for entry, kind in [(found.estimators["mine"], "Estimator"), (found.problems["ours"], "Problem")]:
        with pytest.raises(Broken, match=f"cannot be built: its factory gave NoneType, not {kind}"):
            entry.build({})


def test_every_setting_has_a_plain_default():
    assert describe("x", lambda dim=1, *rest, form=None, shape=(2, 3), **more: None)[1] == {
        "dim": 1,
        "form": None,
        "shape": (2, 3),
    }
    with pytest.raises(Broken, match="the setting size of x has no default"):
        describe("x", _anything)
    with pytest.raises(Broken, match="the setting where of x has the default"):
        describe("x", lambda where=Path("."): None)
