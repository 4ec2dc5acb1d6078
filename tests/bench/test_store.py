"""The store: what is written is there, what is not ours is not touched, one run at a time."""

from __future__ import annotations

import sqlite3

import pytest

from bench.errors import Refusal
from bench.store import APPLICATION, SCHEMA_VERSION, Store, locked


def add(store, key="k", subject="s", status="done", reason="", outcome=b"\x00\xff", sources=None, limit=120.0):
    store.add_cell(key, subject, {"a": 1}, sources or {"f.py": "1"}, status, reason, outcome, 0.5, limit, "here")


def test_cells_come_back(tmp_path):
    with Store(tmp_path / "deep" / "store.sqlite", write=True) as store:
        add(store)
        add(store, "l", "t", "timeout", "too slow", None, limit=2.0)
    with Store(tmp_path / "deep" / "store.sqlite") as store:
        found = store.find(["k", "l", "missing"])
        assert set(found) == {"k", "l"}
        assert (found["l"].status, found["l"].reason, found["l"].cell_limit) == ("timeout", "too slow", 2.0)
        assert store.outcome("k") == b"\x00\xff"


def test_any_number_of_keys(tmp_path):
    with Store(tmp_path / "store.sqlite", write=True) as store:
        for key in range(0, 3000, 100):
            add(store, str(key))
        assert len(store.find(map(str, range(3000)))) == 30


def test_the_latest_sources_of_a_subject(tmp_path):
    with Store(tmp_path / "store.sqlite", write=True) as store:
        add(store, "a", sources={"f.py": "1"})
        add(store, "b", sources={"f.py": "2"})
        assert store.former(["s", "other"]) == {"s": {"f.py": "2"}}


def test_timings_facts_runs(tmp_path):
    with Store(tmp_path / "store.sqlite", write=True) as store:
        store.add_timing("k", [0.1, 1 / 3], [1e-9, 2.0], [3.0, 4.0], "", "here")
        store.add_facts({"a": "1", "b": "2"})
        store.add_facts({"b": "3"})
        store.add_run("digest", "folder", "bench run")
        store.add_environment("here", {"cores": 2})
        store.add_environment("here", {"cores": 2})
    with Store(tmp_path / "store.sqlite") as store:
        assert store.timings(["k", "l"]) == {"k": ([0.1, 1 / 3], [1e-9, 2.0], [3.0, 4.0], "")}
        assert store.facts() == {"a": "1", "b": "3"}
        assert store.folder_of("digest") == "folder"
        assert store.folder_of("other") is None


def test_what_is_written_is_on_the_disk_at_once(tmp_path):
    """Another connection sees it without the writer closing: a kill of the writer loses nothing."""
    store = Store(tmp_path / "store.sqlite", write=True)
    add(store)
    with Store(tmp_path / "store.sqlite") as other:
        assert set(other.find(["k"])) == {"k"}
    (synchronous,) = store.connection.execute("pragma synchronous").fetchone()
    (mode,) = store.connection.execute("pragma journal_mode").fetchone()
    assert (synchronous, mode) == (2, "wal")
    store.close()


def _damaged(path):
    path.write_bytes(b"no database at all, whatever its name says" * 50)


def _broken_inside(path):
    Store(path, write=True).close()
    content = bytearray(path.read_bytes())
    content[100:] = b"\x7f" * (len(content) - 100)
    path.write_bytes(content)


def _of_the_future(path):
    Store(path, write=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def _of_another_program(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table photographs (name text)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_damaged, "is damaged or no store"),
        (_broken_inside, "cannot be used"),
        (_of_the_future, rf"later version \(schema {SCHEMA_VERSION + 1}"),
        (_of_another_program, "of some other program"),
    ],
)
@pytest.mark.parametrize("write", [True, False])
def test_what_is_not_ours_is_refused_and_left_as_it_is(tmp_path, make, said, write):
    path = tmp_path / "store.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(Refusal, match=said):
        Store(path, write=write)
    assert path.read_bytes() == before


def test_our_files_say_so(tmp_path):
    Store(tmp_path / "store.sqlite", write=True).close()
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        assert connection.execute("pragma application_id").fetchone() == (APPLICATION,)
    connection.close()
    assert [file.name for file in tmp_path.iterdir()] == ["store.sqlite"]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with Store(tmp_path / "store.sqlite", write=True) as store:
        with pytest.raises(Refusal):
            store._write("insert into facts values (?,?)", [["a", "1"], ["b", None]])
        assert store.facts() == {}


def test_one_run_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(Refusal, match=r"another run is on in .* \(process \d+\)"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="cannot be written"), locked(tmp_path / "file" / "results"):
        pass
