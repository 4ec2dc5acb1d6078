"""A run as a whole: plan, measure what the store lacks, time it, and write the run's folder from the store."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench import environment, results, sources
from bench.errors import Refusal, one_line
from bench.execute import Job, Pool, prepare_workers
from bench.measurement import LEVEL
from bench.plan import Cell, Options, Row, hashed, make_plan
from bench.plugins import Catalogue, catalogue
from bench.progress import Progress
from bench.store import FILE, Found, Store, locked
from bench.suite import Suite
from bench.worker import Task

if TYPE_CHECKING:
    from bench.outcome import Outcome

FINE, FAILED, FALSE_CLAIM = 0, 1, 4
RESULTS = Path("results")
READERS = ("bench.results", "bench.measurement", "bench.statistics", "bench.moments", "bench.outcome")


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    where: what errors call the suite (nothing where the cells were named on the command line). root: the folder of the store.
    out: the run's files go straight into root. cell_timeout: seconds a cell. retry: measure failed cells again.
    """

    suite: Suite
    where: str = ""
    plugins: Sequence[str] = ()
    options: Options = field(default_factory=Options)
    threads: int = 1
    jobs: int = 1
    cell_timeout: float = 120.0
    root: Path = RESULTS
    out: bool = False
    retry: bool = False
    command: str = ""


@dataclass(frozen=True)
class Done:
    """Where the run is, its exit code, and how many cells were measured now rather than found in the store."""

    folder: Path
    code: int
    measured: int
    total: int
    fresh: bool


def run(request: Request, progress: Progress) -> Done:
    """Make the run; everything finished is in the store whenever this is interrupted. Raises Refusal."""
    if not (request.root / FILE).exists():
        prepare_workers(request.threads)  # it imports torch while the plan is made
    rows, members, new = planned(request)
    with locked(request.root), Store(request.root / FILE, write=True) as store:
        store.add_facts(new)
        wanted = [row for row in rows if row.cell is not None]
        known = store.find(row.key for row in wanted)
        missing = [row for row in wanted if _to_measure(known.get(row.key), request)]
        here = hashed([environment.machine(), environment.versions()])
        store.add_environment(here, {"machine": environment.machine(), "versions": environment.versions()})
        with Pool(request.jobs, request.plugins, request.threads) as pool:
            work = _Work(request, pool, store, progress, here)
            if missing:
                work.measure(missing, files_of(missing, members))
            if request.suite.rounds:
                work.time(wanted)
        return _finish(rows, store, request, len(missing))


def planned(request: Request) -> tuple[list[Row], Catalogue, dict[str, str]]:
    """The rows of the run, the members that it may name, and facts that no earlier plan has left in the store. Writes nothing."""
    members, file = catalogue(request.plugins), request.root / FILE
    before: dict[str, str] = {}
    if file.exists():
        with Store(file) as store:
            before = store.facts()
    known = dict(before)
    rows = make_plan(request.suite, members, request.options, known, request.where)
    return rows, members, {key: value for key, value in known.items() if key not in before}


def _to_measure(found: Found | None, request: Request) -> bool:
    """A cell that the store lacks; one that ran out of time with less than it may have now; a failed one on demand."""
    if found is None:
        return True
    if found.status == "timeout" and request.cell_timeout > found.cell_limit:
        return True
    return request.retry and found.status in ("failed", "timeout")


