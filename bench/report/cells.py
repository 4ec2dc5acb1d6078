"""The cells of a run as its folder stores them, and the words for what they say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import Refusal
from bench.report.numbers import counted, number

KEY = ["problem", "problem_settings", "point", "estimator", "estimator_settings", "backend", "dtype", "device"]
VERDICTS = ["unbiased", "biased", "undecided", "truth-limited", "no-truth"]
STATUSES = ["done", "skipped", "failed", "timeout"]
HEAVY_TAIL = 1.5  # Hill index of |d|^2 below which the variance may not exist
LONG = 16  # settings of more characters than this are shown only where they tell cells of the run apart
ENDS = ("", "_low", "_high")
TEXTS = [*KEY, "run", "family", "objective", "claimed", "verdict", "truth_tier", "status", "reason"]
NUMBERS = [
    *("dim", "params", "samples", "replicates", "gradient_norm", "bias_p", "kurtosis", "f_evals", "gradient_evals"),
    *(
        name + end
        for name in ("bias_norm", "total_variance", "mse", "snr", "cosine", "ns_per_estimate")
        for end in ENDS
    ),
    *("effective_number", "tail_index", "tolerance", "replicates_needed", "cold_s", "learn_f_evals", "learn_seconds"),
    *("learn_gradient_evals", "noise_floor", "truth_se", "peak_bytes"),
]
LATER = [name + end for name in ("yardstick_ratio", "subsampling_variance") for end in ENDS]  # which a run may not have


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds: a row a cell, a row a coordinate of a cell, and how it was made."""

    folder: Path
    cells: pd.DataFrame
    coordinates: pd.DataFrame
    manifest: dict[str, Any]


def read(folder: Path) -> Run:
    """Read a run folder. Raises Refusal, naming the folder, where it holds no results that can be read."""
    folder = Path(folder)
    if not (folder / "results.parquet").is_file():
        raise Refusal(f"{folder} is not a run folder: it has no results.parquet")
    manifest = folder / "manifest.json"
    try:
        cells = pd.read_parquet(folder / "results.parquet")
        stored = folder / "coordinates.parquet"
        coordinates = pd.read_parquet(stored) if stored.is_file() else pd.DataFrame(columns=[*KEY, "coordinate", "z"])
        coordinates = coordinates.assign(**{name: _cleaned(coordinates[name]) for name in KEY})
        made = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    except (OSError, ValueError) as error:
        raise Refusal(f"the results in {folder} cannot be read: {error}") from error
    missing = [name for name in [*TEXTS, *NUMBERS, "trusted"] if name not in cells]
    if missing:
        raise Refusal(f"{folder}/results.parquet is of another version: it has no column {missing[0]!r}")
    return Run(folder, described(cells), coordinates, made if isinstance(made, dict) else {})


