"""pytest-benchmark cases: the sums of a range of replicates by a kernel, and by every other form of the same estimator.

They measure and assert nothing about speed. For ratios, of rounds interleaved in one process:
`python tests/benchmarks/test_kernels.py [--dtype float32] [--rounds 21] [part of a case's name ...]`. One thread is measured in
processor time, two in time by the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from array_libraries import Numpy, Torch
from benchmark_cases import CASES, FORMS, Call, by_kernel, pair
from pytest_benchmark.fixture import BenchmarkFixture

from bench.evaluate import gradients
from bench.measure import pinned
from estimators.kernels.backend import use_whole_vectors

COMPILED = ("disarm-bernoulli_toy-dim6", "pathwise-gaussian_cost")  # where nothing is measured
LEAST_SECONDS = 0.02


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Two kernels, so that they run at all, where nothing is measured."""
    if {"name", "form"} <= set(metafunc.fixturenames):
        measured = metafunc.config.getoption("benchmark_enable") or metafunc.config.getoption("benchmark_only")
        chosen = [(n, f) for n in CASES for f in FORMS] if measured else [(name, "kernel") for name in COMPILED]
        metafunc.parametrize(("name", "form"), chosen, ids=["-".join(one) for one in chosen])


def test_sums(benchmark: BenchmarkFixture, name: str, form: str) -> None:
    with pinned(1):
        call, benchmark.extra_info["replicates"] = FORMS[form](pair(name))
        assert benchmark(call) is not None


@pytest.mark.parametrize("library", [Torch, Numpy])
@pytest.mark.parametrize("name", CASES)
def test_the_vectorised_forms_are_the_estimator(name: str, library: type[Torch] | type[Numpy]) -> None:
    """Means of |g|^2 and of g at a vector v within five standard errors of the torch form's."""
    p = pair(name)
    n = max(64, min(20000, 2**20 // p.numbers))
    lib, v = library("float64"), np.random.default_rng(0).standard_normal(p.trial.dim)
    with pinned(1):
        wanted = gradients(p.trial, range(n)).numpy()
        found = np.asarray(p.forms.vectorised(p.trial, lib)(n)).T
    for a, b in ((wanted @ v, found @ v), ((wanted**2).sum(1), (found**2).sum(1))):
        assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / n)


def compared(calls: dict[str, Call], rounds: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Nanoseconds a replicate of every form, of each of these interleaved rounds."""

    def seconds(call: Callable[[], object], repeats: int) -> float:
        started = clock()
        for _ in range(repeats):
            call()
        return clock() - started

    for call, _ in calls.values():
        call()
    repeats = {form: max(1, round(LEAST_SECONDS / seconds(call, 1))) for form, (call, _) in calls.items()}
    found = {form: np.empty(rounds) for form in calls}
    for r in range(rounds):
        for form, (call, n) in calls.items():
            found[form][r] = 1e9 * seconds(call, repeats[form]) / (n * repeats[form])
    return found


def quoted(ratios: np.ndarray) -> str:
    """The median, and the quartiles."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"x{middle:.4g} [{low:.3g}, {high:.3g}]"


def main() -> None:
    read = argparse.ArgumentParser(
        description="Ratios of every form's time to the kernel's: median and quartiles of rounds."
    )
    read.add_argument("cases", nargs="*", help="parts of names; all without")
    read.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    read.add_argument("--rounds", type=int, default=21)
    asked = read.parse_args()
    from bench.ceilings import ceilings

    names = [name for name in CASES if not asked.cases or any(part in name for part in asked.cases)]
    with pinned(1):
        most = ceilings()
        print(f"Philox {most.words:.0f} M words/s; Box-Muller {most.normals[asked.dtype]:.0f} M normals/s", flush=True)
        for name in names:
            p = pair(name, asked.dtype)
            found = compared({form: make(p) for form, make in FORMS.items()}, asked.rounds, time.process_time)
            both = compared({f"{n}": by_kernel(p, n, 2**27) for n in (1, 2)}, asked.rounds, time.perf_counter)
            rate = 1e3 / statistics.median(found["kernel"])
            share = rate / most.replicates(p.read, asked.dtype)
            ratios = [f"{form} {quoted(found[form] / found['kernel'])}" for form in FORMS if form != "kernel"]
            two = quoted(both["1"] / both["2"])
            line = f"{name} {asked.dtype}: {rate:.4g} M/s, {share:.0%} of its noise's rate; {'; '.join(ratios)}; 2 threads {two}"
            print(line, flush=True)


if __name__ == "__main__":
    if use_whole_vectors():  # numba reads the environment once
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