def files_of(rows: Sequence[Row], members: Catalogue) -> dict[str, Path]:
    """The files behind the digests of these rows."""
    from bench.plan import files_of as of_member

    found = sources.harness()
    for row in rows:
        found |= of_member(members.problems[row.problem]) | of_member(members.estimators[row.estimator])
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    """The two stages that need workers. here: identity of machine and versions, to which what is stored refers."""

    request: Request
    pool: Pool
    store: Store
    progress: Progress
    here: str

    def measure(self, rows: Sequence[Row], files: Mapping[str, Path]) -> None:
        """Measure each row in a worker and store it as it comes. A cell whose source changed meanwhile is not stored."""
        limit = self.request.cell_timeout
        jobs = [Job(Task([cell]), place_of(cell), limit) for row in rows if (cell := row.cell)]
        self.progress.begin("measuring", len(rows))
        try:
            for place, answer in self.pool.run(jobs):
                row = rows[place]
                changed = [
                    title for title in row.sources if title in files and _digest(files[title]) != row.sources[title]
                ]
                if changed:
                    raise Refusal(
                        f"{changed[0]} changed while the run was on; start it again (what was measured is stored)"
                    )
                identity = jobs[place].task.cells[0].identity()
                result = (answer.status, answer.reason, answer.outcome, answer.seconds)
                self.store.add_cell(row.key, row.subject, identity, row.sources, *result, limit, self.here)
                self.progress.finished(row, answer)
        finally:
            self.progress.close()

    def time(self, rows: Sequence[Row]) -> None:
        """Time the done cells that have no time yet, those of one problem and point in the same rounds, nothing else running."""
        found = self.store.find(row.key for row in rows)
        keys = {timing_key(row, self.request.threads): row for row in rows if found[row.key].status == "done"}
        known = self.store.timings(keys)
        groups: dict[str, list[tuple[str, Cell]]] = {}
        for key, row in keys.items():
            if key not in known and row.cell is not None:
                groups.setdefault(place_of(row.cell), []).append((key, row.cell))
        if not groups:
            return
        self.progress.begin("timing", sum(len(group) for group in groups.values()))
        try:
            for group in groups.values():
                self.time_group(group)
        finally:
            self.progress.close()

    def time_group(self, group: Sequence[tuple[str, Cell]]) -> None:
        """Time cells together; where that fails, each beside the yardstick alone, so that one cannot take the others' time."""
        cells = [cell for _, cell in group]
        job = Job(Task(cells, self.request.suite.rounds), place_of(cells[0]), self.request.cell_timeout * len(cells))
        ((_, answer),) = self.pool.run([job], at_once=1)
        if answer.status != "done" and len(group) > 1:
            for one in group:
                self.time_group([one])
            return
        timings: Sequence[Any] = answer.timings or [[[], [], []]]
        for (key, cell), (seconds, yardstick, again) in zip(group, timings, strict=True):
            self.store.add_timing(key, seconds, yardstick, again, answer.reason, self.here)
            self.progress.step(f"{cell.estimator} on {cell.problem} at {cell.point}")


def place_of(cell: Cell) -> str:
    """What cells share that are measured by one worker and timed in the same rounds."""
    return hashed([cell.problem, cell.problem_settings, cell.point, cell.dtype, cell.device])


def _digest(file: Path) -> str:
    with suppress(OSError):
        return sources.digest(file)
    return "gone"


def timing_key(row: Row, threads: int) -> str:
    """Identity of a cell's time: all of its own but seed and replicates, with the threads and the machine."""
    assert row.cell is not None
    cell = {name: value for name, value in row.cell.identity().items() if name not in ("seed", "replicates")}
    return hashed([cell, dict(row.sources), threads, environment.machine(), environment.versions()])


def _finish(rows: Sequence[Row], store: Store, request: Request, measured: int) -> Done:
    """The run's folder; an earlier one where all its rows are the same."""
    found = store.find(row.key for row in rows if row.cell is not None)
    times = store.timings(timing_key(row, request.threads) for row in rows if row.cell is not None)
    entries = [_entry(row, found, times, store, request) for row in rows]
    digest = _digest_of(entries, request)
    total = len(found)
    earlier = store.folder_of(digest)
    if earlier is not None and not measured:
        folder = request.root / earlier
        if _digest_in(folder) == digest:
            if not request.out:
                results.point_latest(request.root, earlier)
            return Done(folder, _code_of_folder(folder), 0, total, fresh=False)
    manifest = _manifest(entries, request, digest, measured)
    if request.out:
        folder = request.root
        table = results.write_files(folder, manifest["run"], entries, request.threads, manifest)
    else:
        folder = request.root / manifest["run"]
        with results.new_folder(request.root, manifest["run"]) as partial:
            table = results.write_files(partial, manifest["run"], entries, request.threads, manifest)
        results.point_latest(request.root, manifest["run"])
    store.add_run(digest, "." if request.out else manifest["run"], request.command)
    return Done(folder, exit_code(table), measured, total, fresh=True)


