"""The kernels beside jitted JAX by hand (the extra `peers`), which is collected only where JAX is installed.

`python tests/benchmarks/test_jax.py [--dtype float32] [--rounds 21] [part of a case's name ...]` prints ratios on one core, in
seconds of processor time, since XLA keeps threads of its own; compilation is told apart.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import product

if __name__ == "__main__":  # before JAX is imported
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax_forms
import numpy as np
import pytest
from benchmark_cases import CASES, Pair, by_kernel, pair
from pytest_benchmark.fixture import BenchmarkFixture

from bench.evaluate import gradients
from bench.measure import pinned

PEERS = [name for name, case in CASES.items() if case.problem not in ("sbn", "one_digit")]
SIZES = (2**6, 2**8, 2**10, 2**12, 2**14)
LEAST_SECONDS = 0.02


def sums(p: Pair, form: str, n: int, joined: bool = True) -> Callable[[], object]:
    """A call that sums n replicates by this form."""
    found, key = jax_forms.summed(jax_forms.forms(p.trial)[form], n, p.centre[0], joined), jax.random.key(0)
    return lambda: jax.block_until_ready(found(key))


@pytest.mark.parametrize("name", PEERS)
def test_jax_is_the_estimator(name: str) -> None:
    """Means of |g|^2 and of g at a vector v within five standard errors of the torch form's."""
    p = pair(name)
    n = max(64, min(20000, 2**20 // p.numbers))
    v = np.random.default_rng(0).standard_normal(p.trial.dim)
    with pinned(1):
        wanted = gradients(p.trial, range(n)).numpy()
    for form in jax_forms.forms(p.trial).values():
        found = np.concatenate(form(jax.random.key(1), n)).T
        for a, b in ((wanted @ v, found @ v), ((wanted**2).sum(1), (found**2).sum(1))):
            assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / n)


@pytest.mark.parametrize("name", PEERS)
def test_sums(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.extra_info["replicates"] = n = 1024
    assert benchmark(sums(pair(name), "by hand", n)) is not None


def fastest(p: Pair, form: str) -> tuple[Callable[[], object], int, float]:
    """The call and size of batch with the highest rate; and the seconds that its compilation took."""
    found = []
    sizes = [n for n in SIZES if n * p.numbers <= 2**22]
    for n, joined in product(sizes, (False, True)):
        call = sums(p, form, n, joined)
        compiling = _seconds(call, 1)
        repeats = max(1, round(LEAST_SECONDS / max(_seconds(call, 1), 1e-9)))
        found.append((min(_seconds(call, repeats) for _ in range(3)) / (n * repeats), call, n, compiling))
    _, call, n, compiling = min(found, key=lambda one: one[0])
    return call, n, compiling


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        call()
    return time.process_time() - started


def main() -> None:
    read = argparse.ArgumentParser(description="Ratios of JAX's processor time to the kernel's: median and quartiles.")
    read.add_argument("cases", nargs="*", help="parts of names; all without")
    read.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    read.add_argument("--rounds", type=int, default=21)
    asked = read.parse_args()
    for name in PEERS:
        if asked.cases and not any(part in name for part in asked.cases):
            continue
        p = pair(name, asked.dtype)
        with pinned(1):
            kernel, replicates = by_kernel(p)
            kernel()
            peers = {form: fastest(p, form) for form in jax_forms.forms(p.trial)}
            calls = {"kernel": (kernel, replicates)} | {form: one[:2] for form, one in peers.items()}
            repeats = {form: max(1, round(LEAST_SECONDS / _seconds(call, 1))) for form, (call, _) in calls.items()}
            each: dict[str, list[float]] = {form: [] for form in calls}
            for _ in range(asked.rounds):
                for form, (call, n) in calls.items():
                    each[form].append(_seconds(call, repeats[form]) / (n * repeats[form]))
        rate = 1e-6 / statistics.median(each["kernel"])
        told = []
        for form, (_, n, compiling) in peers.items():
            low, middle, high = np.quantile(np.divide(each[form], each["kernel"]), [0.25, 0.5, 0.75])
            told.append(f"{form} x{middle:.3g} [{low:.3g}, {high:.3g}] ({n} at once, compiled in {compiling:.1f} s)")
        print(f"{name} {asked.dtype}: {rate:.4g} M/s; {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
