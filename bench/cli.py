"""The command line. Whatever a command needs is imported when it runs: listing must not wait for torch."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.errors import Refusal, nearest

if TYPE_CHECKING:
    from bench.plan import Standing
    from bench.plugins import Catalogue, Entry
    from bench.run import Request
    from bench.selector import Choice

FAILED, USAGE, FALSE_CLAIM, INTERRUPTED = 1, 2, 4, 130
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
LATEST = Path("results/latest")
PAGES = Path("docs") / "problems"
LONGEST_LIST = 20
F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.ParamType):
    """A duration: 90s, 10m, 2h, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", value.strip())
        if not found or not 0 < float(found[1]) < 1e9:
            self.fail(f"{value!r} is no duration; write it like 90s, 10m or 2h", param, ctx)
        return float(found[1]) * UNITS[found[2]]


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

    _require_device(device)
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


def _require_device(device: str) -> None:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Refusal(f"--device {device}: a device is cpu, cuda or cuda:0")
    if device != "cpu":
        import torch

        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise Refusal(f"--device {device}: torch sees {count or 'no'} CUDA device{'s' * (count != 1)} here")


def typed() -> str:
    """The command as it can be typed again."""
    program = "python -m bench" if Path(sys.argv[0]).name == "__main__.py" else Path(sys.argv[0]).name
    return f"{program} {shlex.join(sys.argv[1:])}"


def plain(value: Any) -> Any:
    """A number that JSON has, or the text `inf`."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_json(value: Any) -> None:
    """One JSON document on the standard output."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, default=str))


@cli.command("list")
@click.argument("kind", type=click.Choice(["problems", "estimators", "suites"]), required=False)
@plugin
@as_json
def list_(kind: str | None, plugins: Sequence[str], as_json: bool) -> None:
    """Problems, estimators and suites; or one KIND of them."""
    from bench.plugins import catalogue
    from bench.suite import names

    found = catalogue(plugins)
    members = {"problems": found.problems, "estimators": found.estimators}
    wanted = {name: list(entries.values()) for name, entries in members.items() if kind in (None, name)}
    suites = names() if kind in (None, "suites") else []
    if as_json:
        write_json(
            {name: [_entry_as_json(e) for e in entries] for name, entries in wanted.items()}
            | ({"suites": suites} if suites else {})
        )
        return
    lines = [line for name, entries in wanted.items() for line in _entry_lines(name, entries)]
    click.echo("\n".join([*lines, *(["Suites", f"  {', '.join(suites)}"] if suites else [])]))


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    of_group = {"group": entry.group} if entry.group else {}
    return {
        "name": entry.name,
        "summary": entry.summary(),
        "settings": entry.settings(),
        "origin": entry.origin,
        **of_group,
    }


