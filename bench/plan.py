"""The plan of a run: every row of its table, as a cell to measure or with the reason why not.

A cell's key is the identity of its numbers: problem, settings, point, estimator, settings, backend, dtype, device, seed,
replicates, and the source of everything of ours that makes them. Threads are left out: they change the time, not the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from bench import sources
from bench.errors import Broken, Refusal, nearest
from bench.plugins import Catalogue, Entry
from bench.selector import Choice, Value, choose, written
from bench.suite import ALL, Suite, Table

if TYPE_CHECKING:
    from bench.store import Found, Store

IDENTITY_VERSION = 1


class Cell(msgspec.Struct, frozen=True):
    """One measurement to make: a value, which a worker process builds its objects from."""

    problem: str
    problem_settings: dict[str, Any]
    point: str
    estimator: str
    estimator_settings: dict[str, Any]
    backend: str
    dtype: str
    device: str
    seed: int
    replicates: int

    def identity(self) -> dict[str, Any]:
        """All that the numbers depend on but the source."""
        return {"version": IDENTITY_VERSION, **msgspec.to_builtins(self)}

    def title(self) -> str:
        """As progress and errors name it."""
        estimator = written(self.estimator, self.estimator_settings)
        return f"{estimator} on {written(self.problem, self.problem_settings)} at {self.point}"


class Facts(msgspec.Struct, frozen=True):
    """What the plan must know of a problem, without building it again."""

    points: list[str]
    family: str
    objective: str
    dim: int
    params: int


@dataclass(frozen=True)
class Row:
    """A row of the run's table. Where `cell` is None, `status` (skipped or failed) and `reason` say why.

    key: of the cell with its sources. subject: of the cell alone, which finds what an edit made stale. sources: file -> digest.
    """

    problem: str
    problem_settings: Mapping[str, Value]
    point: str
    estimator: str
    estimator_settings: Mapping[str, Value]
    facts: Facts | None = None
    cell: Cell | None = None
    status: str = ""
    reason: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        assert self.cell is not None
        return hashed([self.cell.identity(), dict(self.sources)])

    @cached_property
    def subject(self) -> str:
        assert self.cell is not None
        return hashed(self.cell.identity())


@dataclass(frozen=True)
class Options:
    """What the command line says over the suite. None: as the suite says."""

    points: Sequence[str] = ()
    replicates: int | None = None
    seed: int | None = None
    backend: str | None = None
    dtype: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Standing:
    """What a run would do with a row: stored, new, stale, skipped or failed (no cell to run), and why."""

    row: Row
    state: str
    why: str = ""


def hashed(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, 32 hexadecimal digits of it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_plan(
    suite: Suite,
    members: Catalogue,
    options: Options,
    known: MutableMapping[str, str] | None = None,
    where: str = "",
) -> list[Row]:
    """The rows of a run, in the order of the suite; a cell that two tables name has the replicates of the later.

    known: facts found before (key -> JSON), which spare building and importing; new ones are added to it.
    where: what errors name before the key's path. Raises Refusal.
    """
    planner = _Planner(members, {} if known is None else known)
    rows: dict[str, Row] = {}
    for place, table in enumerate(suite.cells):
        path = f"{where}: cells[{place}]" if where else ""
        how = [options.backend or table.backend, options.dtype or table.dtype]
        for row in planner.rows(table, suite, options, path):
            settings = [dict(row.problem_settings), dict(row.estimator_settings)]
            rows[hashed([row.problem, row.estimator, row.point, settings, how])] = row
    if options.points and not rows:
        raise Refusal(f"no problem of this run has a point {options.points[0]!r}")
    return list(rows.values())


class _Planner:
    """Builds members once, and only where nothing is known of them."""

    def __init__(self, members: Catalogue, known: MutableMapping[str, str]) -> None:
        self.members, self.known = members, known
        self.harness = sources.digests(sources.harness())
        self.built: dict[str, Any] = {}
        self.digests: dict[tuple[str, str], dict[str, str]] = {}

    def rows(self, table: Table, suite: Suite, options: Options, path: str) -> Iterator[Row]:
        problems = self.choices(table.problems, "problem", path)
        estimators = self.choices(table.estimators, "estimator", path)
        for problem in problems:
            facts, trouble = self.facts(problem, path)
            points = self.points(problem, facts, options.points or table.points, path) if facts else [""]
            for estimator in estimators:
                status, reason = trouble or self.fit(problem, estimator, path)
                for point in points:
                    row = Row(problem.name, problem.settings, point, estimator.name, estimator.settings, facts)
                    if reason:
                        yield replace(row, status=status, reason=reason)
                    else:
                        cell = Cell(
                            problem.name,
                            dict(problem.settings),
                            point,
                            estimator.name,
                            dict(estimator.settings),
                            options.backend or table.backend,
                            options.dtype or table.dtype,
                            options.device,
                            suite.seed if options.seed is None else options.seed,
                            options.replicates or table.replicates or suite.replicates,
                        )
                        yield replace(row, cell=cell, sources=self.sources(problem, estimator))

    def choices(self, texts: Sequence[str], kind: str, path: str) -> list[Choice]:
        """The members that a list of selectors names, each once; by name wins over by glob."""
        found: dict[str, Choice] = {}
        for place, text in enumerate(texts):
            try:
                chosen = choose(text, self.members.of(kind), kind)
            except Refusal as refusal:
                raise Refusal(f"{path}.{kind}s[{place}]: {refusal}" if path else str(refusal)) from refusal
            for choice in chosen:
                key = written(choice.name, choice.settings)
                if key not in found or choice.exact:
                    found[key] = choice
        return list(found.values())

    def points(self, problem: Choice, facts: Facts, wanted: Sequence[str] | str, path: str) -> list[str]:
        if wanted == ALL or ALL in wanted:
            return facts.points
        for point in wanted:
            if point not in facts.points and problem.exact:
                at = f"{path}.points: " if path else ""
                raise Refusal(f"{at}{problem.name} has no point {point!r}{nearest(point, facts.points)}")
        return [point for point in facts.points if point in wanted]

    def facts(self, problem: Choice, path: str) -> tuple[Facts | None, tuple[str, str] | None]:
        """Facts of a problem; or, for one that a glob brought in and that cannot be built, status and reason."""
        key = self.identity("problem", problem)
        if key not in self.known:
            try:
                built = self.build("problem", problem)
            except Refusal as refusal:
                if problem.exact:
                    raise Refusal(f"{path}.problems: {refusal}" if path else str(refusal)) from refusal
                return None, ("failed" if isinstance(refusal, Broken) else "skipped", str(refusal))
            from estimators.base import size_of

            facts = Facts(
                built.point_names(), built.family_name, built.objective.name, int(size_of(built).D), int(built.dim)
            )
            self.known[key] = msgspec.json.encode(facts).decode()
        return msgspec.json.decode(self.known[key], type=Facts), None

    def fit(self, problem: Choice, estimator: Choice, path: str) -> tuple[str, str]:
        """Status and reason of a pair that cannot run; two empty texts where it can. A pair asked for by name is refused."""
        key = hashed([self.identity("problem", problem), self.identity("estimator", estimator)])
        if key not in self.known:
            try:
                built = self.build("estimator", estimator)
            except Refusal as refusal:
                if estimator.exact:
                    raise Refusal(f"{path}.estimators: {refusal}" if path else str(refusal)) from refusal
                return "failed" if isinstance(refusal, Broken) else "skipped", str(refusal)
            from estimators.base import mismatch

            self.known[key] = mismatch(built, self.build("problem", problem)) or ""
        reason = self.known[key]
        if reason and problem.exact and estimator.exact:
            raise Refusal(f"{path}: {reason}" if path else reason)
        return ("skipped", reason) if reason else ("", "")

    def build(self, kind: str, choice: Choice) -> Any:
        key = f"{kind} {written(choice.name, choice.settings)}"
        if key not in self.built:
            self.built[key] = self.members.of(kind)[choice.name].build(choice.settings)
        return self.built[key]

    def identity(self, kind: str, choice: Choice) -> str:
        return hashed([kind, choice.name, dict(choice.settings), self.digests_of(kind, choice.name), self.harness])

    def sources(self, problem: Choice, estimator: Choice) -> dict[str, str]:
        found = {
            **self.harness,
            **self.digests_of("problem", problem.name),
            **self.digests_of("estimator", estimator.name),
        }
        return {title: found[title] for title in sorted(found)}

    def digests_of(self, kind: str, name: str) -> dict[str, str]:
        if (kind, name) not in self.digests:
            self.digests[kind, name] = sources.digests(files_of(self.members.of(kind)[name]))
        return self.digests[kind, name]


def files_of(entry: Entry) -> dict[str, Any]:
    """The files that a member's behaviour depends on: its imports among ours, and a problem's stored points and references."""
    files = sources.member(entry.start, entry.home)
    return {**files, **sources.data_files(entry.name)} if entry.kind == "problem" else files


def standings(rows: Sequence[Row], store: Store | None) -> list[Standing]:
    """What is stored already, what an edit made stale, and what is new."""
    wanted = [row for row in rows if row.cell is not None]
    found = store.find(row.key for row in wanted) if store is not None else {}
    former = store.former(row.subject for row in wanted if row.key not in found) if store is not None else {}
    return [_standing(row, found, former) for row in rows]


def _standing(row: Row, found: Mapping[str, Found], former: Mapping[str, Mapping[str, str]]) -> Standing:
    if row.cell is None:
        return Standing(row, row.status, row.reason)
    if row.key in found:
        cell = found[row.key]
        return Standing(row, "stored", f"{cell.status}: {cell.reason}" if cell.status != "done" else "")
    if row.subject in former:
        return Standing(row, "stale", difference(former[row.subject], row.sources))
    return Standing(row, "new")


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`estimators/disarm.py changed, problems/new.py is new`."""
    changed = [title for title in now if title in before and before[title] != now[title]]
    parts = [f"{title} changed" for title in changed]
    parts += [f"{title} is new" for title in now if title not in before]
    parts += [f"{title} is gone" for title in before if title not in now]
    return ", ".join(parts)
