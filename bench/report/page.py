"""report.html: one file that opens offline, made from the stored results alone. Every text in it is escaped by the template."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from bench.report import cells, numbers
from bench.report.figures import LOOKS, names, reasons, write_figures
from bench.report.table import evaluations, interval, rows_share

CAPTIONS = {
    "bias-variance": "Bias against variance",
    "variance": "Variance by estimator",
    "samples": "Variance and signal-to-noise ratio against samples",
    "time-error": "Time against error",
    "coordinates": "Bias by coordinate",
}
HEADS = {
    "estimator": "Name and settings; the full settings on hovering.",
    "claim": "What the estimator claims to be for this objective.",
    "verdict": "What was found: see How to read a verdict.",
    "|bias| / |truth|": "Norm of mean minus truth, the noise of the mean removed, relative to the norm of the truth.",
    "p": "p-value of being unbiased, corrected over the coordinates; Holm over the cells makes the verdict.",
    "variance": "Trace of the covariance of one estimate.",
    "of rows": "Part of the variance that is of the rows of data drawn, where a problem draws any; the rest is of the latents.",
    "SNR": "Squared norm of the truth (or of the mean, debiased) over the variance.",
    "MSE": "Mean squared error of one estimate.",
    "cosine": "Mean cosine between one estimate and the truth. Not a bias.",
    "f": "Evaluations of f (and of its gradient) for one estimate.",
    "learning": "Evaluations of f spent once, on what was learned.",
    "time": "Of one estimate, in this run on this machine.",
    "time / yardstick": "Relative to one draw and one evaluation of f, timed in the same rounds.",
    "time x variance": "Seconds x variance: what a given error costs.",
    "replicates": "Gradients measured.",
    "needs": "About how many replicates an undecided cell would take.",
    "note": "",
}


@dataclass(frozen=True)
class Item:
    """A cell of a table: what it says, what it sorts by, its class, and what is told on hovering."""

    text: str
    key: float | str = ""
    look: str = ""
    hint: str = ""


def write_report(folder: Path) -> Path:
    """Draw the figures of a run folder and write its report.html, whole or not at all. Raises Refusal where it holds no results."""
    folder = Path(folder)
    run = cells.read(folder)
    drawn = {path.stem: path for path in write_figures(folder) if path.suffix == ".png"}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(**content(run, drawn))
    path, partial = folder / "report.html", folder / ".report.html.partial"
    partial.write_text(text, encoding="utf-8", errors="replace")
    os.replace(partial, path)
    return path


def content(run: cells.Run, drawn: Mapping[str, Path]) -> dict[str, Any]:
    """What the template shows."""
    rows = run.cells
    broken = rows[rows["status"].isin(["failed", "timeout"])].to_dict("records")
    skipped = rows[rows["status"] == "skipped"].to_dict("records")
    return {
        "name": cells.clean(run.manifest.get("run", run.folder.name)),
        "summary": cells.summary(rows),
        "false_claims": [
            f"{r['estimator_full']} on {r['place']}" for r in rows[rows["false_claim"]].to_dict("records")
        ],
        "manifest": list(manifest_lines(run.manifest)),
        "noise_floor": noise_floor(rows),
        "matrix": matrix(rows) if len(rows) else None,
        "looks": {word: (color, letter) for word, (color, _, letter) in LOOKS.items() if word != "skipped"},
        "letters": {letter: reason for reason, letter in reasons(rows).items()},
        "problems": list(problems(rows, drawn)),
        "heads": HEADS,
        "broken": [[r["place"], r["estimator_full"], r["status"], r["note"]] for r in broken],
        "skipped": [[r["place"], r["estimator_full"], r["note"]] for r in skipped],
    }


def manifest_lines(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was run, a line an entry; what is nested deeper than once is JSON."""
    for name, value in manifest.items():
        if isinstance(value, Mapping) and not any(isinstance(inner, Mapping | list) for inner in value.values()):
            text = ", ".join(f"{key} {inner}" for key, inner in value.items())
        elif isinstance(value, Mapping | list):
            text = json.dumps(value, ensure_ascii=False)
        else:
            text = str(value)
        yield cells.clean(name).replace("_", " "), cells.clean(text) or "none"


def noise_floor(rows: pd.DataFrame) -> str:
    """The largest noise floor of the run, as a percentage; empty where nothing was timed."""
    floor = float(rows["noise_floor"].max()) if len(rows) else math.nan
    return f"{100 * math.expm1(floor):.2g}%" if math.isfinite(floor) else ""


