"""The part of the variance that is of the rows drawn: against enumeration, and the same however a cell is measured."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import statistics
from bench.evaluate import Count, ask, gradients, prepare
from bench.measure import chunk_of, measure, observe, pinned
from bench.measurement import summarise
from bench.moments import block_sums, empty
from bench.outcome import outcome_from_bytes, outcome_to_bytes
from bench.subsampling import PAIRS, afresh, pair_products
from estimators.base import Estimator
from estimators.exact import exact
from estimators.noise import MEASURE
from estimators.pathwise import pathwise
from estimators.score_function import reinforce, rloo
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.families.normal import Normal
from problems.sbn import sbn

N, BATCH = 6, 2
BASELINE = -28.0  # about f - log q


@pytest.fixture(autouse=True)
def one_thread():
    with pinned(1):
        yield


@cache
def small(batch: int = BATCH) -> Problem:
    return sbn(hidden=3, data=N, batch=batch)


@cache
def of_states(datum: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities `[8]` of one datum's states, (f - log q) grad log q with the model's gradient `[8, P]`, and grad log q."""
    problem = small()
    assert problem.data is not None
    assert problem.model is not None
    row, theta, model = problem.data[datum : datum + 1], problem.theta, problem.model
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)

    def log_q(weights: Tensor, z: Tensor) -> Tensor:
        logits = problem.site_parameters(weights, row)[0]
        return (z * logits - torch.nn.functional.softplus(logits)).sum()

    p, plain, scores = [], [], []
    for z in states:
        log, score = torch.func.grad_and_value(log_q)(theta, z)[::-1]
        f, of_model = torch.func.grad_and_value(lambda m, z=z: problem.f(z[None], row, m)[0])(model)[::-1]
        p.append(log.exp())
        plain.append((f - log, of_model))
        scores.append(score)
    signal = torch.stack([f for f, _ in plain])
    return torch.stack(p), torch.cat([signal[:, None], torch.stack([m for _, m in plain])], 1), torch.stack(scores)


def parts(samples: int) -> tuple[float, float]:
    """Variance of the rows and of the latents, by sums over rows and states: reinforce with a baseline, or rloo of two samples.

    Var of the rows: N^2 (1 - b/N) / b S^2, S^2 the variance of the data's exact gradients; of the latents, N / b sum_i Var g_i.
    """
    means, latent = [], 0.0
    for datum in range(N):
        p, known, score = of_states(datum)
        signal, of_model = known[:, 0], known[:, 1:]
        if samples == 1:
            weight, g = p, torch.cat([(signal - BASELINE)[:, None] * score, of_model], 1)
        else:  # (f_1 - f_2) (s_1 - s_2) / 2
            i, j = torch.cartesian_prod(torch.arange(8), torch.arange(8)).T
            half = 0.5 * (signal[i] - signal[j])[:, None] * (score[i] - score[j])
            weight, g = p[i] * p[j], torch.cat([half, 0.5 * (of_model[i] + of_model[j])], 1)
        mean = weight @ g
        means.append(mean)
        latent += float(weight @ (g - mean).square().sum(-1))
    S2 = float(torch.stack(means).var(0).sum())
    return N**2 * (1 - BATCH / N) / BATCH * S2, N / BATCH * latent


@pytest.mark.parametrize(
    ("estimator", "samples"), [(reinforce(baseline=BASELINE), 1), (rloo(), 2)], ids=["reinforce", "rloo"]
)
def test_both_parts_are_those_of_the_enumeration(estimator: Estimator, samples: int) -> None:
    rows, latent = parts(samples)
    m = measure(estimator, small(), replicates=16_384, rounds=0, backend="torch", seed=3)
    low, high = m.total_variance_interval
    assert low < rows + latent < high
    low, high = m.subsampling_variance_interval
    assert low < rows < high
    assert 0 < low < m.subsampling_variance < high
    assert rows > 0.05 * (rows + latent)


def test_without_latent_noise_it_is_all_of_the_variance() -> None:
    """Sums over the states: what is left is N^2 (1 - b/N) / b S^2."""
    rows, _ = parts(1)
    m = measure(exact(), small(), replicates=4096, rounds=0, backend="torch")
    assert m.subsampling_variance_interval[0] < rows < m.subsampling_variance_interval[1]
    assert m.subsampling_variance == pytest.approx(m.total_variance, rel=0.05)


def test_with_all_rows_it_is_none_of_it() -> None:
    m = measure(reinforce(), small(batch=N), replicates=4096, rounds=0, backend="torch")
    low, high = m.subsampling_variance_interval
    assert low == 0
    assert high < 0.1 * m.total_variance
    assert measure(exact(), small(batch=N), replicates=64, rounds=0, backend="torch").subsampling_variance_interval == (
        0,
        math.inf,
    )


def test_its_interval_covers_as_often_as_it_says() -> None:
    """95% over 150 seeds: at least 133 of them, below which chance falls once in 500 times."""
    rows, _ = parts(2)
    found = []
    for seed in range(150):
        trial = prepare(rloo(), small(), seed)
        products = block_of_products(trial)
        xbar = float(products.mean())
        sums = block_sums(products[:, None], np.zeros(1), np.zeros(1), 0.0, 0)
        found.append(statistics.subsampling_variance(sums, unlimited()))
        assert found[-1].value == pytest.approx(max(xbar, 0.0))
    covered = [one.low <= rows <= one.high for one in found]
    assert sum(covered) >= 133
    assert np.mean([one.value for one in found]) == pytest.approx(rows, rel=0.05)


