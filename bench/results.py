"""A run's folder: results.parquet (a row a cell), coordinates.parquet (a row a coordinate) and manifest.json, from the store."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.measurement import LEVEL, Measurement, bias_test, summarise
from bench.outcome import Outcome
from bench.plan import Row
from bench.statistics import holm
from problems.settings import settings_text

if TYPE_CHECKING:
    import pyarrow as pa

    from bench.timing import Timing

SCHEMA_VERSION = 1
FILES = ("results.parquet", "coordinates.parquet", "manifest.json")

_TEXT, _WHOLE, _REAL, _TRUTH = "string", "int64", "float64", "bool"
COLUMNS: dict[str, str] = {
    **dict.fromkeys(["run", "problem", "problem_settings", "point", "family"], _TEXT),
    **dict.fromkeys(["dim", "params"], _WHOLE),
    **dict.fromkeys(["objective", "estimator", "estimator_settings", "claimed"], _TEXT),
    **dict.fromkeys(["samples", "replicates", "seed"], _WHOLE),
    **dict.fromkeys(["backend", "device", "dtype"], _TEXT),
    "threads": _WHOLE,
    **dict.fromkeys(["gradient_norm", "bias_norm", "bias_norm_low", "bias_norm_high", "bias_p"], _REAL),
    "verdict": _TEXT,
    **dict.fromkeys(["total_variance", "total_variance_low", "total_variance_high", "mse", "snr", "cosine"], _REAL),
    **dict.fromkeys(["kurtosis", "f_evals", "gradient_evals"], _REAL),
    **dict.fromkeys(["ns_per_estimate", "ns_per_estimate_low", "ns_per_estimate_high", "work_variance"], _REAL),
    **dict.fromkeys(["mse_low", "mse_high", "snr_low", "snr_high", "cosine_low", "cosine_high"], _REAL),
    **dict.fromkeys(["effective_number", "tail_index"], _REAL),
    "trusted": _TRUTH,
    **dict.fromkeys(["tolerance", "replicates_needed", "cold_s"], _REAL),
    **dict.fromkeys(["learn_f_evals", "learn_gradient_evals", "learn_seconds", "noise_floor"], _REAL),
    "truth_tier": _TEXT,
    "truth_se": _REAL,
    "peak_bytes": _WHOLE,
    **dict.fromkeys(["status", "reason"], _TEXT),
    **dict.fromkeys(["work_variance_low", "work_variance_high"], _REAL),
    **dict.fromkeys(["yardstick_ratio", "yardstick_ratio_low", "yardstick_ratio_high", "hessian_evals"], _REAL),
    "rounding": _REAL,
    "key": _TEXT,
    **dict.fromkeys(["subsampling_variance", "subsampling_variance_low", "subsampling_variance_high"], _REAL),
}
CELL_KEY = ["run", "problem", "problem_settings", "point", "estimator", "estimator_settings"]
CELL_KEY += ["backend", "device", "dtype", "seed", "replicates"]
COORDINATE = ["mean", "se", "truth", "truth_se", "variance", "kurtosis", "z"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A row of the plan with what became of it. outcome: reads it from the store, where the status is done."""

    row: Row
    status: str
    reason: str = ""
    outcome: Callable[[], Outcome] | None = None
    timing: Timing | None = None


