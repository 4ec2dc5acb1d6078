"""Wall-clock: the estimators of a problem interleaved in random order, round by round, beside a yardstick in the same rounds.

The yardstick is one draw of q and one evaluation of f, without an estimator, so that ratios to it travel from run to run; absolute
seconds are this run's. It is timed twice a round: the ratio of the two is the noise floor.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.evaluate import State, Trial
    from estimators.base import Estimator
    from problems.base import Problem

ROUNDS = 15
LEAST_SECONDS = 0.010


@dataclass(frozen=True, eq=False)
class Timing:
    """Seconds for one estimate in each round, `[rounds]`; those of the yardstick in the same rounds, and of the yardstick again."""

    seconds: np.ndarray
    yardstick: np.ndarray
    again: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """Seconds relative to the yardstick of the same round."""
        return self.seconds / np.sqrt(self.yardstick * self.again)

    def noise_floor(self) -> float:
        """Half-width of the 95% interval of the log ratio of the yardstick to itself: ratios nearer to one say nothing."""
        from bench.statistics import median_interval

        found = median_interval(np.log(self.yardstick / self.again))
        return float(max(abs(found.low), abs(found.high)))


def time_together(
    pairs: Sequence[tuple[Estimator, Problem]],
    backends: Sequence[str] = (),
    *,
    rounds: int = ROUNDS,
    least: float = LEAST_SECONDS,
    seed: int = 0,
    dtype: str = "float64",
    device: str = "cpu",
) -> list[Timing]:
    """Time estimators of one problem (at one point) in the same rounds; each call takes at least `least` seconds.

    backends: for each pair as in `measure`, torch by default. Learning is not timed here, and the first call of each, which
    compiles, is left out. A kernel's time has its sums in it, which it makes as it goes.
    """
    from bench.evaluate import learn, prepare

    trials = [prepare(estimator, problem, seed, "timing", dtype, device) for estimator, problem in pairs]
    states = [learn(_briefly(trial))[0] for trial in trials]
    by = backends or ["torch"] * len(trials)
    calls = [_estimates(*one, least) for one in zip(trials, states, by, strict=True)]
    calls += 2 * [yardstick(trials[0])]
    repeats = [_calibrate(call, least) for call, _ in calls]
    order = list(range(len(calls)))
    shuffled = random.Random(seed)
    seconds = np.empty((len(calls), rounds))
    for r in range(rounds):
        shuffled.shuffle(order)
        for i in order:
            call, estimates = calls[i]
            seconds[i, r] = _seconds(call, repeats[i]) / (repeats[i] * estimates)
    return [Timing(row, seconds[-2], seconds[-1]) for row in seconds[:-2]]


def _briefly(trial: Trial) -> Trial:
    """The same trial with one step of learning: a learned state costs the same to use, however good it is."""
    learning = trial.estimator.learning
    if learning is None or learning.steps <= 1:
        return trial
    return replace(trial, estimator=replace(trial.estimator, learning=replace(learning, steps=1)))


def _estimates(trial: Trial, state: State | None, backend: str, least: float) -> tuple[Callable[[], object], int]:
    """A call that makes so many estimates, and how many; a kernel is handed as many chunks as take `least` seconds."""
    from bench.evaluate import gradients
    from bench.kernels import block_sums_by_kernel, kernel_for
    from bench.measure import chunk_of
    from estimators.noise import TRIAL

    if backend != "torch" and (kernel := kernel_for(trial, state, TRIAL)) is not None:
        nothing = np.zeros(trial.dim)

        def of(estimates: int) -> Callable[[], object]:
            return lambda: block_sums_by_kernel(kernel, nothing, nothing, 1.0, range(estimates))

        of(kernel.chunk)()
        chunks = min(kernel.at_once, math.ceil(least / _seconds(of(kernel.chunk), 1)))
        return of(chunks * kernel.chunk), chunks * kernel.chunk
    chunk = chunk_of(trial)
    return lambda: gradients(trial, range(chunk), state, phase=TRIAL), chunk


def yardstick(trial: Trial) -> tuple[Callable[[], object], int]:
    """One draw of q and one evaluation of f for each replicate."""
    from bench.evaluate import Count, ask, plain_samples
    from bench.measure import chunk_of
    from estimators.noise import TRIAL

    plain = replace(trial, estimator=plain_samples(trial.problem))
    chunk = chunk_of(plain)
    return lambda: ask(plain, range(chunk), None, TRIAL, Count()), chunk


def _calibrate(call: Callable[[], object], least: float) -> int:
    """Calls to make in a row so that they take at least `least` seconds; the first is warm-up."""
    call()
    repeats = 1
    while (taken := _seconds(call, repeats)) < least:
        repeats = max(2 * repeats, int(repeats * least / max(taken, 1e-9)) + 1)
    return repeats


def _seconds(call: Callable[[], object], repeats: int) -> float:
    _synchronise()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    _synchronise()
    return time.perf_counter() - started


def _synchronise() -> None:
    """Wait for the device, where this process has used one."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
