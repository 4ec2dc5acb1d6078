"""A worker process: measures the cells that it is handed, one at a time, until the client's end of the pipe closes.

Whatever a member does, an answer goes back: its error in one sentence. What it prints goes to the standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from bench.errors import Refusal
from bench.plan import Cell
from bench.plugins import Catalogue, catalogue, sentence
from bench.selector import written

KEPT = 4


class Task(msgspec.Struct, frozen=True):
    """What a worker is asked: to measure one cell (rounds = 0), or to time cells of one problem together."""

    cells: list[Cell]
    rounds: int = 0


class Answer(msgspec.Struct, frozen=True):
    """status: done, failed, skipped or timeout. outcome: bytes of what was measured. timings: for each cell, its arrays."""

    status: str
    reason: str = ""
    outcome: bytes | None = None
    timings: list[list[list[float]]] = []
    seconds: float = 0.0


def serve(connection: Connection, life: Connection, plugins: list[str], threads: int) -> None:
    """Answer tasks until the pipe closes. life: the end of a pipe to which nothing is written, and which closes with the client."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides what an interrupt means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_client(life)
    sys.stdout.flush()
    os.dup2(2, 1)
    decoder, workshop = msgspec.msgpack.Decoder(Task), None
    while True:
        try:
            task = decoder.decode(connection.recv_bytes())
        except EOFError:
            return
        try:
            workshop = workshop or Workshop(catalogue(plugins), threads)
            answer = workshop.time(task) if task.rounds else workshop.measure(task.cells[0])
        except BaseException as error:  # whatever a member raises, SystemExit too, is the cell's, not the worker's
            answer = Answer("failed", _reason(error))
        sys.stdout.flush()
        try:
            connection.send_bytes(msgspec.msgpack.encode(answer))
        except BrokenPipeError:
            return


def _reason(error: BaseException) -> str:
    from bench.evaluate import MemberError
    from problems.calling import UnknownName

    return str(error) if isinstance(error, Refusal | MemberError | UnknownName) else sentence(error)


def _end_with_client(life: Connection) -> None:
    """Let the kernel end this process when the client's end of a pipe closes, whatever it is doing then (Linux).

    A worker cannot ask for that by its parent: that is the server that forked it, which stays as long as it has children.
    """
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(life.fileno(), fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(
            life.fileno(), fcntl.F_SETFL, os.O_ASYNC
        )  # the signal is SIGIO, which ends a process that does not expect it


class Workshop:
    """Builds what cells name, and keeps the last few problems with their truths: a truth may cost more than a cell."""

    def __init__(self, members: Catalogue, threads: int) -> None:
        self.members, self.threads = members, threads
        self._problems: dict[str, Any] = {}
        self._truths: dict[str, Any] = {}

    def problem(self, cell: Cell) -> Any:
        """The problem at the cell's point."""
        key = f"{written(cell.problem, cell.problem_settings)} {cell.point}"
        if key not in self._problems:
            built = self.members.problems[cell.problem].build(_settings(cell.problem_settings))
            _remember(self._problems, key, built.at(cell.point))
        return self._problems[key]

    def truth(self, cell: Cell) -> Any:
        """Its true gradient, computed once."""
        from problems.truth import true_gradient

        key = f"{written(cell.problem, cell.problem_settings)} {cell.point}"
        if key not in self._truths:
            _remember(self._truths, key, true_gradient(self.problem(cell)))
        return self._truths[key]

    def estimator(self, cell: Cell) -> Any:
        """The estimator of the cell."""
        return self.members.estimators[cell.estimator].build(_settings(cell.estimator_settings))

    def measure(self, cell: Cell) -> Answer:
        """Measure one cell. A gradient that is not finite fails it: no mean of the others would be the estimator's."""
        from bench.evaluate import Mismatch
        from bench.measure import observe
        from bench.outcome import outcome_to_bytes

        try:
            outcome = observe(
                self.estimator(cell),
                self.problem(cell),
                point=cell.point,
                replicates=cell.replicates,
                seed=cell.seed,
                backend=cell.backend,
                dtype=cell.dtype,
                device=cell.device,
                threads=self.threads,
                truth=self.truth(cell),
            )
        except Mismatch as error:
            return Answer("skipped", str(error))
        if outcome.sums.nonfinite:
            return Answer("failed", f"{outcome.sums.nonfinite:,} of {cell.replicates:,} gradients were not finite")
        return Answer("done", outcome=outcome_to_bytes(outcome))

    def time(self, task: Task) -> Answer:
        """Time cells of one problem, point, dtype and device in the same rounds."""
        from bench.measure import pinned
        from bench.timing import time_together

        first = task.cells[0]
        pairs = [(self.estimator(cell), self.problem(cell)) for cell in task.cells]
        with pinned(self.threads):
            backends = [cell.backend for cell in task.cells]
            timings = time_together(pairs, backends, rounds=task.rounds, dtype=first.dtype, device=first.device)
        found = [[t.seconds.tolist(), t.yardstick.tolist(), t.again.tolist()] for t in timings]
        return Answer("done", timings=found)


def _settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def _remember(kept: dict[str, Any], key: str, value: Any) -> None:
    while len(kept) >= KEPT:
        del kept[next(iter(kept))]
    kept[key] = value