def _entry_lines(kind: str, entries: Sequence[Entry]) -> Iterator[str]:
    """The entries of one kind under their groups, and those from elsewhere under where they come from."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group or ("" if entry.origin == "built in" else entry.origin), []).append(entry)
    width = max((len(entry.name) for entry in entries), default=0)
    yield f"{kind.capitalize()} ({len(entries)})"
    for group, members in groups.items():
        if group:
            yield f" {group}"
        for entry in members:
            settings = ", ".join(f"{name}={value}" for name, value in entry.settings().items())
            yield f"  {entry.name:<{width}} {entry.summary()}{f' (needs {entry.lacks})' if entry.lacks else ''}"
            if settings:
                yield f"  {'':<{width}} [{settings}]"


@cli.command()
@click.argument("name")
@plugin
@as_json
def show(name: str, plugins: Sequence[str], as_json: bool) -> None:
    """All about NAME: a problem or an estimator, with settings if you like (rloo[samples=4]), or a suite."""
    from bench.describe import lines, shown
    from bench.plugins import catalogue

    about = shown(name, catalogue(plugins))
    if as_json:
        write_json(about)
    else:
        click.echo("\n".join(lines(about)))


@cli.command()
@run_options
def plan(as_json: bool, **asked: Any) -> None:
    """What run would do with the same arguments: stored, new, stale and why, skipped and why. Measures nothing."""
    from bench.plan import standings
    from bench.run import planned
    from bench.store import FILE, Store

    request = request_of(**asked)
    rows, _, _ = planned(request)
    file = request.root / FILE
    found = standings(rows, Store(file) if file.exists() else None)
    if as_json:
        write_json([_standing_as_json(one) for one in found])
        return
    for line in _plan_lines(found):
        click.echo(line)


def _standing_as_json(one: Standing) -> dict[str, Any]:
    row = one.row
    return {
        "state": one.state,
        "why": one.why,
        "problem": row.problem,
        "problem_settings": dict(row.problem_settings),
        "point": row.point,
        "estimator": row.estimator,
        "estimator_settings": dict(row.estimator_settings),
        "replicates": None if row.cell is None else row.cell.replicates,
        "key": None if row.cell is None else row.key,
    }


def _plan_lines(found: Sequence[Standing]) -> Iterator[str]:
    """A line of counts, then for each state its rows, grouped by the reason."""
    states = ("stored", "new", "stale", "skipped", "failed")
    counts = {state: sum(one.state == state for one in found) for state in states}
    yield f"{len(found)} rows: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    groups: dict[tuple[str, str], list[Standing]] = {}
    for one in found:
        groups.setdefault((one.state, one.why), []).append(one)
    for state in states:
        for (at, why), rows in groups.items():
            if at == state:
                yield f"{state}{f': {why}' if why else ''} ({len(rows)})"
                yield from _some(list(dict.fromkeys(_title(one) for one in rows))) if state != "skipped" else ()


def _title(one: Standing) -> str:
    from bench.selector import written

    row = one.row
    estimator = written(row.estimator, row.estimator_settings)
    return f"  {estimator} on {written(row.problem, row.problem_settings)}{f' at {row.point}' if row.point else ''}"


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:LONGEST_LIST]
    if len(lines) > LONGEST_LIST:
        yield f"  ... and {len(lines) - LONGEST_LIST} more (all of them with --json)"


@cli.command()
@run_options
@click.option("--retry", is_flag=True, help="Measure failed cells again.")
@click.option("--no-report", is_flag=True, help="Only the table and the stored results.")
def run(as_json: bool, no_report: bool, **asked: Any) -> int:
    """Measure the cells of SUITE (standard by default), or the grid of -p and -e; what is stored is not measured again."""
    import signal

    from bench.progress import progress, say
    from bench.run import run as make

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    request = request_of(**asked)
    done = make(request, progress(as_json))
    if as_json:
        import pyarrow.parquet as pq

        rows = pq.read_table(done.folder / "results.parquet").to_pylist()
        for row in rows:
            say({"event": "row", **{name: plain(value) for name, value in row.items()}})
    else:
        _print_table(done.folder)
    if not no_report:
        _write_report(done.folder, renew=done.fresh)
    counts = {"measured": done.measured, "cells": done.total}
    if as_json:
        say({"event": "result", "folder": str(done.folder), **counts, "exit_code": done.code})
        return done.code
    stored = f"{done.measured} of {done.total} cells measured, the others stored before"
    click.echo(f"{done.folder} ({stored if done.fresh else 'all of it was stored'})")
    if not no_report:
        click.echo(f"{done.folder / 'report.html'}")
    return done.code


def _print_table(folder: Path) -> None:
    import pandas as pd

    from bench.report.table import results_table

    _print(results_table(pd.read_parquet(folder / "results.parquet")))


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _write_report(folder: Path, renew: bool) -> None:
    """The report with its figures, where it is not there yet."""
    if renew or not (folder / "report.html").exists():
        from bench.report.page import write_report

        write_report(folder)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), default=LATEST)
@as_json
def report(folder: Path, as_json: bool) -> None:
    """Write report.html of a run FOLDER anew from its stored results (results/latest by default)."""
    _require_run(folder)
    from bench.report.page import write_report

    _written([write_report(folder)], as_json)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), default=LATEST)
@as_json
def plot(folder: Path, as_json: bool) -> None:
    """Draw the figures of a run FOLDER anew from its stored results (results/latest by default)."""
    _require_run(folder)
    from bench.report.figures import write_figures

    _written(write_figures(folder), as_json)


def _require_run(folder: Path) -> None:
    if not (folder / "results.parquet").is_file():
        missing = "there is no such folder" if not folder.is_dir() else "it has no results.parquet"
        raise Refusal(f"{folder} is not the folder of a run: {missing}; `bench run` makes one")


def _written(files: Sequence[Path], as_json: bool) -> None:
    if as_json:
        write_json({"files": [str(file) for file in files]})
    else:
        click.echo("\n".join(str(file) for file in files))


@cli.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@as_json
def compare(a: Path, b: Path, as_json: bool) -> int:
    """Compare run folder B with A: faster or slower, better or worse in variance. The exit code is 3 where B is worse."""
    for folder in (a, b):
        _require_run(folder)
    from bench.compare import compare as compared
    from bench.compare import comparison_table

    found = compared(a, b)
    if as_json:
        write_json(found.as_dict())
    else:
        _print(comparison_table(found))
    return found.exit_code


@cli.command()
@click.argument("estimator")
@click.option("-p", "--problem", "problems", multiple=True, metavar="SELECTOR", help="Only on these; all by default.")
@click.option("--replicates", type=Count(64, 2**40), help="Gradients for the test of bias.")
@click.option("--seed", type=Count(0, 2**63 - 1), default=0, show_default=True)
@plugin
@as_json
def check(
    estimator: str, problems: Sequence[str], replicates: int | None, seed: int, plugins: Sequence[str], as_json: bool
) -> int:
    """The conformance suite for ESTIMATOR, on every small problem that it fits; says in words what failed."""
    from bench.conformance import CLAIM, failures
    from bench.conformance import check as examine
    from bench.plugins import catalogue
    from bench.selector import choose

    members = catalogue(plugins)
    chosen = choose(estimator, members.estimators, "estimator")
    texts = problems or _small_problems(members)
    where = [choice for text in texts for choice in choose(text, members.problems, "problem")]
    built = [members.problems[choice.name].build(choice.settings) for choice in where]
    found = {
        written_choice(choice): examine(
            members.estimators[choice.name].build(choice.settings), built, seed=seed, replicates=replicates
        )
        for choice in chosen
    }
    failed = {name: failures(findings) for name, findings in found.items()}
    if as_json:
        keys = ("check", "problem", "point", "why")
        write_json({n: [{k: getattr(one, k) for k in keys} for one in findings] for n, findings in found.items()})
    else:
        for name, findings in found.items():
            for sentence in failed[name]:
                click.echo(f"{name}: {sentence}")
            places = len({(one.problem, one.point) for one in findings})
            fitting = f"{len(findings)} checks on {places} points of problems, {len(failed[name])} failed"
            click.echo(f"{name}: {fitting if findings else 'fits none of these problems'}")
    if any(one.why and one.check == CLAIM for findings in found.values() for one in findings):
        return FALSE_CLAIM
    return FAILED if any(failed.values()) or not all(found.values()) else 0


def _small_problems(members: Catalogue) -> list[str]:
    """Those of the conformance suite, and every problem of a plug-in."""
    from bench.suite import read_suite
    from problems import PROBLEMS

    small = [text for table in read_suite("conformance").cells for text in table.problems]
    return small + [name for name in members.problems if name not in PROBLEMS]


def written_choice(choice: Choice) -> str:
    """The choice as it can be typed."""
    from bench.selector import written

    return written(choice.name, choice.settings)


def _one_problem(text: str, plugins: Sequence[str]) -> Any:
    """The problem that a selector names."""
    from bench.plugins import catalogue
    from bench.selector import choose

    members = catalogue(plugins)
    chosen = choose(text, members.problems, "problem")
    if len(chosen) != 1:
        raise Refusal(f"{text!r} names {len(chosen)} problems; name one of them")
    return members.problems[chosen[0].name].build(chosen[0].settings)


def _estimators(texts: Sequence[str], plugins: Sequence[str]) -> list[Any]:
    """The estimators that selectors name."""
    from bench.plugins import catalogue
    from bench.selector import choose

    members = catalogue(plugins)
    chosen = [choice for text in texts for choice in choose(text, members.estimators, "estimator")]
    return [members.estimators[choice.name].build(choice.settings) for choice in chosen]


def _made(make: Callable[[Callable[[str], None]], list[Path]], as_json: bool) -> None:
    """Make stored files, telling how it goes on the standard error."""
    try:
        files = make(lambda text: click.echo(text, err=True))
    except (ValueError, ArithmeticError) as error:
        raise Refusal(str(error)) from error
    _written(files, as_json)


@cli.command()
@click.argument("problem")
@click.option("--steps", type=Count(1, 10**9), default=2000, show_default=True, help="Of Adam, at least.")
@click.option("--rate", type=float, default=0.01, show_default=True, help="Step size.")
@click.option("--replicates", type=Count(1, 10**6), default=16, show_default=True, help="Gradients averaged in a step.")
@click.option("--seed", type=Count(0, 2**63 - 1), default=0, show_default=True)
@click.option("--minimise", is_flag=True, help="Descend: the expectation is a cost.")
@plugin
@as_json
def points(
    problem: str,
    steps: int,
    rate: float,
    replicates: int,
    seed: int,
    minimise: bool,
    plugins: Sequence[str],
    as_json: bool,
) -> None:
    """Train PROBLEM and store where training passes and ends as its parameter points."""
    from bench.train import make_points

    built = _one_problem(problem, plugins)

    def make(tell: Callable[[str], None]) -> list[Path]:
        up = not minimise
        return [make_points(built, tell, steps=steps, rate=rate, replicates=replicates, seed=seed, maximise=up)]

    _made(make, as_json)


@cli.command()
@click.argument("problem")
@click.option("--point", "point_names", multiple=True, help="Repeatable; all of them by default.")
@click.option("-e", "--estimator", "estimators", multiple=True, metavar="SELECTOR", help="Choose among these only.")
@click.option("--max-time", type=Seconds(), default="10m", show_default=True, help="For each point.")
@click.option("--target", type=float, default=0.005, show_default=True, help="Standard error relative to the gradient.")
@click.option("--seed", type=Count(0, 2**63 - 1), default=1, show_default=True)
@plugin
@as_json
def reference(
    problem: str,
    point_names: Sequence[str],
    estimators: Sequence[str],
    max_time: float,
    target: float,
    seed: int,
    plugins: Sequence[str],
    as_json: bool,
) -> None:
    """Store the true gradient of PROBLEM from a very long run, with its standard error; the same command goes on."""
    from bench.reference import make_reference

    built, among = _one_problem(problem, plugins), _estimators(estimators, plugins)

    def make(tell: Callable[[str], None]) -> list[Path]:
        at = point_names or built.point_names()
        files = [
            make_reference(
                built, p, max_seconds=max_time, target=target, seed=seed, report=tell, candidates=among or None
            )
            for p in at
        ]
        return list(dict.fromkeys(files))

    _made(make, as_json)


@cli.command()
@click.option("-p", "--problem", "problems", multiple=True, metavar="SELECTOR", help="Only these; all by default.")
@click.option("--out", type=click.Path(path_type=Path), default=PAGES, show_default=True, help="The folder.")
@plugin
@as_json
def pages(problems: Sequence[str], out: Path, plugins: Sequence[str], as_json: bool) -> None:
    """Write a page with a picture for each problem: what `show` says of it, and its objective along a line."""
    from bench.plugins import catalogue
    from bench.report.problem_page import write_pages
    from bench.selector import choose

    members = catalogue(plugins)
    chosen = [choice for text in problems or ["*"] for choice in choose(text, members.problems, "problem")]
    _made(lambda tell: write_pages(chosen, members, out, tell), as_json)


@cli.command()
@as_json
def doctor(as_json: bool) -> None:
    """This machine, the versions, how steady its clock is, and how near the kernels come to the rate of their noise."""
    from estimators.kernels.backend import use_whole_vectors

    use_whole_vectors()  # before anything imports numba
    from bench.doctor import examine, table

    found = examine()
    if as_json:
        write_json(found.as_dict())
    else:
        _print(table(found))


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
        resumes = (
            f"; what was measured is stored, and this resumes it:\n  {typed()}" if arguments[:1] == ["run"] else ""
        )
        click.echo(f"interrupted{resumes}", err=True)
        return INTERRUPTED
    click.echo(f"error: {message}", err=True)
    if "--json" in arguments:
        click.echo(json.dumps({"error": message}))
    return USAGE
