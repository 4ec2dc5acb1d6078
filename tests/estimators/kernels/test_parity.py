"""The kernel form of an estimator is its torch form: the same gradient of the same replicate, to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import Trial, gradients, prepare
from bench.kernels import kernel_for
from estimators import ESTIMATORS
from estimators.kernels import cpu
from estimators.kernels.backend import plain
from estimators.kernels.families import bernoulli_parameters
from estimators.kernels.philox import replicates_of
from problems import PROBLEMS
from problems.objectives import Elbo

TOY, QUADRATIC = ("bernoulli_toy", {}), ("quadratic", {"dim": 5})
CASES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]] = [
    (("reinforce", {}), TOY, "mid"),
    (("reinforce", {"samples": 3, "baseline": 0.25}), QUADRATIC, "mid"),
    (("rloo", {"samples": 4}), TOY, "converged"),
    (("arm", {}), QUADRATIC, "converged"),
    (("arm", {"samples": 4}), TOY, "mid"),
    (("disarm", {}), TOY, "converged"),
    (("disarm", {"samples": 6}), QUADRATIC, "mid"),
    (("reinforce", {}), ("gaussian_cost", {"cost": "exp"}), "narrow"),
    (("rloo", {"samples": 3}), ("gaussian_cost", {"dim": 3}), "wide"),
    (("pathwise", {"samples": 2}), ("gaussian_cost", {"cost": "exp", "dim": 2}), "init"),
    (("measure_valued_normal", {}), ("gaussian_cost", {"dim": 2}), "narrow"),
]


def label(value: Any) -> str:
    return value if isinstance(value, str) else "-".join([value[0], *(f"{k}{v}" for k, v in value[1].items())])


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(1021, 2085)  # neither end at a block's
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(kernel.gradients(replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_every_estimator_with_a_kernel_is_among_the_cases() -> None:
    assert {name for name in ESTIMATORS if ESTIMATORS[name]().kernel is not None} == {e[0] for e, _, _ in CASES}


def test_another_key_is_seen(pair: Any) -> None:
    trial, kernel = pair(*CASES[0])
    other = prepare(trial.estimator, PROBLEMS["bernoulli_toy"]().at("mid"), 8, "mid")
    assert np.abs(kernel.gradients(range(64)) - gradients(other, range(64)).numpy()).max() > 1e-3


def test_a_replicate_does_not_depend_on_its_block(pair: Any) -> None:
    for case in (CASES[0], CASES[8]):
        _, kernel = pair(*case)
        whole = kernel.gradients(range(0, 1024))
        assert all(
            np.array_equal(kernel.gradients(range(a, b)), whole[a:b])
            for a, b in ((0, 1), (3, 5), (255, 257), (1000, 1024))
        )


@pytest.mark.parametrize("case", [CASES[2], CASES[9], CASES[10]], ids=lambda case: case[0][0])
def test_compiled_without_contraction_is_plain_python_to_the_bit(pair: Any, case: Any) -> None:
    trial, kernel = pair(*case)
    exact = cpu.kernel(kernel.pair, trial.problem.theta, trial.key, 0, contract=False)
    L = cpu.LANES
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


def by_plain_python(kernel: cpu.Kernel, block: int) -> np.ndarray:
    known, L = cpu.known(kernel.pair, plain()), cpu.LANES
    g = np.empty((known["P"], L))
    x, e, f, z = (np.empty(known[name], complex if name == "Z" else float) for name in "XEFZ")
    first, tag, key = np.uint64(block * L // 4), kernel.tag, np.uint64(kernel.key)
    with np.errstate(over="ignore"):
        known["estimate"](g, x, e, f, z, kernel.par, np.empty(L, np.uint32), first, tag, key)
    out = np.empty((L, known["P"]))
    out[replicates_of(L)] = g.T
    return out


def test_probabilities_at_the_ends_draw_what_torch_draws() -> None:
    logits = torch.tensor([-800.0, -23.0, -22.0, 0.0, 22.0, 23.0, 40.0], dtype=torch.float64)
    p, cut, _ = bernoulli_parameters(logits)
    words = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
    assert np.array_equal(words[:, None] < cut, (words[:, None] + 0.5) * 2.0**-32 < p)


def refused() -> list[Trial]:
    e, p = ESTIMATORS["reinforce"](), PROBLEMS["bernoulli_toy"]()
    trial = prepare(e, p)
    return [
        prepare(ESTIMATORS["exact"](), p),
        prepare(e, replace(p, scalar_f=None)),
        prepare(e, replace(p, objective=Elbo())),
        prepare(e, p, dtype="float32"),
        prepare(e, PROBLEMS["quadratic"](family="categorical")),
        replace(trial, problem=replace(p, scalar_f=lambda x: x.nothing_numba_knows)),
    ]


@pytest.mark.parametrize("trial", refused(), ids=["form", "scalar_f", "objective", "dtype", "family", "untypable"])
def test_what_has_no_kernel_is_told_so(trial: Trial) -> None:
    assert kernel_for(trial) is None