def write_files(
    folder: Path, run: str, entries: Sequence[Entry], threads: int, manifest: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write the three files into an existing folder; each appears whole or not at all. Returns the rows of results.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rejected = _rejections(entries)
    rows: list[dict[str, Any]] = []
    coordinates: list[pa.Table] = []
    for place, entry in enumerate(entries):
        row = _planned(run, entry, threads)
        if entry.outcome is not None:
            outcome = entry.outcome()
            m = summarise(outcome, entry.timing, rejected.get(place, False))
            row.update(_measured(outcome, m))
            coordinates.append(_coordinates(row, m))
        rows.append({name: _plain(row.get(name)) for name in COLUMNS})
    schema = pa.schema([(name, _arrow(kind)) for name, kind in COLUMNS.items()])
    table = pa.concat_tables(coordinates) if coordinates else _no_coordinates()
    with _whole(folder / "results.parquet") as path:
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    with _whole(folder / "coordinates.parquet") as path:
        pq.write_table(table, path, compression="zstd")
    with _whole(folder / "manifest.json") as path:
        path.write_text(json.dumps(dict(manifest), indent=1) + "\n", "utf-8")
    return rows


def _rejections(entries: Sequence[Entry]) -> dict[int, bool]:
    """Holm over the done cells that have a truth: place -> whether `unbiased` is rejected."""
    p = {}
    for place, entry in enumerate(entries):
        if entry.outcome is not None and (outcome := entry.outcome()).has_truth:
            p[place] = bias_test(outcome)
    rejected = holm(list(p.values()), LEVEL).rejected
    return {place: bool(no) for place, no in zip(p, rejected, strict=True)}


def _planned(run: str, entry: Entry, threads: int) -> dict[str, Any]:
    """The columns that the plan knows."""
    row, facts, cell = entry.row, entry.row.facts, entry.row.cell
    found: dict[str, Any] = {
        "run": run,
        "problem": row.problem,
        "problem_settings": settings_text(row.problem_settings),
        "point": row.point,
        "estimator": row.estimator,
        "estimator_settings": settings_text(row.estimator_settings),
        "threads": threads,
        "status": entry.status,
        "reason": entry.reason,
    }
    if facts is not None:
        found |= {"family": facts.family, "objective": facts.objective, "dim": facts.dim, "params": facts.params}
    if cell is not None:
        found |= {"replicates": cell.replicates, "seed": cell.seed, "backend": cell.backend, "key": row.key}
        found |= {"device": cell.device, "dtype": cell.dtype}
    return found


def _measured(outcome: Outcome, m: Measurement) -> dict[str, Any]:
    """The columns that are read from the outcome."""
    ends = {
        "bias_norm": m.bias_norm_interval,
        "total_variance": m.total_variance_interval,
        "subsampling_variance": m.subsampling_variance_interval,
        "mse": m.mse_interval,
        "snr": m.snr_interval,
        "cosine": m.cosine_interval,
        "yardstick_ratio": m.yardstick_ratio_interval,
        "work_variance": m.work_variance_interval,
    }
    same = ["gradient_norm", "verdict", "f_evals", "gradient_evals", "effective_number", "tail_index", "trusted"]
    same += [
        "tolerance",
        "replicates_needed",
        "cold_s",
        "rounding",
        "hessian_evals",
        "learn_f_evals",
        "learn_gradient_evals",
        "learn_seconds",
    ]
    same += ["noise_floor", "truth_tier", "peak_bytes", "replicates", "backend", "device", "dtype", "claimed", *ends]
    found: dict[str, Any] = {name: getattr(m, name) for name in same}
    for name, (low, high) in ends.items():
        found |= {f"{name}_low": low, f"{name}_high": high}
    low, high = m.seconds_per_estimate_interval
    found |= {
        "ns_per_estimate": 1e9 * m.seconds_per_estimate,
        "ns_per_estimate_low": 1e9 * low,
        "ns_per_estimate_high": 1e9 * high,
        "bias_p": m.bias_p if outcome.has_truth else None,
        "kurtosis": float(m.kurtosis.max()),
        "truth_se": float(np.linalg.norm(outcome.truth_se)),
        "family": outcome.family,
        "objective": outcome.objective,
        "samples": outcome.samples,
        "dim": outcome.dim,
        "params": outcome.params,
    }
    return found


def _coordinates(row: Mapping[str, Any], m: Measurement) -> pa.Table:
    """One row for each coordinate of a cell."""
    import pyarrow as pa

    count = len(m.gradient)
    nothing = np.full(count, np.nan)
    values = {
        "mean": m.gradient,
        "se": m.gradient_se,
        "truth": nothing if m.truth is None else m.truth,
        "truth_se": nothing if m.truth_se is None else m.truth_se,
        "variance": m.variance,
        "kurtosis": m.kurtosis,
        "z": nothing if m.z is None else m.z,
    }
    columns: dict[str, Any] = {
        name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([row[name]], pa.string()))
        if COLUMNS[name] == _TEXT
        else pa.array([row[name]] * count, _arrow(COLUMNS[name]))
        for name in CELL_KEY
    }
    columns["coordinate"] = pa.array(np.arange(count))
    columns |= {name: pa.array(values[name], pa.float64(), from_pandas=True) for name in COORDINATE}
    return pa.table(columns)


def _no_coordinates() -> pa.Table:
    import pyarrow as pa

    fields = [(name, _arrow(COLUMNS[name])) for name in CELL_KEY]
    return pa.schema(
        [*fields, ("coordinate", pa.int64()), *[(name, pa.float64()) for name in COORDINATE]]
    ).empty_table()


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    return {_TEXT: pa.string(), _WHOLE: pa.int64(), _REAL: pa.float64(), _TRUTH: pa.bool_()}[kind]


def _plain(value: Any) -> Any:
    """Python's own type; what is not known is None, never NaN."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


@contextmanager
def new_folder(root: Path, run: str) -> Iterator[Path]:
    """A folder that takes its name once it is filled: a run is there whole or not at all."""
    partial = root / f".{run}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    os.replace(partial, root / run)


def point_latest(root: Path, run: str) -> None:
    """Let results/latest point at a run; where links cannot be made it is left out."""
    link, partial = root / "latest", root / ".latest.partial"
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(run, target_is_directory=True)
        os.replace(partial, link)
    except OSError:
        partial.unlink(missing_ok=True)
