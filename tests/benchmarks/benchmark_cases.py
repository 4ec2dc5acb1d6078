"""The pairs that are timed, and every form of each: a call that makes and sums the gradients of so many replicates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch
from array_libraries import Numpy, Torch
from network_forms import one_digit

from bench.ceilings import Reads, numbers_read
from bench.evaluate import Trial, gradients, prepare
from bench.kernels import block_sums_by_kernel, kernel_for
from bench.moments import block_sums
from estimators import ESTIMATORS
from estimators.kernels.cpu import CHUNK
from problems import PROBLEMS

Call = tuple[Callable[[], object], int]  # and how many replicates it sums
NAIVE_AT_ONCE = 20
NUMBERS_AT_ONCE = 2**16  # about, in one batch of a vectorised form


@dataclass(frozen=True)
class Case:
    """A pair, and the module of its vectorised and its naive form: `vectorised(trial, library)`, `naive(trial)`."""

    estimator: str
    problem: str
    forms: str
    of_estimator: dict[str, Any] = field(default_factory=dict)
    of_problem: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        settings = {**self.of_estimator, **self.of_problem}
        return "-".join([self.estimator, self.problem, *(f"{k}{v}" for k, v in settings.items())])


TOY, COST, LINEAR = "bernoulli_toy", "gaussian_cost", "linear_gaussian"
ALL = [
    Case(name, TOY, "bernoulli_forms", settings, {"dim": D})
    for D in (6, 200)
    for name, settings in (("reinforce", {}), ("rloo", {"samples": 4}), ("disarm", {}))
]
ALL += [Case("gumbel_softmax", TOY, "bernoulli_forms", {}, {"dim": D}) for D in (6, 200)]
ALL += [Case(name, COST, "gaussian_forms") for name in ("reinforce", "pathwise", "measure_valued_normal")]
ALL += [Case(name, LINEAR, "importance_weighted_forms", {}, {"samples": 5}) for name in ("vimco", "dreg")]
ALL += [Case(name, "bayes_logreg", "regression_forms") for name in ("reinforce", "pathwise")]
ALL += [Case("rloo", name, "network_forms", {"samples": 4}) for name in ("one_digit", "sbn")]
CASES = {case.name: case for case in ALL}


@dataclass(frozen=True, eq=False)
class Pair:
    """A case in one dtype."""

    case: Case
    dtype: str

    @cached_property
    def trial(self) -> Trial:
        estimator = ESTIMATORS[self.case.estimator](**self.case.of_estimator)
        problem = (
            one_digit() if self.case.problem == "one_digit" else PROBLEMS[self.case.problem](**self.case.of_problem)
        )
        return prepare(estimator, problem, dtype=self.dtype)

    @cached_property
    def centre(self) -> tuple[np.ndarray, np.ndarray, float]:
        """A pilot mean, its direction and its length."""
        pilot = gradients(self.trial, range(1024)).double().mean(0).numpy()
        norm = float(np.linalg.norm(pilot))
        return pilot, pilot / norm, norm

    @cached_property
    def read(self) -> Reads:
        """Random numbers of one replicate."""
        return numbers_read(self.trial)

    @property
    def numbers(self) -> int:
        """What a replicate takes, about: its random numbers and its gradient."""
        return self.read.words + self.read.normals + self.trial.dim

    @property
    def forms(self) -> Any:
        return import_module(self.case.forms)


@cache
def pair(name: str, dtype: str = "float64") -> Pair:
    return Pair(CASES[name], dtype)


def by_kernel(p: Pair, threads: int = 1, numbers: int = 2**24) -> Call:
    """What the numba back end does: addressed noise, 64 groups, four power sums, extremes, cosines. numbers: of one call."""
    kernel = kernel_for(p.trial)
    assert kernel is not None
    n = CHUNK * max(1, min(1024, numbers // (CHUNK * p.numbers)))
    return lambda: block_sums_by_kernel(kernel, *p.centre, range(n), threads), n


def by_torch_form(p: Pair) -> Call:
    """What the torch back end does: the same addressed noise, the same sums."""
    n = max(64, min(CHUNK, 2**20 // p.numbers))

    def call() -> object:
        return block_sums(gradients(p.trial, range(n)).double().numpy(), *p.centre, 0)

    return call, n


def by_torch(p: Pair) -> Call:
    """The best that torch does by itself, on one batch: its own generator, four power sums of each coordinate."""
    return vectorised(p, Torch(p.dtype))


def by_numpy(p: Pair) -> Call:
    """The same in numpy, with its fastest generator."""
    return vectorised(p, Numpy(p.dtype))


def vectorised(p: Pair, lib: Numpy | Torch) -> Call:
    """In batches of the size that is fastest."""
    pilot, make = lib.array(torch.from_numpy(p.centre[0])), p.forms.vectorised(p.trial, lib)

    def seconds(n: int) -> float:
        """For one replicate, of the fastest of a few batches."""
        each = []
        for _ in range(5):
            started = time.process_time()
            lib.power_sums(make(n), pilot)
            each.append(time.process_time() - started)
        return min(each) / n

    about = 2 ** round(math.log2(NUMBERS_AT_ONCE / p.numbers))
    n = min((max(16, about * factor // 4) for factor in (1, 2, 4, 8, 16)), key=seconds)
    return lambda: lib.power_sums(make(n), pilot), n


def by_loop(p: Pair) -> Call:
    """What papers' code does: autograd of one replicate's surrogate at a time; mean and variance as one goes."""
    one, n = p.forms.naive(p.trial), NAIVE_AT_ONCE
    nothing = torch.zeros(p.trial.dim, dtype=p.trial.dtype)

    def call() -> object:
        mean, m2 = nothing, nothing
        for i in range(n):
            g = one().reshape(-1)
            d = g - mean
            mean = mean + d / (i + 1)
            m2 = m2 + d * (g - mean)
        return mean, m2

    return call, n


FORMS: dict[str, Callable[[Pair], Call]] = {
    "kernel": by_kernel,
    "torch form": by_torch_form,
    "torch": by_torch,
    "numpy": by_numpy,
    "loop": by_loop,
}
