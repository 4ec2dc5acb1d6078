"""The command line. Whatever a command needs is imported when it runs: listing must not wait for torch."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.errors import Refusal, nearest

if TYPE_CHECKING:
    from bench.run import Request

USAGE, INTERRUPTED = 2, 130
F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.ParamType):
    """A duration: 90s, 10m, 2h, or a number of seconds."""

    name = "duration"
    units = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", value.strip())
        if not found or not 0 < float(found[1]) < 1e9:
            self.fail(f"{value!r} is no duration; write it like 90s, 10m or 2h", param, ctx)
        return float(found[1]) * self.units[found[2]]


class Count(click.ParamType):
    """A whole number: 65536, 65_536 or 1e6."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            number = float(value) if re.search(r"[.eE]", value) else int(value)
            whole = int(number)
            if whole != number:
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no whole number", param, ctx)
        if not self.least <= whole <= self.most:
            self.fail(f"{value} is not between {self.least} and {self.most}", param, ctx)
        return whole


class Commands(click.Group):
    """A group that names the nearest command where there is none of that name."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise Refusal(f"there is no command {args[0]!r}{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="gradient-estimator-bench", prog_name="bench")
def cli() -> None:
    """Bias, variance and wall-clock of Monte Carlo gradient estimators, every number with an interval."""


as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output on the standard output.")
plugin = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="A Python file with PROBLEMS and/or ESTIMATORS. Repeatable.",
)


def run_options(function: F) -> F:
    """The options that say which cells: those of run and of plan."""
    options = [
        click.argument("suite", default="", metavar="[SUITE]"),
        click.option(
            "-e", "--estimator", "estimators", multiple=True, metavar="SELECTOR", help="rloo[samples=2,4], '*'"
        ),
        click.option("-p", "--problem", "problems", multiple=True, metavar="SELECTOR", help="bernoulli_toy[dim=6,200]"),
        click.option("--point", "points", multiple=True, help="A parameter point. Repeatable; all of them by default."),
        plugin,
        click.option("--replicates", type=Count(64, 2**40), help="Gradients a cell."),
        click.option("--seed", type=Count(0, 2**63 - 1), help="Of the addressed noise."),
        click.option("--backend", type=click.Choice(["auto", "torch", "numba", "cuda"])),
        click.option("--device", default="cpu", show_default=True),
        click.option("--dtype", type=click.Choice(["float64", "float32"])),
        click.option("--threads", type=Count(1, 1024), default=1, show_default=True, help="Of each worker."),
        click.option("--out", type=click.Path(path_type=Path), help="A folder that stands in for results/."),
        click.option("--jobs", type=Count(1, 1024), help="Worker processes; one a core by default."),
        click.option("--cell-timeout", type=Seconds(), default="120s", show_default=True, help="Limit for one cell."),
        as_json,
    ]
    for option in reversed(options):
        function = option(function)
    return function


def request_of(
    suite: str,
    estimators: Sequence[str],
    problems: Sequence[str],
    points: Sequence[str],
    plugins: Sequence[str],
    replicates: int | None,
    seed: int | None,
    backend: str | None,
    device: str,
    dtype: str | None,
    threads: int,
    out: Path | None,
    jobs: int | None,
    cell_timeout: float,
    retry: bool = False,
) -> Request:
    """What run and plan were asked for."""
    from bench.execute import cpu_count
    from bench.plan import Options
    from bench.run import RESULTS, Request
    from bench.suite import DEFAULT, narrowed, read_suite

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Refusal(f"--device {device}: a device is cpu, cuda or cuda:0")
    found = read_suite(suite or DEFAULT)
    return Request(
        suite=narrowed(found, problems, estimators),
        where="" if problems or estimators else suite or DEFAULT,
        plugins=[str(Path(path).expanduser().resolve()) for path in plugins],
        options=Options(points, replicates, seed, backend, dtype, device),
        threads=threads,
        jobs=jobs or max(1, cpu_count() // threads),
        cell_timeout=cell_timeout,
        root=out or RESULTS,
        out=out is not None,
        retry=retry,
        command=typed(),
    )


def typed() -> str:
    """The command as it can be typed again."""
    program = "python -m bench" if Path(sys.argv[0]).name == "__main__.py" else Path(sys.argv[0]).name
    return f"{program} {shlex.join(sys.argv[1:])}"


def write_json(value: Any) -> None:
    """One JSON document on the standard output."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, default=str))


