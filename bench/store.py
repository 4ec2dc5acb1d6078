"""The store: every measured cell, keyed by its content, in one SQLite file that all runs share.

WAL, one writer (the client of the run, which holds a lock on the folder), a commit for each cell: a kill loses at most the cells
in flight. Outcomes are stored as bytes that hold no code.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.errors import Refusal, one_line

SCHEMA_VERSION = 1
APPLICATION = 0x6D634762  # "mcGb": what SQLite's application_id says of our files
FILE = "store.sqlite"
LOCK = ".lock"
_SCHEMA = """
create table cells (
    key text primary key, subject text not null, identity text not null, sources text not null,
    status text not null, reason text not null, outcome blob, seconds real not null, cell_limit real not null,
    environment text not null, created real not null
) without rowid;
create index by_subject on cells (subject);
create table timings (
    key text primary key, seconds text not null, yardstick text not null, again text not null, reason text not null,
    environment text not null, created real not null
) without rowid;
create table facts (key text primary key, value text not null) without rowid;
create table environments (id text primary key, value text not null) without rowid;
create table runs (digest text primary key, folder text not null, command text not null, created real not null) without rowid;
"""
_BATCH = 500


@dataclass(frozen=True)
class Found:
    """A stored cell without its sums. cell_limit: seconds that it was given."""

    key: str
    status: str
    reason: str
    cell_limit: float


class Store:
    """An open store. `write` opens it for the run's client, creating what is missing; otherwise it is only read."""

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path = path
        with self._guarded():
            _check_header(path)
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.connection = sqlite3.connect(path, isolation_level=None)
            else:
                idle = not path.with_name(
                    f"{path.name}-wal"
                ).exists()  # nobody writes, so that no shared memory is needed
                address = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if idle else ''}"
                self.connection = sqlite3.connect(address, uri=True, isolation_level=None)
            self._check_version(write)

    def close(self) -> None:
        """Close the file; a store that was written leaves no journal beside it."""
        self.connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's and the system's errors as one sentence."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise Refusal(
                f"{self.path} cannot be used: {one_line(error)}; move it away to start a new store (it was left as it is)"
            ) from error

    def _check_version(self, write: bool) -> None:
        execute = self.connection.execute
        (version,) = execute("pragma user_version").fetchone()
        (application,) = execute("pragma application_id").fetchone()
        (tables,) = execute("select count(*) from sqlite_master").fetchone()
        if version == 0 and tables == 0 and write:
            execute("pragma journal_mode = wal")
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                execute(f"pragma application_id = {APPLICATION}")
                execute(f"pragma user_version = {SCHEMA_VERSION}")
        elif application != APPLICATION:
            raise Refusal(f"{self.path} is an SQLite file of some other program; it was left as it is")
        elif version > SCHEMA_VERSION:
            raise Refusal(
                f"{self.path} was written by a later version (schema {version}, this one reads up to {SCHEMA_VERSION});"
                " it was left as it is"
            )
        if write:
            execute("pragma journal_mode = wal")
            execute("pragma synchronous = full")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("begin immediate")
        try:
            yield
        except BaseException:
            self.connection.execute("rollback")
            raise
        self.connection.execute("commit")

    def _rows(self, query: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of `query`, which ends in `in ({})`, for any number of keys."""
        wanted = list(dict.fromkeys(keys))
        with self._guarded():
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                yield from self.connection.execute(query.format(",".join("?" * len(batch))), batch)

    def find(self, keys: Iterable[str]) -> dict[str, Found]:
        """The stored cells among these keys."""
        query = "select key, status, reason, cell_limit from cells where key in ({})"
        return {row[0]: Found(*row) for row in self._rows(query, keys)}

    def former(self, subjects: Iterable[str]) -> dict[str, dict[str, str]]:
        """Subject -> sources (file -> digest) of the latest cell measured for it."""
        query = "select subject, sources, max(created) from cells where subject in ({}) group by subject"
        return {subject: json.loads(text) for subject, text, _ in self._rows(query, subjects)}

    def outcome(self, key: str) -> bytes:
        """What was measured of a cell that is done."""
        with self._guarded():
            row = self.connection.execute("select outcome from cells where key = ?", [key]).fetchone()
        found: bytes = row[0]
        return found

    def add_cell(
        self,
        key: str,
        subject: str,
        identity: Mapping[str, Any],
        sources: Mapping[str, str],
        status: str,
        reason: str,
        outcome: bytes | None,
        seconds: float,
        cell_limit: float,
        environment: str,
    ) -> None:
        """Write a finished cell: it is on the disk when this returns."""
        texts = [json.dumps(dict(value), sort_keys=True) for value in (identity, sources)]
        values = [key, subject, *texts, status, reason, outcome, seconds, cell_limit, environment, time.time()]
        self._write(f"insert or replace into cells values ({','.join('?' * len(values))})", [values])

    def timings(self, keys: Iterable[str]) -> dict[str, tuple[list[float], list[float], list[float], str]]:
        """Key -> seconds, yardstick, yardstick again (a value a round), and why there are none."""
        query = "select key, seconds, yardstick, again, reason from timings where key in ({})"
        return {k: (json.loads(s), json.loads(y), json.loads(a), why) for k, s, y, a, why in self._rows(query, keys)}

    def add_timing(
        self,
        key: str,
        seconds: Sequence[float],
        yardstick: Sequence[float],
        again: Sequence[float],
        reason: str,
        environment: str,
    ) -> None:
        """Write the timing of a cell, or with no rounds why it has none."""
        texts = [json.dumps(list(values)) for values in (seconds, yardstick, again)]
        self._write(
            "insert or replace into timings values (?,?,?,?,?,?,?)",
            [[key, *texts, reason, environment, time.time()]],
        )

    def facts(self) -> dict[str, str]:
        """All that earlier plans found of problems and pairs."""
        with self._guarded():
            return dict(self.connection.execute("select key, value from facts"))

    def add_facts(self, facts: Mapping[str, str]) -> None:
        """Keep what a plan found, for the next one."""
        self._write("insert or replace into facts values (?,?)", [list(item) for item in facts.items()])

    def add_environment(self, identifier: str, value: Mapping[str, Any]) -> None:
        """Versions and machine, which cells and timings refer to."""
        self._write("insert or ignore into environments values (?,?)", [[identifier, json.dumps(dict(value))]])

    def folder_of(self, digest: str) -> str | None:
        """The folder of an earlier run with exactly these rows."""
        with self._guarded():
            row = self.connection.execute("select folder from runs where digest = ?", [digest]).fetchone()
        return None if row is None else str(row[0])

    def add_run(self, digest: str, folder: str, command: str) -> None:
        """Remember where the view with these rows is."""
        self._write("insert or replace into runs values (?,?,?,?)", [[digest, folder, command, time.time()]])

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._guarded(), self._transaction():
            self.connection.executemany(statement, rows)


def _check_header(path: Path) -> None:
    """Refuse what is no SQLite file before SQLite may touch it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(16)
    if head and head != b"SQLite format 3\x00":
        raise Refusal(
            f"{path} is damaged or no store (no SQLite file); move it away to start a new one (it was left as it is)"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one run at a time. Raises Refusal where another run has it."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file: IO[str] = (folder / LOCK).open("a+")
    except OSError as error:
        raise Refusal(f"{folder} cannot be written: {one_line(error)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read(64).strip()
            raise Refusal(
                f"another run is on in {folder}{f' (process {owner})' if owner else ''};"
                " wait for it, or give this one its own folder with --out"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