def _entry(
    row: Row, found: Mapping[str, Found], times: Mapping[str, Any], store: Store, request: Request
) -> results.Entry:
    from bench.timing import Timing

    if row.cell is None:
        return results.Entry(row, row.status, row.reason)
    cell, key = found[row.key], row.key
    if cell.status != "done":
        return results.Entry(row, cell.status, cell.reason)
    timing = None
    arrays = times.get(timing_key(row, request.threads))
    if arrays is not None and arrays[0]:
        import numpy as np

        timing = Timing(*(np.array(values) for values in arrays[:3]))
    return results.Entry(row, "done", "", lambda: _outcome(store, key), timing)


def _outcome(store: Store, key: str) -> Outcome:
    from bench.outcome import outcome_from_bytes

    try:
        return outcome_from_bytes(store.outcome(key))
    except (ValueError, msgspec.MsgspecError) as error:
        raise Refusal(f"{store.path}: cell {key} is damaged ({one_line(error)}); move the store away") from error


def _digest_of(entries: Sequence[results.Entry], request: Request) -> str:
    """Identity of a run's folder: its rows, their times, and the code that reads them."""
    rows = []
    for entry in entries:
        row = entry.row
        identity = (
            row.key if row.cell is not None else [row.problem, row.point, row.estimator, dict(row.problem_settings)]
        )
        seconds = None if entry.timing is None else entry.timing.seconds.tolist()
        rows.append([identity, dict(row.estimator_settings), entry.status, entry.reason, seconds])
    readers = sources.digests(sources.closure(READERS))
    return hashed([rows, readers, request.threads, request.suite.name, environment.machine(), environment.versions()])


def _manifest(entries: Sequence[results.Entry], request: Request, digest: str, measured: int) -> dict[str, Any]:
    now = time.time()
    name = time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + f"-{digest[:6]}"
    run, count = name, 1
    while not request.out and (request.root / run).exists():
        count += 1
        run = f"{name}-{count}"
    commit, dirty = environment.commit()
    status: dict[str, int] = {}
    for entry in entries:
        status[entry.status] = status.get(entry.status, 0) + 1
    seed = request.suite.seed if request.options.seed is None else request.options.seed
    return {
        "schema": results.SCHEMA_VERSION,
        "run": run,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now)),
        "command": request.command,
        "suite": request.suite.name,
        "suite_as_run": msgspec.to_builtins(request.suite),
        "options": {name: value for name, value in vars(request.options).items() if value not in (None, ())},
        "plugins": list(request.plugins),
        "seed": seed,
        "threads": request.threads,
        "jobs": request.jobs,
        "cell_timeout_s": request.cell_timeout,
        "cells": status,
        "measured_now": measured,
        "level": LEVEL,
        "commit": commit,
        "dirty": dirty,
        "versions": environment.versions(),
        "machine": environment.machine(),
        "digest": digest,
    }


def exit_code(rows: Sequence[Mapping[str, Any]]) -> int:
    """4 where an estimator that claims to be unbiased is biased, else 1 where a cell failed, else 0."""
    if any(row["claimed"] == "unbiased" and row["verdict"] == "biased" for row in rows):
        return FALSE_CLAIM
    return FAILED if any(row["status"] in ("failed", "timeout") for row in rows) else FINE


def _digest_in(folder: Path) -> str:
    """The digest of the rows that a folder holds; nothing where it is not whole."""
    if not all((folder / name).exists() for name in results.FILES):
        return ""
    try:
        return str(json.loads((folder / "manifest.json").read_text("utf-8"))["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def _code_of_folder(folder: Path) -> int:
    import pyarrow.parquet as pq

    return exit_code(pq.read_table(folder / "results.parquet", columns=["claimed", "verdict", "status"]).to_pylist())
