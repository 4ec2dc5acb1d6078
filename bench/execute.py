"""Cells in worker processes, each under a hard limit of time: what a member does to its process, it does to its own row only.

Workers are forked from a server that has imported torch once, so that a fresh one costs milliseconds; the client imports nothing
heavy. What goes through the pipes is data, never objects.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec

from bench.worker import Answer, Task, serve
from estimators.kernels.backend import use_whole_vectors

PRELOADED = ["torch", "numba", "bench.worker", "bench.measure", "bench.evaluate", "bench.timing", "problems.truth"]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Job:
    """A task, what it belongs to (a worker keeps the problem of the last one), and its limit in seconds."""

    task: Task
    group: str
    limit: float


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    life: Connection
    job: int = -1
    group: str = ""
    started: float = 0.0
    limit: float = 0.0

    @property
    def deadline(self) -> float:
        return self.started + self.limit


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_workers(threads: int) -> None:
    """Pin the threads of processes to come, and start the server that imports torch, without waiting for it; once."""
    use_whole_vectors()
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()


def _context() -> Any:
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


@dataclass(eq=False)
class Pool:
    """Up to `size` workers. A worker whose cell hangs is killed; one that died is replaced."""

    size: int
    plugins: Sequence[str] = ()
    threads: int = 1
    _workers: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers.clear()

    def run(self, jobs: Sequence[Job], at_once: int = 0) -> Iterator[tuple[int, Answer]]:
        """Place of a job and its answer, as they come. at_once: fewer workers than there may be (1: alone, for honest clocks)."""
        waiting, size = list(range(len(jobs))), min(at_once or self.size, self.size)
        busy: list[_Worker] = []
        while waiting or busy:
            while waiting and len(busy) < size:
                worker = self._idle(busy)
                place = _next([jobs[i].group for i in waiting], worker.group, {other.group for other in busy})
                _hand(worker, waiting[place], jobs[waiting[place]])
                busy.append(worker)
                del waiting[place]
            for worker in _ready(busy):
                answer = self._answer(worker)
                if answer is not None:
                    busy.remove(worker)
                    yield worker.job, answer

    def _idle(self, busy: list[_Worker]) -> _Worker:
        for worker in self._workers:
            if worker not in busy:
                return worker
        prepare_workers(self.threads)
        context = _context()
        (ours, theirs), (end, life) = context.Pipe(), context.Pipe(duplex=False)
        process = context.Process(target=serve, args=(theirs, end, list(self.plugins), self.threads), daemon=True)
        process.start()
        theirs.close()
        end.close()
        self._workers.append(_Worker(process, ours, life))
        return self._workers[-1]

    def _answer(self, worker: _Worker) -> Answer | None:
        """What came of the worker's job; None where it is still at it. A worker that hangs or dies is gone afterwards."""
        seconds = time.monotonic() - worker.started
        try:
            if worker.connection.poll():
                answer = msgspec.msgpack.decode(worker.connection.recv_bytes(), type=Answer)
                return msgspec.structs.replace(answer, seconds=seconds)
            if seconds < worker.limit:
                return None
            found = Answer("timeout", f"ran past its limit of {worker.limit:g} s", seconds=seconds)
        except (EOFError, OSError, msgspec.MsgspecError):
            worker.process.join(1)
            found = Answer("failed", _ending(worker.process.exitcode), seconds=seconds)
        self._workers.remove(worker)
        _end(worker)
        return found


def _hand(worker: _Worker, place: int, job: Job) -> None:
    worker.job, worker.group, worker.limit, worker.started = place, job.group, job.limit, time.monotonic()
    with suppress(OSError):  # a worker that died meanwhile is seen when its answer is awaited
        worker.connection.send_bytes(msgspec.msgpack.encode(job.task))


def _ready(busy: Sequence[_Worker]) -> list[_Worker]:
    """Workers that have answered, died, or run past their limit."""
    patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
    found = wait([worker.connection for worker in busy], patience)
    now = time.monotonic()
    return [worker for worker in busy if worker.connection in found or now >= worker.deadline]


def _next(groups: Sequence[str], own: str, taken: Collection[str]) -> int:
    """Place of the job to hand out: of the worker's own group, else of one that nobody is at, else the first."""
    for wanted in (lambda group: group == own, lambda group: group not in taken):
        for place, group in enumerate(groups):
            if wanted(group):
                return place
    return 0


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.kill()
    worker.life.close()
    worker.process.join(5)


def _ending(code: int | None) -> str:
    if code is None:
        return "its process closed the pipe and lives on"
    if code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return f"its process was ended by {name}{', as for want of memory' if name == 'SIGKILL' else ''}"
        return f"its process was ended by signal {-code}"
    return f"its process ended with exit code {code}"
