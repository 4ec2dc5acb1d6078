"""How a run tells what it does: a live bar in a terminal, plain lines now and then in a log, JSON lines for programs.

All of it but the JSON goes to the standard error, so that the standard output holds the results alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from bench.plan import Row
from bench.worker import Answer

INTERVAL = 5.0


class Progress(Protocol):
    """What a run reports."""

    def begin(self, stage: str, total: int) -> None:
        """A stage (measuring, timing) of so many steps begins."""

    def finished(self, row: Row, answer: Answer) -> None:
        """A cell is measured, or has failed."""

    def step(self, title: str) -> None:
        """One step of a stage that has no cells of its own."""

    def note(self, text: str) -> None:
        """A sentence for the reader."""

    def close(self) -> None:
        """Nothing more will come of this stage."""


class Lines:
    """Plain lines: every failure, and how far the run is every few seconds."""

    def __init__(self, write: Callable[[str], None] | None = None, interval: float = INTERVAL) -> None:
        self.write = write or (lambda text: print(text, file=sys.stderr, flush=True))
        self.interval = interval
        self.stage, self.total, self.done, self.said, self.started = "", 0, 0, 0.0, 0.0

    def begin(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        self.said = self.started = time.monotonic()

    def finished(self, row: Row, answer: Answer) -> None:
        assert row.cell is not None
        if answer.status != "done":
            self.write(f"{answer.status}: {row.cell.title()}: {answer.reason}")
        self.step(f"{row.estimator} on {row.problem} at {row.point}")

    def step(self, title: str) -> None:
        self.done += 1
        now = time.monotonic()
        if self.done == self.total or now - self.said >= self.interval:
            self.said = now
            self.write(
                f"{self.stage} {self.done}/{self.total}, {left(now - self.started, self.done, self.total)} ({title})"
            )

    def note(self, text: str) -> None:
        self.write(text)

    def close(self) -> None:
        pass


class Live(Lines):
    """A bar that stays on one line, with the time that is left; failures scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        super().__init__(lambda text: self.console.print(text, markup=False, highlight=False))
        self.console = Console(stderr=True)
        columns = ["{task.description:>9}", "{task.fields[title]}"]
        self.bars = Bars(
            TextColumn(columns[0]),
            BarColumn(None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn(columns[1], markup=False),
            console=self.console,
            transient=True,
        )

    def begin(self, stage: str, total: int) -> None:
        super().begin(stage, total)
        for task in self.bars.task_ids:
            self.bars.remove_task(task)
        self.bars.add_task(stage, total=total, title="")
        self.bars.start()

    def step(self, title: str) -> None:
        for task in self.bars.task_ids:
            self.bars.update(task, advance=1, title=title[:40])

    def close(self) -> None:
        self.bars.stop()


class Json:
    """One JSON object a line on the standard output; the last one is the result."""

    def begin(self, stage: str, total: int) -> None:
        say({"event": "stage", "stage": stage, "total": total})

    def finished(self, row: Row, answer: Answer) -> None:
        say(
            {
                "event": "cell",
                "key": row.key,
                "problem": row.problem,
                "problem_settings": dict(row.problem_settings),
                "point": row.point,
                "estimator": row.estimator,
                "estimator_settings": dict(row.estimator_settings),
                "status": answer.status,
                "reason": answer.reason,
                "seconds": round(answer.seconds, 3),
            }
        )

    def step(self, title: str) -> None:
        say({"event": "step", "what": title})

    def note(self, text: str) -> None:
        say({"event": "note", "text": text})

    def close(self) -> None:
        pass


def say(value: Any) -> None:
    """A line of JSON; what is not a number is null, as JSON has no NaN."""
    print(json.dumps(value, allow_nan=False), flush=True)


def left(elapsed: float, done: int, total: int) -> str:
    """About how long the rest takes, from what is done."""
    if done == total:
        return f"took {duration(elapsed)}"
    return f"about {duration(elapsed * (total - done) / done)} left"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress(as_json: bool) -> Progress:
    """The one that fits where the output goes."""
    if as_json:
        return Json()
    return Live() if sys.stderr.isatty() else Lines()
