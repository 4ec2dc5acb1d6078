"""On a GPU: kernels are the CPU's to rounding, torch forms are the kernels, noise is made there, and a run goes through."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs import trials

from bench.evaluate import State, Trial, gradients, learn, prepare
from bench.kernels import at_home, block_sums_by_kernel, kernel_for
from bench.measure import measure
from bench.moments import block_sums, to_bytes
from bench.timing import time_together
from estimators import ESTIMATORS
from estimators.kernels import cpu, cuda, cuda_noise
from estimators.noise import KINDS, addressed
from problems import PROBLEMS
from problems.families.base import Noise

ROOT, GPU = Path(__file__).resolve().parents[2], torch.device("cuda")
REPLICATES = range(1021, 1533)  # neither end at a block's
NAMES = [name for name, _ in trials()] if torch.cuda.is_available() else ["none"]


@pytest.fixture(scope="module")
def pairs() -> dict[str, Trial]:
    return dict(trials(device="cuda"))


def of(trial: Trial, state: State | None = None) -> tuple[cuda.Kernel, cpu.Kernel]:
    state = state or learn(trial)[0]
    found = kernel_for(trial, state)
    assert isinstance(found, cuda.Kernel)
    problem, state = at_home(trial.problem, state)
    return found, cpu.kernel(trial.estimator, problem, state, trial.key, 0, str(trial.dtype)[6:])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_cpus_to_rounding(pairs: dict[str, Trial], name: str) -> None:
    found, wanted = (kernel.gradients(REPLICATES) for kernel in of(pairs[name]))
    close_but_for_draws(found, wanted, 1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_torch_forms_on_the_device_are_the_kernels(pairs: dict[str, Trial], name: str) -> None:
    trial = pairs[name]
    state = learn(trial)[0]
    found = gradients(trial, REPLICATES, state).cpu().numpy()
    close_but_for_draws(found, of(trial, state)[0].gradients(REPLICATES), 1e-10)


def close_but_for_draws(found: np.ndarray, wanted: np.ndarray, rounding: float) -> None:
    """A draw that lies at a threshold may differ: at most one of 1000, and one at least is allowed."""
    far = np.abs(found - wanted).max(1) > rounding * np.abs(wanted).max()
    assert far.sum() <= 1


@pytest.mark.parametrize("name", ["rloo-bernoulli_toy", "pathwise-gaussian_cost"])
def test_sums_are_those_of_the_gradients_and_the_same_again(pairs: dict[str, Trial], name: str) -> None:
    kernel, _ = of(pairs[name])
    whole = range(5 * kernel.chunk + 100)
    g = kernel.gradients(whole)
    mean = g.mean(0)
    around = (g[:100].mean(0), mean / np.linalg.norm(mean), float(np.linalg.norm(mean)))
    found, wanted = block_sums_by_kernel(kernel, *around, whole), block_sums(g, *around, 0)
    for one in ("n", "zero", "nonfinite"):
        assert np.array_equal(getattr(found, one), getattr(wanted, one))
    for one in ("s1", "q1", "cos", "s2", "s3", "s4", "high", "top"):
        a, b = getattr(found, one), getattr(wanted, one)
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * max(1.0, float(np.abs(b).max())), err_msg=one)
    assert to_bytes(block_sums_by_kernel(kernel, *around, whole)) == to_bytes(found)


def test_in_global_memory_gradients_are_the_same(pairs: dict[str, Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = of(pairs["rloo-bernoulli_toy"])
    monkeypatch.setattr(cuda, "MOST_LOCAL", 0)
    there = replace(here, compiled=cuda.compiled(here.pair), held={}, space=None)
    assert there.compiled.space is not None
    np.testing.assert_allclose(there.gradients(REPLICATES), here.gradients(REPLICATES), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_made_on_the_device(kind: str) -> None:
    noise, own = Noise(kind, (2,), (3,)), torch.randint(0, 9, (11, 4))
    for data in (None, range(5), own):
        wanted = addressed(noise, 99, 1, 4, range(6, 17), data, torch.float64)
        there = own.to(GPU) if data is own else data
        found = cuda_noise.addressed(noise, 99, 1, 4, range(6, 17), there, torch.float64, GPU)
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-13, atol=1e-15)


def test_a_measurement_agrees_with_the_exact_gradient() -> None:
    found = measure(
        ESTIMATORS["rloo"](samples=4),
        PROBLEMS["bernoulli_toy"](),
        point="mid",
        replicates=2**22,
        device="cuda",
        rounds=3,
    )
    assert found.backend == "cuda"
    assert found.device == "cuda"
    assert not found.verdict.startswith("biased")


def test_timing_waits_for_the_device() -> None:
    """Seconds for an estimate times estimates are the seconds that pass until all are done, to a factor of two."""
    problem = PROBLEMS["bernoulli_toy"](dim=200).at("mid")
    estimator = ESTIMATORS["rloo"](samples=4)
    found = time_together([(estimator, problem)], ["auto"], rounds=5, device="cuda")[0]
    kernel = kernel_for(prepare(estimator, problem, device="cuda"))
    assert kernel is not None
    nothing, n = np.zeros(200), 64 * kernel.at_once * kernel.chunk
    started = time.perf_counter()
    block_sums_by_kernel(kernel, nothing, nothing, 1.0, range(n))
    assert 0.5 < (time.perf_counter() - started) / n / float(np.median(found.seconds)) < 2


def test_smoke_runs_on_the_device(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "smoke", "--device", "cuda", "--json", "--out", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr
    said: Any = json.loads(found.stdout)
    assert said
