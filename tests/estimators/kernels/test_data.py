"""Kernels of problems with data, an encoder and a model: the torch form's gradients, of all the data and of rows drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.evaluate import gradients

BATCH, WHOLE = ("sbn", {}), ("sbn", {"data": 4, "batch": 0})
TINY = ("tiny_sbn", {})
CASES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]] = [
    (("reinforce", {"samples": 2, "baseline": -9.0}), TINY, "init"),
    (("rloo", {"samples": 3}), TINY, "init"),
    (("arm", {}), TINY, "init"),
    (("disarm", {"samples": 4}), TINY, "init"),
    (("reinforce", {}), WHOLE, "init"),
    (("rloo", {"samples": 2}), WHOLE, "init"),
    (("arm", {}), WHOLE, "init"),
    (("disarm", {}), WHOLE, "init"),
    (("rloo", {"samples": 2}), ("sbn", {"data": 1, "batch": 0}), "init"),
    (("reinforce", {}), BATCH, "init"),
    (("rloo", {"samples": 2}), BATCH, "init"),
    (("arm", {}), BATCH, "init"),
    (("disarm", {}), BATCH, "init"),
]


def label(value: Any) -> str:
    return value if isinstance(value, str) else "-".join([value[0], *(f"{k}{v}" for k, v in value[1].items())])


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(251, 401)  # neither end at a block's
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(kernel.gradients(replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
