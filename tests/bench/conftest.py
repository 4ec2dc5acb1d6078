"""Run folders made up for what reads them: every status, unbounded intervals, zeros, no truth, hostile names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

HOSTILE = "<script>alert('x')</script> [bold]&\"\x1b[31m"
FAMILIES = ["bernoulli", "normal", "categorical", "gamma"]
Rows = list[dict[str, Any]]


def made_cells(problems: int, points: int, estimators: int, *, seed: int = 0, skipped: float = 0.25) -> Rows:
    """A row a cell of `problems` x `points` x `estimators`, as a run writes them."""
    rng = np.random.default_rng(seed)
    rows = []
    sampled = ["reinforce", "rloo", "disarm", "vimco"]
    for p in range(problems):
        family = FAMILIES[p % len(FAMILIES)]
        dim = [6, 200, 1, 31][p % 4]
        for point in [f"{name}" for name in ("init", "mid", "converged", "late")][:points]:
            norm = 10 ** rng.uniform(-3, 1)
            variance = norm**2 * 10 ** rng.uniform(0, 3)
            for e in range(estimators):
                name = sampled[e % 4] if e < 12 else f"estimator_{e}"
                settings = f"samples={2 ** (1 + e // 4)}" if e < 12 else ""
                rows.append(
                    made_cell(
                        rng,
                        problem=f"problem_{p}",
                        problem_settings=f"dim={dim}, target=0.45",
                        point=point,
                        estimator=name,
                        estimator_settings=settings,
                        family=family,
                        dim=dim,
                        norm=norm,
                        variance=variance * 10 ** rng.normal(0, 0.7) / (1 + e // 4 if e < 12 else 1),
                        samples=2 ** (1 + e // 4) if e < 12 else 1,
                        skip=rng.random() < skipped,
                    )
                )
    return rows


def made_cell(
    rng: np.random.Generator,
    *,
    norm: float = 1.0,
    variance: float = 4.0,
    samples: int = 2,
    dim: int = 6,
    skip: bool = False,
    **given: Any,
) -> dict[str, Any]:
    """One cell with plausible figures; `given` replaces columns."""
    n = 65_536
    share = 10 ** rng.uniform(-3, 0.5)
    verdict = "unbiased" if share < 1 / 100 else rng.choice(["undecided", "biased"], p=[0.7, 0.3])
    width = float(np.exp(1.96 * math.sqrt(2 * 10 ** rng.uniform(0, 1) / n)))
    ns = 10 ** rng.uniform(2, 7)
    bias = 0.0 if verdict != "biased" else share * norm
    row: dict[str, Any] = {
        "run": "synthetic",
        "problem": "bernoulli_toy",
        "problem_settings": "dim=6",
        "point": "init",
        "family": "bernoulli",
        "dim": dim,
        "params": dim,
        "objective": "Expectation",
        "estimator": "rloo",
        "estimator_settings": f"samples={samples}",
        "claimed": rng.choice(["biased", "consistent"]) if verdict == "biased" else "unbiased",
        "samples": samples,
        "replicates": n,
        "seed": 0,
        "backend": "torch",
        "device": "cpu",
        "dtype": "float64",
        "threads": 1,
        "status": "skipped" if skip else "done",
        "reason": None,
        "verdict": None if skip else str(verdict),
        "trusted": None if skip else True,
        "truth_tier": "enumeration",
    }
    if skip:
        row |= {"reason": f"{given.get('estimator', 'rloo')} is for normal variables; the problem's are bernoulli"}
        return row | dict.fromkeys(NUMBERS, math.nan) | given
    row |= {
        "gradient_norm": norm,
        "bias_norm": bias,
        "bias_norm_low": 0.7 * bias,
        "bias_norm_high": 1.3 * bias or share * norm,
        "bias_p": 1e-9 if bias else 0.4,
        "total_variance": variance,
        "total_variance_low": variance / width,
        "total_variance_high": variance * width,
        "mse": variance + bias**2,
        "mse_low": (variance + bias**2) / width,
        "mse_high": (variance + bias**2) * width,
        "snr": norm**2 / variance,
        "snr_low": norm**2 / variance / width,
        "snr_high": norm**2 / variance * width,
        "cosine": 0.3,
        "cosine_low": 0.29,
        "cosine_high": 0.31,
        "kurtosis": 4.0,
        "f_evals": float(samples),
        "gradient_evals": 0.0,
        "ns_per_estimate": ns,
        "ns_per_estimate_low": ns * 0.98,
        "ns_per_estimate_high": ns * 1.03,
        "yardstick_ratio": ns / 100,
        "yardstick_ratio_low": ns / 100 * 0.99,
        "yardstick_ratio_high": ns / 100 * 1.01,
        "work_variance": variance * ns * 1e-9,
        "effective_number": 20_000.0,
        "tail_index": 6.0,
        "tolerance": 0.01 * norm,
        "replicates_needed": 1.3e7 if verdict == "undecided" else math.nan,
        "cold_s": 0.1,
        "learn_f_evals": 0.0,
        "learn_gradient_evals": 0.0,
        "learn_seconds": 0.0,
        "noise_floor": 0.012,
        "truth_se": 0.0,
        "peak_bytes": 3e8,
    }
    return row | given


NUMBERS = [
    *(
        "gradient_norm",
        "bias_norm",
        "bias_norm_low",
        "bias_norm_high",
        "bias_p",
        "total_variance",
        "total_variance_low",
    ),
    *("total_variance_high", "mse", "mse_low", "mse_high", "snr", "snr_low", "snr_high", "cosine", "cosine_low"),
    *("cosine_high", "kurtosis", "f_evals", "gradient_evals", "ns_per_estimate", "ns_per_estimate_low"),
    *("ns_per_estimate_high", "yardstick_ratio", "yardstick_ratio_low", "yardstick_ratio_high", "work_variance"),
    *("effective_number", "tail_index", "tolerance", "replicates_needed", "cold_s", "learn_f_evals", "noise_floor"),
    *("learn_gradient_evals", "learn_seconds", "truth_se", "peak_bytes"),
]


def special_cells(seed: int = 1) -> Rows:
    """The cells that break careless code."""
    rng = np.random.default_rng(seed)
    none = dict.fromkeys(NUMBERS, math.nan) | {"verdict": None, "trusted": None}
    bare = {"bias_norm": math.nan, "bias_norm_low": math.nan, "bias_norm_high": math.nan, "bias_p": 1.0}
    untimed = dict.fromkeys([c for c in NUMBERS if c.startswith(("ns_", "yardstick", "noise_floor", "work"))], math.nan)
    heavy = {"trusted": False, "tail_index": 1.1, "total_variance_high": math.inf, "bias_norm_high": math.inf}
    zero = {"total_variance": 0.0, "total_variance_low": 0.0, "total_variance_high": 0.0, "work_variance": 0.0}
    return [
        made_cell(rng, estimator="exact", estimator_settings="", verdict="unbiased", snr=math.inf, **zero)
        | {"bias_norm": 0.0, "bias_norm_low": 0.0, "bias_norm_high": 0.0, "snr_low": math.inf, "snr_high": math.inf},
        made_cell(rng, estimator="heavy", verdict="undecided", replicates_needed=math.inf, snr_low=0.0, **heavy),
        made_cell(rng, estimator="wrong", verdict="biased", claimed="unbiased", bias_norm=0.2)
        | {"bias_norm_low": 0.1, "bias_norm_high": 0.3},
        made_cell(rng, estimator="no_truth", verdict="no-truth", truth_tier="none", tolerance=math.nan) | bare,
        made_cell(rng, estimator="limited", verdict="truth-limited", truth_tier="stored reference"),
        made_cell(rng, estimator="untimed", verdict="unbiased") | untimed,
        made_cell(rng, estimator="zero_truth", verdict="unbiased", gradient_norm=0.0, tolerance=0.02),
        made_cell(rng, estimator=HOSTILE, estimator_settings="a=<b>", verdict="unbiased", problem=HOSTILE, point="<i>"),
        made_cell(
            rng, estimator=HOSTILE, problem=HOSTILE, status="failed", point="<i>", reason=f"ValueError: {HOSTILE}"
        )
        | none,
        made_cell(rng, estimator="slow", status="timeout", reason="no answer within 60 s") | none,
        made_cell(rng, estimator="arm", skip=True, reason="arm is for bernoulli variables; problem's are gamma"),
    ]


def made_coordinates(rows: Rows, seed: int = 0) -> pd.DataFrame:
    """A row a coordinate of every cell that is done."""
    rng = np.random.default_rng(seed)
    key = ["problem", "problem_settings", "point", "estimator", "estimator_settings", "backend", "dtype", "device"]
    found = []
    for row in rows:
        if row["status"] != "done":
            continue
        z = rng.normal(size=row["dim"]) + 8 * (row["verdict"] == "biased") * (rng.random(row["dim"]) < 0.2)
        known = row["verdict"] != "no-truth"
        shared = {name: row[name] for name in key} | {"mean": 0.1, "se": 0.01, "truth": 0.1 if known else math.nan}
        shared |= {"truth_se": 0.0, "variance": 1.0, "kurtosis": 4.0}
        found += [shared | {"coordinate": j, "z": z[j] if known else math.nan} for j in range(row["dim"])]
    return pd.DataFrame(
        found, columns=[*key, "coordinate", "mean", "se", "truth", "truth_se", "variance", "kurtosis", "z"]
    )


@pytest.fixture
def cells() -> Callable[..., Rows]:
    """Rows of an ordinary run: `cells(problems, points, estimators)`."""
    return made_cells


@pytest.fixture
def special() -> Rows:
    """Rows with every status, infinite ends, zeros, no truth, hostile names."""
    return special_cells()


@pytest.fixture
def cell() -> Callable[..., dict[str, Any]]:
    """One row: `cell(column=value, ...)`."""
    return lambda **given: made_cell(np.random.default_rng(0), **given)


def write_run(folder: Path, rows: Sequence[dict[str, Any]], **manifest: Any) -> Path:
    """Rows as a run folder."""
    folder.mkdir()
    columns = list(made_cell(np.random.default_rng(0)))
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "results.parquet")
    made_coordinates(list(rows)).to_parquet(folder / "coordinates.parquet")
    made = {
        "schema": 1,
        "command": "bench run",
        "suite": "standard",
        "seed": 0,
        "threads": 1,
        "commit": "abc",
        "dirty": False,
        "machine": {"processor": "a <processor>", "cores": 2},
        "versions": {"python": "3.11", "torch": "2.13"},
    }
    (folder / "manifest.json").write_text(json.dumps(made | manifest))
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as a run folder and says where: `run_folder(rows, name="run", **manifest)`."""
    return lambda rows, name="run", **manifest: write_run(tmp_path / name, rows, **manifest)


@pytest.fixture(scope="session")
def special_run() -> Callable[[Path], Path]:
    """Writes the special cells and an ordinary problem into a folder below the one given."""
    return lambda root: write_run(root / "run", special_cells() + made_cells(1, 2, 14))
