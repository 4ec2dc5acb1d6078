"""Estimates a second of kernels on the GPU, of kernels on one CPU thread, and of torch forms on the GPU; by `tests/gpu/run`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.environment import commit, machine, versions
from bench.measure import pinned
from bench.statistics import median_interval
from bench.timing import time_together
from estimators import ESTIMATORS
from problems import PROBLEMS

ROUNDS = 15
DTYPES = ("float64", "float32")
WAYS = {
    "kernel on the GPU": ("cuda", "cuda"),
    "kernel, one CPU thread": ("numba", "cpu"),
    "torch on the GPU": ("torch", "cuda"),
}
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("reinforce", {}, "bernoulli_toy", {}),
    ("rloo", {"samples": 4}, "bernoulli_toy", {}),
    ("disarm", {}, "bernoulli_toy", {}),
    ("reinforce", {}, "bernoulli_toy", {"dim": 200}),
    ("rloo", {"samples": 4}, "bernoulli_toy", {"dim": 200}),
    ("reinforce", {}, "gaussian_cost", {}),
    ("pathwise", {}, "gaussian_cost", {}),
    ("measure_valued_normal", {}, "gaussian_cost", {}),
    ("rebar", {}, "quadratic", {}),
    ("rloo", {"samples": 2}, "tiny_sbn", {}),
    ("disarm", {}, "sbn", {}),
    ("pathwise", {}, "bayes_logreg", {}),
    ("reinforce", {}, "bayes_logreg", {}),
]


def rates(case: tuple[str, dict[str, Any], str, dict[str, Any]], dtype: str) -> dict[str, dict[str, float]]:
    """Estimates a second by each way, with the 95% interval of the median over rounds."""
    name, settings, of, its = case
    problem, found = PROBLEMS[of](**its), {}
    there = problem.at(problem.point_names()[0])
    for way, (backend, device) in WAYS.items():
        timing = time_together(
            [(ESTIMATORS[name](**settings), there)], [backend], rounds=ROUNDS, dtype=dtype, device=device
        )
        seconds = median_interval(np.log(timing[0].seconds))
        found[way] = {
            "median": float(np.exp(-np.median(np.log(timing[0].seconds)))),
            "low": float(np.exp(-seconds.high)),
            "high": float(np.exp(-seconds.low)),
        }
    return found


def main(out: Path) -> None:
    gpu = torch.cuda.get_device_properties(0)
    head, changed = commit()
    rows = []
    with pinned(1):
        for dtype in DTYPES:
            for case in CASES:
                row = {"estimator": case[0], "settings": case[1], "problem": case[2], "problem_settings": case[3]}
                rows.append({**row, "dtype": dtype, "estimates_per_second": rates(case, dtype)})
                told = {way: f"{one['median']:.3g}" for way, one in rows[-1]["estimates_per_second"].items()}
                print(dtype, *case, told, flush=True)
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": head,
        "changed_since": changed,
        "gpu": {"name": gpu.name, "memory_bytes": gpu.total_memory, "multiprocessors": gpu.multi_processor_count},
        "driver": driver(),
        "processor": machine()["processor"],
        "versions": {**versions(), "numba-cuda": version("numba-cuda"), "cuda": torch.version.cuda},
        "rounds": ROUNDS,
        "interval": "95%, of the median over rounds",
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


def driver() -> str:
    """As nvidia-smi names it."""
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
