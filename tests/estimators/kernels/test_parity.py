"""The kernel form of an estimator is its torch form: the same gradient of the same replicate, to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluate import Trial, gradients, prepare
from bench.kernels import kernel_for, why_no_kernel
from estimators import ESTIMATORS
from estimators.kernels import cpu, plainly
from estimators.kernels.families import bernoulli_parameters
from problems import PROBLEMS

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
    (("reinforce", {}), ("quadratic", {"family": "categorical", "dim": 3}), "mid"),
    (("exact", {}), ("quadratic", {"family": "categorical", "dim": 3}), "mid"),
    (("exact", {}), ("tiny_sbn", {"hidden": 3, "data": 2}), "init"),
    (("rloo", {"samples": 2}), ("quadratic", {"family": "categorical", "dim": 2, "categories": 4}), "converged"),
]


def label(value: Any) -> str:
    return value if isinstance(value, str) else "-".join([value[0], *(f"{k}{v}" for k, v in value[1].items())])


@pytest.mark.parametrize(("estimator", "problem", "point"), CASES, ids=label)
def test_kernel_is_the_torch_form(pair: Any, estimator: Any, problem: Any, point: str) -> None:
    trial, kernel = pair(estimator, problem, point)
    replicates = range(1021, 2085)  # neither end at a block's
    wanted = gradients(trial, replicates).numpy()
    np.testing.assert_allclose(kernel.gradients(replicates), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_every_estimator_with_a_kernel_is_held_against_its_torch_form() -> None:
    """Each has its cases in a file of this folder."""
    texts = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    missing = [n for n in ESTIMATORS if ESTIMATORS[n]().kernel is not None and f'("{n}"' not in texts]
    assert missing == []


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
    trial, _ = pair(*case)
    exact = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0, contract=False)
    L = exact.pair.lanes_of_cpu
    assert np.array_equal(by_plain_python(exact, block=3), exact.gradients(range(3 * L, 4 * L)))


def in_plain_python(kernel: cpu.Kernel, replicates: range) -> np.ndarray:
    """The same gradients by the same functions, not compiled: of at most 60 replicates."""
    first = replicates.start // 4 * 4
    lanes = -(-(replicates.stop - first) // 4) * 4
    found = plainly.gradients(kernel.pair, kernel.tables, kernel.key, kernel.tag, lanes, first)
    return found[replicates.start - first :][: len(replicates)]


def by_plain_python(kernel: cpu.Kernel, block: int) -> np.ndarray:
    L = kernel.pair.lanes_of_cpu
    return plainly.gradients(kernel.pair, kernel.tables, kernel.key, kernel.tag, L, block * L)


def test_probabilities_at_the_ends_draw_what_torch_draws() -> None:
    logits = torch.tensor([-800.0, -23.0, -22.0, 0.0, 22.0, 23.0, 40.0], dtype=torch.float64)
    p, high, low, *_ = bernoulli_parameters(logits)
    cut = high * 2**16 + low
    words = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
    assert np.array_equal(words[:, None] < cut, (words[:, None] + 0.5) * 2.0**-32 < p)


def test_the_complex_step_passes_through_abs() -> None:
    """In plain Python: the modulus of a complex number would give a slope of nil."""

    def scalar_f(x: Any) -> Any:
        return abs(x[0] - 1.0) ** 3

    problem = replace(
        PROBLEMS["gaussian_cost"](), f=lambda x: ((x - 1).abs() ** 3).sum(-1), lanes=None, scalar_f=scalar_f
    )
    trial = prepare(ESTIMATORS["pathwise"](), problem)
    kernel = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0)
    wanted = gradients(trial, range(kernel.pair.lanes_of_cpu)).numpy()
    np.testing.assert_allclose(by_plain_python(kernel, block=0), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def refused() -> list[tuple[Trial, str]]:
    e, p = ESTIMATORS["reinforce"](), PROBLEMS["bernoulli_toy"]()
    return [
        (prepare(ESTIMATORS["spsa"](), p), "spsa has no kernel form"),
        (prepare(e, replace(p, scalar_f=None, lanes=None)), "gives no scalar_f or lanes"),
        (
            prepare(e, replace(p, f=lambda x: 2 * p.f(x))),
            "f is not the one that its scalar_f or lanes were written for",
        ),
        (prepare(e, PROBLEMS["poisson_cost"]()), "poisson variables are not written in lanes"),
        (replace(prepare(e, p), device=torch.device("meta")), "run on the CPU"),
    ]


@pytest.mark.parametrize(("trial", "why"), refused(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_has_no_kernel_is_told_so(trial: Trial, why: str) -> None:
    assert kernel_for(trial) is None
    assert why in str(why_no_kernel(trial))


def test_an_f_that_numba_does_not_know_has_no_kernel() -> None:
    def wrong(x: Any) -> Any:
        return x.nothing_numba_knows

    p = PROBLEMS["bernoulli_toy"]()
    trial = prepare(ESTIMATORS["reinforce"](), replace(p, f=wrong, lanes=None, scalar_f=wrong))
    assert why_no_kernel(trial) is None
    assert kernel_for(trial) is None
