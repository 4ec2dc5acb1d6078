"""A page for each problem, in Markdown, from the problem's own record and docstring, with a picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.describe import shown, truth_in_words
from bench.plugins import Catalogue
from bench.report.problem_picture import write_picture
from bench.selector import Choice, written

INDEX = "README.md"


def write_pages(choices: list[Choice], members: Catalogue, folder: Path, report: Callable[[str], None]) -> list[Path]:
    """A page and a picture for each chosen problem, and an index where every problem there is was chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for choice in choices:
        text, name = written(choice.name, choice.settings), stem(choice, members)
        report(text)
        write_picture(members.problems[choice.name].build(choice.settings), folder / f"{name}.png")
        page = folder / f"{name}.md"
        page.write_text("\n".join(page_lines(shown(text, members), name)) + "\n", "utf-8")
        files += [page, folder / f"{name}.png"]
    if {choice.name for choice in choices} == set(members.problems):
        index = folder / INDEX
        index.write_text("\n".join(index_lines(choices, members)) + "\n", "utf-8")
        files.append(index)
    return files


def stem(choice: Choice, members: Catalogue) -> str:
    """Name of a page: the problem's, with the settings that are not its defaults."""
    default = members.problems[choice.name].settings()
    other = {key: value for key, value in choice.settings.items() if default.get(key) != value}
    text = choice.name + "".join(f"-{key}-{value}" for key, value in sorted(other.items()))
    return re.sub(r"[^\w.,+-]+", "_", text)  # a setting may be a path


def page_lines(about: Mapping[str, Any], picture: str) -> Iterator[str]:
    """The page: what it is, f and the objective in symbols, sizes, points with their truth, the estimators that fit."""
    yield from (f"# {about['name']}", "", *about["doc"].splitlines(), "")
    yield from (f"![The objective along a line, and the integrand]({picture}.png)", "")
    if about["f"]:
        yield from ("f:", "", "```text", *about["f"].splitlines(), "```", "")
    yield from (f"Objective: {about['objective']}", "")
    yield from ("| | |", "| --- | --- |", f"| family | {about['family']} |")
    for key in FACTS:
        if key in about:
            yield f"| {key} | {_plain(about[key])} |"
    settings = ", ".join(f"`{key}={value}`" for key, value in about["settings"].items())
    yield from (f"| settings | {_cell(settings or 'none')} |", f"| source | {_cell(about['source'])} |", "")
    yield from ("| point | true gradient |", "| --- | --- |")
    for point, truth in about["points"].items():
        yield f"| {point} | {truth_in_words(truth).replace('|truth|', 'length')} |"
    yield from ("", f"Estimators that fit ({len(about['fits'])}): {', '.join(f'`{name}`' for name in about['fits'])}.")
    if about["kernel"]:
        yield from ("", f"With a compiled kernel ({len(about['kernel'])}): {', '.join(about['kernel'])}.")


FACTS = (
    "dim",
    "categories",
    "layers",
    "samples",
    "data",
    "rows drawn for each replicate",
    "params",
    "of them the model's",
    "derivatives of f",
    "f off its support",
)


def _plain(value: Any) -> Any:
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _cell(text: str) -> str:
    """Of a table: in one line, and without its rule."""
    return " ".join(text.split()).replace("|", "\\|")


def index_lines(choices: list[Choice], members: Catalogue) -> Iterator[str]:
    """Every page, with the first line of the problem's docstring."""
    yield from ("# The problems", "", "Made by `python -m bench pages`: a page for each, from its own record.", "")
    yield from ("| problem | what it is |", "| --- | --- |")
    for choice in choices:
        yield f"| [{choice.name}]({stem(choice, members)}.md) | {_cell(members.problems[choice.name].summary())} |"