def matrix(rows: pd.DataFrame) -> dict[str, Any]:
    """Estimators x problems at their points, as the table at the top shows them."""
    places, letters = list(dict.fromkeys(rows["place"])), reasons(rows)
    lines: dict[str, dict[str, Item]] = {}
    for row in rows.to_dict("records"):
        word = cells.word(row)
        letter = letters[cells.reason_kind(row)] if word == "skipped" else LOOKS[word][2] + "!" * row["false_claim"]
        hint = f"{row['estimator_full']} on {row['place']}: {word}"
        hint += "".join(f"; {text}" for text in (row["needs"] and f"needs {row['needs']}", row["note"]) if text)
        lines.setdefault(row["estimator_label"], {})[row["place"]] = Item(letter, look=word, hint=hint)
    return {
        "places": [(f"p{places.index(place)}", place) for place in places],
        "lines": [(name, [line.get(place) for place in places]) for name, line in lines.items()],
    }


def problems(rows: pd.DataFrame, drawn: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """A section each: its tables, a point each, and its figures."""
    places, files = list(dict.fromkeys(rows["place"])), names(rows)
    for label, group in rows.groupby("problem_label", sort=False):
        done = group[group["status"] == "done"]
        tables = [
            {
                "id": f"p{places.index(place)}",
                "title": place,
                "facts": facts(cell_rows[cell_rows["status"] == "done"]),
                "rows": [line(row) for row in cell_rows[cell_rows["status"] == "done"].to_dict("records")],
                "left_out": left_out(cell_rows),
            }
            for place, cell_rows in cells.places(group)
        ]
        pictures = []
        for kind, caption in CAPTIONS.items():
            if len(done) and (path := drawn.get(f"{kind}-{files[str(label)]}")) is not None:
                data = base64.b64encode(path.read_bytes()).decode("ascii")
                pictures.append({"caption": caption, "data": data, "file": f"figures/{path.stem}.svg"})
        yield {"title": label, "full": group["problem_full"].iloc[0], "tables": tables, "pictures": pictures}


def facts(done: pd.DataFrame) -> str:
    """What all estimators of a table share."""
    if done.empty:
        return "Nothing was measured here."
    first = done.iloc[0]
    parts = [first["family"], first["objective"], numbers.counted(first["params"], "parameter")]
    parts += ["no truth" if first["truth_tier"] == "none" else f"truth: {first['truth_tier']}"]
    if first["truth_tier"] != "none":
        parts += [f"|truth| = {numbers.number(first['gradient_norm'])}" + error_of(first)]
    return ", ".join(parts)


def error_of(row: Mapping[Any, Any]) -> str:
    """The standard error of a truth that has one."""
    return f" (standard error {numbers.number(row['truth_se'], 2)})" if row["truth_se"] > 0 else " (exact)"


def left_out(rows: pd.DataFrame) -> str:
    """How many cells the table does not show, and where to find them."""
    counts = rows["status"].value_counts()
    parts = [f"{counts[status]} {status}" for status in ("failed", "timeout", "skipped") if status in counts]
    return ", ".join(parts)


def line(row: Mapping[Any, Any]) -> list[Item]:
    """A line of a problem's table, in the order of HEADS."""
    word = cells.word(row)
    low, high = row["total_variance_low"], row["total_variance_high"]
    untrusted = "" if row["trusted"] else "untrusted"
    learned = row["learn_f_evals"] + row["learn_gradient_evals"]
    learning = evaluations({"f_evals": row["learn_f_evals"], "gradient_evals": row["learn_gradient_evals"]})
    return [
        Item(row["estimator_label"], row["estimator_label"], "name", row["estimator_full"]),
        Item(row["claimed"], row["claimed"]),
        Item(word + (" !" if row["false_claim"] else ""), word, f"verdict {word}"),
        Item(numbers.at_most(*interval(row, "relative_bias"), "%"), row["relative_bias_high"], untrusted),
        Item(p_value(row["bias_p"]), row["bias_p"]),
        Item(numbers.bounded(row["total_variance"], low, high), row["total_variance"], untrusted),
        Item(rows_share(row), row["rows_share"], untrusted),
        Item(numbers.bounded(*interval(row, "snr")), row["snr"], untrusted),
        Item(numbers.bounded(*interval(row, "mse")), row["mse"], untrusted),
        Item(numbers.bounded(*interval(row, "cosine")), row["cosine"]),
        Item(evaluations(row), row["f_evals"] + row["gradient_evals"]),
        Item(learning if learned > 0 else numbers.NOTHING, learned),
        Item(numbers.duration(*interval(row, "ns_per_estimate")), row["ns_per_estimate"]),
        Item(numbers.bounded(*interval(row, "yardstick_ratio")), row["yardstick_ratio"]),
        Item(numbers.bounded(*interval(row, "work_variance"), "s"), row["work_variance"], untrusted),
        Item(numbers.count(row["replicates"]), row["replicates"]),
        Item(row["needs"], row["replicates_needed"] if row["needs"] else math.nan),
        Item(row["note"], row["note"]),
    ]


def p_value(p: float) -> str:
    """Two digits, and no more than the test can say."""
    if not math.isfinite(p):
        return numbers.NOTHING
    return "< 1e-15" if p < 1e-15 else numbers.number(p, 2)