def block_of_products(trial: Any) -> np.ndarray:
    """512 products, as `pair_products` makes them of a chunk."""
    g, h = (gradients(t, range(512)).numpy() for t in (trial, afresh(trial)))
    return ((g - g.mean(0)) * (h - h.mean(0))).sum(1) * 512 / 511


def unlimited() -> Any:
    """Sums of a cell whose total variance is no limit."""
    g = np.random.default_rng(0).standard_normal((512, 1)) * 1e6
    return block_sums(g, np.zeros(1), np.zeros(1), 1.0, 0)


def test_the_same_rows_and_no_other_noise() -> None:
    trial = prepare(rloo(), small(), 1)
    first, second = (ask(t, range(64), None, MEASURE, Count()) for t in (trial, afresh(trial)))
    assert torch.equal(first.given.data, second.given.data)  # type: ignore[arg-type]
    u, v = first.known["noise"], second.known["noise"]
    assert not (u == v).any()
    assert abs(np.corrcoef(u.flatten(), v.flatten())[0, 1]) < 0.05


def test_it_is_a_function_of_the_cell_whatever_else_is_measured() -> None:
    short, long = (observe(rloo(), small(), point="init", replicates=n, seed=2, backend="torch") for n in (64, 5000))
    lanes = observe(rloo(), small(), point="init", replicates=64, seed=2, backend="numba")
    for other in (long, lanes, outcome_from_bytes(outcome_to_bytes(short))):
        assert short.subsampling is not None
        assert other.subsampling is not None
        assert torch.equal(torch.from_numpy(short.subsampling.s1), torch.from_numpy(other.subsampling.s1))
        assert np.array_equal(short.subsampling.top, other.subsampling.top)
    assert int(short.subsampling.n.sum()) == PAIRS
    trial = prepare(rloo(), small(), 2, "init")
    assert np.array_equal(pair_products(trial, None, chunk_of(trial)).s4, short.subsampling.s4)
    assert short.f_evals == long.f_evals == 2


def test_chunks_of_four_are_centred_as_chunks_of_64_are() -> None:
    """Centred four at a time, products share so much of their means that the interval covers 91% for 95%."""
    trial = prepare(rloo(), small(), 2, "init")
    four, many = (pair_products(trial, None, chunk) for chunk in (4, 64))
    assert np.allclose(four.s1, many.s1, rtol=1e-9)
    assert np.allclose(four.s2, many.s2, rtol=1e-9)


def test_where_no_rows_are_drawn_there_is_no_such_part() -> None:
    outcome = observe(rloo(), bernoulli_toy(), replicates=64, backend="torch")
    assert outcome.subsampling is None
    assert outcome_from_bytes(outcome_to_bytes(outcome)).subsampling is None
    m = summarise(outcome)
    assert math.isnan(m.subsampling_variance)
    assert observe(rloo(), small(), replicates=64, subsampling=False).subsampling is None


def test_one_point_for_all_rows_and_noise_of_f_are_latent_noise() -> None:
    """log N(y; w x, 1) of the rows drawn, q(w) = N(m, s^2): the rows' part by sums over pairs of rows, f's own noise apart."""
    x, y = torch.linspace(-1, 2, 5, dtype=torch.float64), torch.linspace(2, -1, 5, dtype=torch.float64) ** 2
    theta = torch.tensor([[0.4], [-0.7]], dtype=torch.float64)

    def f(x: Tensor, data: Tensor) -> Tensor:
        return -0.5 * (data[..., 1] - x[..., 0] * data[..., 0]).square()

    problem = Problem("line", Normal, theta, f, data=torch.stack([x, y], 1), batch=2, shared=True, smooth=2)
    m, s2 = 0.4, math.exp(-1.4)
    each = torch.stack([(y - m * x) * x, -s2 * x * x], 1)
    exactly = 25 * (1 - 2 / 5) / 2 * float(each.var(0).sum())
    found = measure(pathwise(), problem, replicates=4096, rounds=0, backend="torch")
    low, high = found.subsampling_variance_interval
    assert low < exactly < high
    assert high < found.total_variance_interval[0]


def test_heavy_tails_and_values_that_are_not_finite_leave_no_end_but_the_total_s() -> None:
    rng, zero = np.random.default_rng(0), np.zeros(1)
    cell = unlimited()
    total = statistics.total_variance(cell)
    light, heavy = rng.standard_normal((PAIRS, 1)) ** 2, rng.pareto(1.0, (PAIRS, 1))
    ends = [statistics.subsampling_variance(block_sums(p, zero, zero, 0.0, 0), cell).high for p in (light, heavy)]
    assert ends[0] < 1.3
    assert ends[1] == total.high
    light[0] = np.nan
    assert statistics.subsampling_variance(block_sums(light, zero, zero, 0.0, 0), cell).high == total.high
    rare = np.zeros((PAIRS, 1))
    rare[:20] = 1.0
    assert statistics.subsampling_variance(block_sums(rare, zero, zero, 0.0, 0), cell).high == total.high
    nothing = statistics.subsampling_variance(empty(zero, zero), cell)
    assert nothing.high == total.high


def test_noise_that_is_shared_with_the_first_is_seen() -> None:
    """g' with the noise of g would make the total variance of it."""
    rows, _ = parts(1)
    trial = prepare(reinforce(), small(), 3)
    wrong = replace(afresh(trial), key=trial.key)
    g, h = (gradients(t, range(2048)).numpy() for t in (trial, wrong))
    products = ((g - g.mean(0)) * (h - h.mean(0))).sum(1)
    sums = block_sums(products[:, None], np.zeros(1), np.zeros(1), 0.0, 0)
    assert statistics.subsampling_variance(sums, unlimited()).low > 2 * rows