@cli.command("list")
@plugin
@as_json
def list_(plugins: Sequence[str], as_json: bool) -> None:
    """Problems, estimators and suites."""
    from bench.plugins import catalogue
    from bench.suite import names

    found = catalogue(plugins)
    members = {"problems": found.problems, "estimators": found.estimators}
    if as_json:
        write_json(
            {
                **{
                    kind: [
                        {"name": e.name, "summary": e.summary(), "settings": e.settings(), "origin": e.origin}
                        for e in entries.values()
                    ]
                    for kind, entries in members.items()
                },
                "suites": names(),
            }
        )
        return
    for kind, entries in members.items():
        click.echo(kind.capitalize())
        for entry in entries.values():
            settings = ", ".join(f"{name}={value}" for name, value in entry.settings().items())
            click.echo(f"  {entry.name:<22} {entry.summary()}")
            if settings:
                click.echo(f"  {'':<22} [{settings}]")
    click.echo(f"Suites\n  {', '.join(names())}")


@cli.command()
@run_options
@click.option("--retry", is_flag=True, help="Measure failed cells again.")
@click.option("--no-report", is_flag=True, help="Only the table and the stored results.")
def run(as_json: bool, no_report: bool, **asked: Any) -> int:
    """Measure the cells of SUITE (standard by default), or the grid of -p and -e; what is stored is not measured again."""
    from bench.progress import progress, say
    from bench.run import run as make

    request = request_of(**asked)
    done = make(request, progress(as_json))
    if as_json:
        import pyarrow.parquet as pq

        rows = pq.read_table(done.folder / "results.parquet").to_pylist()
        for row in rows:
            say({"event": "row", **row})
    else:
        _print_table(done.folder)
    if not no_report:
        _write_report(done.folder, renew=done.fresh)
    if as_json:
        say(
            {
                "event": "result",
                "folder": str(done.folder),
                "measured": done.measured,
                "cells": done.total,
                "exit_code": done.code,
            }
        )
    else:
        how = (
            f"{done.measured} of {done.total} cells measured, the others stored before"
            if done.fresh
            else "all of it was stored"
        )
        click.echo(f"{done.folder} ({how})")
    return done.code


def _print_table(folder: Path) -> None:
    import pandas as pd
    from rich.console import Console

    from bench.report.table import results_table

    Console().print(results_table(pd.read_parquet(folder / "results.parquet")))


def _write_report(folder: Path, renew: bool) -> None:
    """The report and the figures, where they are not there yet."""
    if (folder / "report.html").exists() and not renew:
        return
    from bench.report.figures import write_figures
    from bench.report.page import write_report

    write_figures(folder)
    write_report(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(outcome_of(list(sys.argv[1:] if arguments is None else arguments)))


def outcome_of(arguments: list[str]) -> int:
    """The exit code of a command line; a refusal is one line on the standard error, and an object with --json."""
    try:
        return int(cli.main(arguments, prog_name="bench", standalone_mode=False) or 0)
    except Refusal as refusal:
        message = str(refusal)
    except click.exceptions.Exit as leave:
        return int(leave.exit_code)
    except click.UsageError as error:
        message = error.format_message()
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"interrupted; what was measured is stored, and this resumes it:\n  {typed()}", err=True)
        return INTERRUPTED
    click.echo(f"error: {message}", err=True)
    if "--json" in arguments:
        click.echo(json.dumps({"error": message}))
    return USAGE