def described(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with what every view shows of them beside the stored columns.

    problem_label, place (the problem at its point) and estimator_label, with problem_full and estimator_full; relative_bias with
    its interval, in percent of |truth| (of one replicate's standard deviation where the truth is zero: relative_to says which);
    work_variance with its interval; rows_share with its interval, the part of the variance that is of the rows of data drawn, in
    percent; false_claim; needs; note. Texts are never null, and of one line.
    """
    rows = cells.reset_index(drop=True)
    texts = {name: rows[name].astype(object).where(rows[name].notna(), "").map(clean) for name in TEXTS}
    rows = rows.assign(**{name: math.nan for name in LATER if name not in rows})
    reals = {name: pd.to_numeric(rows[name], errors="coerce").astype(float) for name in [*NUMBERS, *LATER]}
    rows = rows.assign(**texts, **reals, trusted=rows["trusted"].eq(True))
    done = rows["status"] == "done"
    varied = [c for c in ("backend", "dtype", "device") if rows.loc[done, c].nunique() > 1]
    tags = [" ".join(row[c] for c in varied) for row in rows.to_dict("records")]
    rows["problem_label"] = labels(rows["problem"], rows["problem_settings"])
    rows["place"] = [" at ".join(filter(None, pair)) for pair in zip(rows["problem_label"], rows["point"], strict=True)]
    names = labels(rows["estimator"], rows["estimator_settings"])
    rows["estimator_label"] = [f"{name} {tag}".strip() for name, tag in zip(names, tags, strict=True)]
    rows["estimator_full"] = [full(n, s) for n, s in zip(rows["estimator"], rows["estimator_settings"], strict=True)]
    rows["problem_full"] = [full(n, s) for n, s in zip(rows["problem"], rows["problem_settings"], strict=True)]
    zero = ~(rows["gradient_norm"] > 50 * rows["tolerance"])  # the tolerance is 1% of |truth| unless that is zero
    base = rows["gradient_norm"].where(~zero, np.sqrt(rows["total_variance"]))
    rows["relative_to"] = np.where(zero, "sd", "|truth|")
    for end in ENDS:
        rows[f"relative_bias{end}"] = 100 * rows[f"bias_norm{end}"] / base.where(base > 0)
        rows[f"rows_share{end}"] = _share_of_rows(rows, end)
    rows = rows.assign(**_work(rows))
    rows["false_claim"] = (rows["verdict"] == "biased") & (rows["claimed"] == "unbiased")
    rows["needs"] = [needs(row) for row in rows.to_dict("records")]
    rows["note"] = [note(row) for row in rows.to_dict("records")]
    return rows


def _share_of_rows(rows: pd.DataFrame, end: str) -> pd.Series:
    """Variance of the rows drawn over the total, in percent and no more than all of it; an end over the total's other end."""
    total = rows["total_variance" + {"_low": "_high", "_high": "_low"}.get(end, "")]
    return (100 * rows[f"subsampling_variance{end}"] / total.where(total > 0)).clip(upper=100)


def _work(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Total variance x seconds, the log half-widths of both added in quadrature."""
    variance, ns = rows["total_variance"], rows["ns_per_estimate"]
    found = {"work_variance": variance * ns * 1e-9}
    for end, sign in (("low", -1), ("high", 1)):
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = [rows[f"{name}_{end}"] / rows[name] for name in ("total_variance", "ns_per_estimate")]
            spread = np.exp(sign * np.hypot(*(np.log(factor) for factor in factors)))
        at_zero = rows[f"total_variance_{end}"].where(ns.notna())
        found[f"work_variance_{end}"] = (found["work_variance"] * spread).where(variance > 0, at_zero)
    return found


def _cleaned(texts: pd.Series) -> np.ndarray:
    """`clean` of each, made once for each text that occurs."""
    codes, unique = pd.factorize(texts)
    return np.array([*map(clean, unique), ""], dtype=object)[codes]


def clean(text: object) -> str:
    """One line of text without control characters, whatever a plug-in is called."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text)).strip()


def parsed(settings: object) -> dict[str, str]:
    """Settings by name, as text, from a mapping, its JSON, or `samples=2, scale=0.5`."""
    if isinstance(settings, str) and settings.lstrip().startswith("{"):
        try:
            settings = json.loads(settings)
        except ValueError:
            return {}
    if isinstance(settings, Mapping):
        return {clean(name): clean(value) for name, value in settings.items()}
    if not isinstance(settings, str):
        return {}
    pairs = re.findall(r"(\w+)=(.*?)(?=, *\w+=|$)", clean(settings).strip("[]"))
    return {name: value.strip() for name, value in pairs}


def full(name: object, settings: object) -> str:
    """`rloo[samples=2]` with every setting, or `disarm` where there is nothing to set."""
    return _bracketed(clean(name), parsed(settings))


def labels(names: pd.Series, settings: pd.Series) -> list[str]:
    """As `full`, but of long settings only those in which cells of the same name differ."""
    all_settings = [parsed(one) for one in settings]
    seen: dict[str, dict[str, set[str]]] = {}
    for name, one in zip(names, all_settings, strict=True):
        for key, value in one.items():
            seen.setdefault(clean(name), {}).setdefault(key, set()).add(value)
    found = []
    for name, one in zip(map(clean, names), all_settings, strict=True):
        telling = {key: value for key, value in one.items() if len(seen[name][key]) > 1}
        text = _bracketed(name, one)
        found.append(text if len(text) <= len(name) + 2 + LONG else _bracketed(name, telling))
    return found


def _bracketed(name: str, settings: Mapping[str, str]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in settings.items())
    return f"{name}[{inside}]" if inside else name


def short(text: str, most: int) -> str:
    """The text, its middle left out where it is longer than `most`."""
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def word(row: Mapping[Any, Any]) -> str:
    """The verdict of a cell that is done, the status of another."""
    return str(row["verdict"] if row["status"] == "done" else row["status"])


def needs(row: Mapping[Any, Any]) -> str:
    """About how many replicates an undecided cell would take to be decided."""
    if row["status"] != "done" or row["verdict"] != "undecided":
        return ""
    return number(needed, 2) if math.isfinite(needed := float(row["replicates_needed"])) else "ever more"


def note(row: Mapping[Any, Any]) -> str:
    """What a reader must know beside the numbers: why a cell is not done, what cannot be trusted."""
    if row["status"] != "done":
        return str(row["reason"] or "no reason was given")
    notes = []
    if row["false_claim"]:
        notes.append("claims unbiased")
    if not row["trusted"]:
        heavy = float(row["tail_index"]) < HEAVY_TAIL
        notes.append("heavy tail" if heavy else "too few replicates")
    if row["relative_to"] == "sd" and not math.isnan(float(row["bias_norm"])):
        notes.append("truth is 0: bias in % of sd")
    return "; ".join(notes)


def reason_kind(row: Mapping[Any, Any]) -> str:
    """The reason of a skipped cell without the names of the pair, so that equal reasons read equal."""
    reason = str(row["reason"] or "no reason was given")
    reason = reason.removeprefix(str(row["estimator"])).strip()
    return reason.split(";")[0]


def places(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each problem and point, in the order in which they first come."""
    return [(str(name), group) for name, group in rows.groupby("place", sort=False)]


def summary(rows: pd.DataFrame) -> str:
    """`41 cells: 30 unbiased, 3 biased (1 of them against their claim), 8 undecided; 2 failed, 17 skipped`."""
    if rows.empty:
        return "no cells"
    words = [word(row) for row in rows.to_dict("records")]
    false = int(rows["false_claim"].sum())
    parts = []
    for name in [*VERDICTS, *STATUSES[1:]]:
        if many := words.count(name):
            wrong = f" ({false} of them against their claim)" if name == "biased" and false else ""
            parts.append(f"{many} {name}{wrong}")
    return f"{counted(len(rows), 'cell')}: " + ", ".join(parts)
