"""Pairs and their kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.evaluate import Trial, learn, prepare
from bench.kernels import lazy_kernel_for
from estimators import ESTIMATORS
from estimators.kernels.cpu import Kernel
from problems import PROBLEMS

Named = tuple[str, dict[str, Any]]


@pytest.fixture(scope="session")
def pair() -> Callable[..., tuple[Trial, Kernel]]:
    """`pair((estimator, settings), (problem, settings), point)`: the trial and its kernel."""

    def make(estimator: Named, problem: Named, point: str = "init", dtype: str = "float64") -> tuple[Trial, Kernel]:
        there = PROBLEMS[problem[0]](**problem[1]).at(point)
        trial = prepare(ESTIMATORS[estimator[0]](**estimator[1]), there, 7, point, dtype)
        kernel = lazy_kernel_for(trial, learn(trial)[0])
        assert kernel is not None
        return trial, kernel

    return make
