"""Statistics: each formula against its definition, each rule where it must hold and where it must not."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from bench import statistics
from bench.moments import GROUPS, Sums, block_sums
from bench.statistics import Interval, VarianceRatio


def sums_of(g: np.ndarray, truth: np.ndarray | None = None, pilot: np.ndarray | None = None) -> Sums:
    """Sums of gradients [R, P], as a cell would have them; the pilot is near the mean but is not the mean."""
    norm = 0.0 if truth is None else float(np.linalg.norm(truth))
    axis = np.zeros(g.shape[1]) if truth is None or norm == 0 else truth / norm
    centre = np.atleast_1d(g.mean(0) + 0.1 * g.std(0)) if pilot is None else pilot
    return block_sums(g, centre, axis, norm or 1.0, 0)


def normal(replicates: int, size: int, seed: int = 0, sd: float = 1.0, centre: float = 1.0) -> np.ndarray:
    return centre + sd * np.random.default_rng(seed).normal(size=(replicates, size))


def heavy(replicates: int, seed: int = 0) -> np.ndarray:
    """Pareto of index 1.5: infinite variance, mean 3, two coordinates."""
    return np.random.default_rng(seed).random((replicates, 2)) ** (-1 / 1.5)


def influence(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Influence of each group on the mean of x, written out with loops."""
    group = np.arange(len(g)) % GROUPS
    inner = [np.sum(x[group == b] - x.mean()) / len(x) for b in range(GROUPS)]
    return np.array(inner) * math.sqrt(GROUPS / (GROUPS - 1))


# Moments


def test_moments_of_each_coordinate() -> None:
    g = np.random.default_rng(0).exponential(size=(1000, 4)) * np.array([1.0, 2.0, 5.0, 0.1])
    sums = sums_of(g)
    assert np.allclose(statistics.mean(sums), g.mean(0), rtol=1e-13)
    assert np.allclose(statistics.variance(sums), g.var(0, ddof=1), rtol=1e-11)
    assert np.allclose(statistics.standard_error(sums), g.std(0, ddof=1) / math.sqrt(1000), rtol=1e-11)
    assert np.allclose(statistics.kurtosis(sums), stats.kurtosis(g, fisher=False), rtol=1e-10)


def test_a_coordinate_that_only_rounding_moves_is_constant() -> None:
    g = normal(500, 3)
    g[:, 1] = 0.3 + 1e-17 * g[:, 0]
    for pilot in (np.zeros(3), np.array([1.0, 0.3, 1.0]), np.array([1.0, 0.3 + 1e-16, 1.0])):
        sums = sums_of(g, pilot=pilot)
        assert statistics.variance(sums)[1] == 0
        assert statistics.kurtosis(sums)[1] == 0
        assert np.all(statistics.variance(sums)[[0, 2]] > 0.5)


# Total variance


def test_total_variance_is_its_formula() -> None:
    g = normal(2000, 3)
    squares = ((g - g.mean(0)) ** 2).sum(1)
    rel = math.sqrt(np.sum(influence(g, squares) ** 2)) / squares.mean()
    width = stats.t.ppf(0.975, 63) * rel
    found = statistics.total_variance(sums_of(g))
    assert found.trusted
    assert found.value == pytest.approx(g.var(0, ddof=1).sum(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((found.value * math.exp(-width), found.value * math.exp(width)))
    assert found.effective_number == pytest.approx(rel**-2)


def test_tail_index_is_hills() -> None:
    g = normal(2000, 1)
    top = np.sort(((g - statistics.mean(sums_of(g))) ** 2).sum(1))[::-1]
    found = statistics.tail_index(sums_of(g, pilot=g.mean(0)))
    assert found == pytest.approx(1 / np.mean(np.log(top[:32] / top[32])))
    assert statistics.tail_index(sums_of(g[:30])) == math.inf


@pytest.mark.parametrize(
    ("g", "reason"),
    [
        (heavy(50_000), "infinite variance"),
        (np.where(np.random.default_rng(0).random((20_000, 1)) < 2e-3, 1.0, 0.0), "40 events"),
        (np.sign(normal(399, 1, centre=0.0)), "few replicates, though all of one length"),
        (np.vstack([normal(2000, 1), [[np.nan]]]), "a replicate that is not finite"),
        (np.ones((9999, 1)), "constant, and not for long"),
    ],
)
def test_untrusted_variance_has_no_high_end(g: np.ndarray, reason: str) -> None:
    sums = sums_of(g, pilot=np.nan_to_num(g).mean(0))
    truth = np.ones(g.shape[1])
    found = statistics.total_variance(sums)
    assert not found.trusted, reason
    assert found.high == math.inf
    assert 0 <= found.low <= found.value
    assert statistics.mse(sums, truth).high == math.inf
    assert statistics.bias_norm(sums, truth).high == math.inf
    assert statistics.snr(sums, truth).low == 0
    assert statistics.snr(sums).low == 0


def test_infinite_variance_has_no_low_end_of_bias() -> None:
    sums = sums_of(heavy(50_000))
    assert statistics.tail_index(sums) < 1.5
    assert statistics.bias_norm(sums, np.full(2, 30.0)).low == 0


def test_constant_for_long_is_trusted_to_be_constant() -> None:
    found = statistics.total_variance(sums_of(np.full((10_000, 2), 0.1), pilot=np.zeros(2)))
    assert (found.value, found.low, found.high, found.trusted) == (0.0, 0.0, 0.0, True)
    assert found.effective_number == math.inf


# MSE, SNR, cosine


def test_mse_is_its_formula() -> None:
    g, truth = normal(3000, 2), np.array([0.5, 1.5])
    squares = ((g - truth) ** 2).sum(1)
    width = stats.t.ppf(0.975, 63) * math.sqrt(np.sum(influence(g, squares) ** 2)) / squares.mean()
    found = statistics.mse(sums_of(g, truth), truth)
    value = squares.mean()
    wanted = (value, value * math.exp(-width), value * math.exp(width))
    assert (found.value, found.low, found.high) == pytest.approx(wanted)


def test_snr_with_truth_inverts_the_variance() -> None:
    g, truth = normal(3000, 2), np.array([0.6, 0.8])
    sums = sums_of(g, truth)
    v, found = statistics.total_variance(sums), statistics.snr(sums, truth)
    assert (found.value, found.low, found.high) == pytest.approx((1 / v.value, 1 / v.high, 1 / v.low))
    inexact = statistics.snr(sums, truth, 0.05)
    assert inexact.low < found.low
    assert inexact.high > found.high
    assert inexact.value == pytest.approx((1 - 2 * 0.05**2) / v.value)


def test_snr_without_truth_has_no_noise_floor() -> None:
    g = normal(4096, 6, centre=0.0)
    sums = sums_of(g)
    naive = np.sum(g.mean(0) ** 2) / g.var(0, ddof=1).sum()
    found = statistics.snr(sums)
    assert found.value == pytest.approx(max(naive - 1 / 4096, 0.0), abs=1e-12)
    assert found.low == 0
    assert found.high < 4 / 4096


def test_cosine_is_its_formula() -> None:
    g, truth = normal(3000, 2, centre=0.2), np.array([0.6, 0.8])
    cos = g @ truth / np.linalg.norm(g, axis=1)
    width = stats.t.ppf(0.975, 63) * math.sqrt(np.sum(influence(g, cos) ** 2))
    found = statistics.cosine(sums_of(g, truth))
    assert (found.value, found.low, found.high) == pytest.approx((cos.mean(), cos.mean() - width, cos.mean() + width))


def test_cosine_that_never_varied_allows_for_what_was_not_seen() -> None:
    """4096 gradients of one sign: the other sign has probability at most p with (1-p)^4096 = 0.025."""
    found = statistics.cosine(sums_of(1 + np.random.default_rng(0).random((4096, 1)), np.ones(1)))
    p = (1 - found.low) / 2
    assert found.value == found.high == 1
    assert (1 - p) ** 4096 == pytest.approx(0.025)


# Test of bias


def test_z_solves_its_equation_in_every_direction() -> None:
    g, truth = normal(1000, 3), np.array([1.1, 0.9, 1.05])
    sums = sums_of(g, truth)
    z = statistics.z_scores(sums, truth, 0.01)
    h = np.column_stack([g, g @ sums.axis])
    centre = np.append(sums.pilot, sums.pilot @ sums.axis)
    b = h.mean(0) - np.append(truth, truth @ sums.axis)
    se = np.sqrt(h.var(0, ddof=1) / 1000 + np.append(np.full(3, 0.01**2), 0.01**2))
    reach = np.abs(h - centre).max(0) + np.abs(h.mean(0) - centre)
    assert np.allclose(np.abs(z) * se + 2 * reach * z**2 / 3000, np.abs(b), rtol=1e-9)
    assert np.array_equal(np.sign(z), np.sign(b))
    assert statistics.bias_p(sums, truth, 0.01) == pytest.approx(4 * 2 * stats.norm.sf(np.abs(z).max()))


def test_one_coordinate_is_one_test_and_no_truth_direction_is_none() -> None:
    g = normal(2000, 1)
    sums = sums_of(g, np.ones(1))
    z = statistics.z_scores(sums, np.ones(1))
    assert z[0] == pytest.approx(z[1])
    assert statistics.bias_p(sums, np.ones(1)) == pytest.approx(2 * stats.norm.sf(abs(z[0])))
    zero = sums_of(normal(2000, 3, centre=0.0), np.zeros(3))
    z = statistics.z_scores(zero, np.zeros(3))
    assert z[3] == 0
    assert statistics.bias_p(zero, np.zeros(3)) == pytest.approx(3 * 2 * stats.norm.sf(np.abs(z).max()))


def counts(events: int, replicates: int, probability: float) -> Sums:
    """Two coordinates: one was 1 in `events` replicates, else 0, around its true mean; the other 1 and -1 in turn."""
    p, k, n = probability, events, replicates
    powers = [np.array([k * (1 - p) ** i + (n - k) * (-p) ** i, n * (i % 2 == 0), 0.0]) for i in (1, 2, 3, 4)]
    each = np.full(GROUPS, n // GROUPS)
    return Sums(
        pilot=np.array([p, 0.0]),
        axis=np.zeros(2),
        n=each,
        s1=np.outer(each / n, powers[0]),
        q1=each / n * powers[1].sum(),
        cos=np.zeros(GROUPS),
        s2=powers[1],
        s3=powers[2],
        s4=powers[3],
        high=np.array([1 - p if k else p, 1.0, 0.0]),
        top=np.where(np.arange(64) >= 64 - k, 2.0, 1.0),
    )


@cache
def rare_p(plain: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """For 16 rates of a rare event, n = 640 000: the exact probability of each count, and its p; R = 0 if plain."""
    n, found = 640_000, []
    for rate in np.geomspace(1, 200, 16):
        truth = np.array([rate / n, 0.0])
        events = np.arange(0, int(rate + 12 * math.sqrt(rate) + 30))
        cells = [counts(int(k), n, truth[0]) for k in events]
        z = [statistics.z_scores(replace(c, high=np.zeros(3)) if plain else c, truth)[0] for c in cells]
        found.append((stats.binom.pmf(events, n, truth[0]), 2 * stats.norm.sf(np.abs(z))))
    return found


def worst_false_alarm(level: float, plain: bool) -> float:
    """Largest P(p < level) / level over the rates."""
    return max(float(probability[p < level].sum()) / level for probability, p in rare_p(plain))


@pytest.mark.parametrize("level", [1e-2, 1e-4, 1e-6, 1e-8])
def test_rare_events_are_not_bias_at_any_level(level: float) -> None:
    """Exact; the plain z of the same data, R = 0, has far more than the level, rule a or not."""
    assert worst_false_alarm(level, plain=False) <= 1
    assert worst_false_alarm(level, plain=True) > 10


def test_rule_a_few_events_cannot_reject() -> None:
    """29 events where 1 is expected cannot reject by z; 31 can."""
    truth = np.array([1 / 640_000, 0.0])
    assert statistics.z_scores(counts(29, 640_000, truth[0]), truth)[0] == 0
    assert statistics.z_scores(counts(31, 640_000, truth[0]), truth)[0] > 3


def test_rule_b_untrusted_tails_take_empirical_bernstein() -> None:
    g = heavy(20_000)
    truth = np.full(2, 4.0)
    sums = sums_of(g, truth)
    assert not statistics.total_variance(sums).trusted
    half = statistics.bias_p(sums, truth) / 3
    found = math.log(2 / half)  # L
    h = np.column_stack([g, g @ sums.axis])
    centre = np.append(sums.pilot, sums.pilot @ sums.axis)
    b = np.abs(h.mean(0) - np.append(truth, truth @ sums.axis))
    se, reach = h.std(0, ddof=1) / math.sqrt(20_000), np.abs(h - centre).max(0) + np.abs(h.mean(0) - centre)
    assert stats.kurtosis(h, fisher=False).min() > 20_000 / 30  # fewer than 30 effective events each
    bound = se * math.sqrt(2 * found) + 14 / 3 * reach.max() * found / 20_000
    assert np.min(bound / b) == pytest.approx(1)
    assert statistics.bias_p(sums, np.full(2, 1.0)) < 0.01


def test_rule_c_nothing_seen_is_not_bias_until_ten_thousand() -> None:
    truth = np.array([0.1, 0.2])
    for replicates, p in ((9_999, 1.0), (10_000, 0.0)):
        assert statistics.bias_p(sums_of(np.zeros((replicates, 2)), truth, np.zeros(2)), truth) == p


def test_a_dead_coordinate_among_live_ones_is_seen() -> None:
    g, truth = normal(4096, 3, sd=0.5), np.ones(3)
    g[:, 2] = 0
    sums = sums_of(g, truth)
    assert statistics.z_scores(sums, truth)[2] < -20
    assert statistics.bias_p(sums, truth) < 1e-20


def test_rounding_of_a_constant_coordinate_is_not_bias() -> None:
    g = normal(20_000, 3)
    g[:, 2] = 0.1
    for error, low, high in ((1e-16, 0.0, 0.01), (1e-12, 0.0, 0.1), (0.1, 5.0, math.inf)):
        truth = np.array([1.0, 1.0, 0.1 + error])
        assert low <= abs(statistics.z_scores(sums_of(g, truth), truth)[2]) <= high
    single = np.array([1.0, 1.0, 0.1 + 1e-8])  # as float32 would have it
    everywhere = np.full((20_000, 3), 0.1)
    assert statistics.bias_p(sums_of(everywhere, single, np.full(3, 0.1)), np.full(3, 0.1 + 1e-8)) < 1e-6
    assert statistics.bias_p(sums_of(everywhere, single, np.full(3, 0.1)), np.full(3, 0.1 + 1e-8), rounding=1e-5) > 0.9


def test_the_error_of_the_truth_is_counted() -> None:
    g, truth = normal(10_000, 2), np.full(2, 1.1)
    sums = sums_of(g, truth)
    assert statistics.bias_p(sums, truth) < 1e-9
    assert statistics.bias_p(sums, truth, 0.1) > 0.1
    assert statistics.bias_p(sums, truth, np.array([0.1, 0.0])) < 1e-9


@given(
    p=st.lists(st.floats(0, 1) | st.sampled_from([1e-9, 1e-4, 0.002, 0.01]), max_size=12), level=st.floats(1e-6, 0.5)
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_holm_is_its_definition(p: list[float], level: float) -> None:
    found = statistics.holm(p, level)
    adjusted: dict[int, float] = {}
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        adjusted[i] = max([(len(p) - rank) * p[i], *adjusted.values()])
    for i, q in adjusted.items():
        assume(abs(q - level) > 1e-12)
        assert found.rejected[i] == (q <= level)
        assert found.rejected[i] == (p[i] <= found.level[i])
    assert len(found.level) == len(p)


def test_holm_by_hand() -> None:
    found = statistics.holm([0.5, 0.004, 0.0001, 0.006], 0.01)
    assert found.rejected.tolist() == [False, False, True, False]
    assert found.level == pytest.approx([0.01 / 3, 0.01 / 3, 0.01 / 4, 0.01 / 3])
    for bad in (math.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="leave out the cells"):
            statistics.holm([0.1, bad])


# Norm of the bias


@pytest.mark.parametrize("size", [2, 6, 200])
@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_model_is_the_noncentral_chi_square_for_a_flat_spectrum(size: int, beta: float) -> None:
    for x in (0.3, 1.0, 2.5, (beta + 0.3) ** 2):
        found = statistics._below(x, beta, 1 / size, 1 / size)
        law = stats.ncx2(size, size * beta**2) if beta else stats.chi2(size)
        assert found == pytest.approx(law.cdf(size * x), abs=2e-4)


def test_one_coordinate_is_the_folded_normal() -> None:
    g, truth = normal(2000, 1), np.full(1, 1.05)
    found = statistics.bias_norm(sums_of(g, truth), truth)
    b, se = abs(g.mean() - 1.05), g.std(ddof=1) / math.sqrt(2000)
    assert found.value == pytest.approx(math.sqrt(max(b**2 - se**2, 0)))
    for beta, reach, tail in ((found.low, b, "above"), (found.high, max(b, se), "below")):
        inside = stats.norm.cdf((reach - beta) / se) - stats.norm.cdf((-reach - beta) / se)
        assert (1 - inside if tail == "above" else inside) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("size", [5, 200])
def test_noise_of_the_mean_is_that_of_the_covariance(size: int) -> None:
    """C = (I + 9 e e') / n: tr C, tr C^2, and the spike though another direction is asked for; P below and above 64."""
    g = normal(6400, size)
    g[:, 0] = 1 + math.sqrt(10) * (g[:, 0] - 1)
    found = statistics._noise(sums_of(g, np.ones(size)), np.eye(size)[1])
    assert found.total == pytest.approx((size + 9) / 6400, rel=0.05)
    assert found.squared == pytest.approx((size + 99) / 6400**2, rel=0.6)
    assert found.along == pytest.approx(10 / 6400, rel=0.5)


def test_noise_of_the_mean_with_that_of_the_truth() -> None:
    """C + diag(se^2) has trace tr C + sum se^2 and squared trace tr C^2 + 2 sum C_jj se_j^2 + sum se_j^4."""
    sums, se = sums_of(normal(4096, 3)), np.array([0.01, 0.02, 0.005])
    before = statistics._noise(sums, np.eye(3)[0])
    after = statistics._with_truth(sums, before, se)
    cross = 2 * np.sum(statistics.standard_error(sums) ** 2 * se**2)
    assert after.total == pytest.approx(before.total + np.sum(se**2))
    assert after.squared == pytest.approx(before.squared + cross + np.sum(se**4))
    assert after.along == pytest.approx(before.along + 0.02**2)


def test_truth_error_widens_the_norm() -> None:
    g, truth = normal(10_000, 4), np.full(4, 1.1)
    exact, inexact = (statistics.bias_norm(sums_of(g, truth), truth, se) for se in (0.0, 0.02))
    assert inexact.low < exact.low < exact.value < exact.high < inexact.high
    assert inexact.value**2 == pytest.approx(exact.value**2 - 4 * 0.02**2)


@given(power=st.integers(-12, 12), shift=st.floats(-2, 2), size=st.integers(1, 3), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_units_do_not_matter(power: int, shift: float, size: int, seed: int) -> None:
    """In other units every length has those units, and every verdict and p-value is the same."""
    unit, truth = 2.0**power, np.full(size, 1 + 0.1 * shift)
    g = normal(640, size, seed, sd=0.3)
    a, b = sums_of(g, truth), sums_of(g * unit, truth * unit)
    one, two = statistics.bias_norm(a, truth), statistics.bias_norm(b, truth * unit)
    assert (two.value, two.low, two.high) == pytest.approx(
        (one.value * unit, one.low * unit, one.high * unit), rel=1e-6
    )
    assert statistics.bias_p(b, truth * unit) == pytest.approx(statistics.bias_p(a, truth), rel=1e-6)
    assert statistics.total_variance(b).value == pytest.approx(statistics.total_variance(a).value * unit**2)
    assert statistics.verdict(b, truth * unit).word == statistics.verdict(a, truth).word


# Verdicts


def test_words() -> None:
    truth = np.full(6, 1.0)
    quiet, loud = sums_of(normal(4096, 6, sd=0.1), truth), sums_of(normal(4096, 6), truth)
    assert statistics.verdict(quiet, truth).word == "unbiased"
    assert statistics.verdict(quiet, truth).replicates_needed is None
    assert statistics.verdict(quiet, truth, rejected=True).word == "biased"
    assert statistics.verdict(loud, truth).word == "undecided"
    assert statistics.verdict(loud, None).word == "no-truth"
    assert math.isnan(statistics.verdict(loud, None).tolerance)
    assert statistics.verdict(loud, None).bias_norm is None
    shown = statistics.verdict(quiet, truth)
    assert shown.tolerance == pytest.approx(0.01 * math.sqrt(6))
    assert shown.bias_norm is not None
    assert shown.bias_norm.high < 0.01 * math.sqrt(6)


def test_truth_limited_comes_after_what_can_be_said() -> None:
    """A rejection counts the truth's error, and so does an interval inside the tolerance: both words stand."""
    truth = np.full(6, 1.0)
    quiet = sums_of(normal(65_536, 6, sd=0.1), truth)
    assert statistics.verdict(quiet, truth, 1e-3).word == "unbiased"
    assert statistics.verdict(quiet, truth, 1e-2).word == "truth-limited"
    assert statistics.verdict(quiet, truth, 1e-2, rejected=True).word == "biased"
    assert statistics.verdict(sums_of(heavy(4096), np.full(2, 3.0)), np.full(2, 3.0), 0.5).word == "undecided"
    near = sums_of(1.0099 * normal(65_536, 6, sd=0.2), truth)  # V / n is 6 times 7.8e-4^2
    assert statistics.verdict(near, truth, 7e-4).word == "undecided"
    assert statistics.verdict(near, truth, 9e-4).word == "truth-limited"
    early = sums_of(normal(1024, 6), truth)
    assert statistics.verdict(early, truth, 1e-3).word == "undecided"
    assert (
        statistics.verdict(early, truth, 1.2e-2).word == "truth-limited"
    )  # 1.2e-2^2 < 1/1024, but no number of replicates will do


def test_a_known_five_percent_bug_is_not_unbiased() -> None:
    """Noise 10 times the truth: 1% of a standard deviation would let 5% of the truth through."""
    truth = np.ones(2)
    found = statistics.verdict(sums_of(0.95 * normal(65_536, 2, sd=10.0), truth), truth)
    assert found.word == "undecided"
    assert found.replicates_needed is not None
    assert found.replicates_needed > 5e6


def test_zero_truth_is_held_to_one_percent_of_a_standard_deviation() -> None:
    sums = sums_of(normal(65_536, 2, centre=0.0), np.zeros(2))
    for truth in (np.zeros(2), np.full(2, 3e-17)):
        assert statistics.tolerance(sums, truth) == pytest.approx(0.01 * math.sqrt(2), rel=0.02)
        assert statistics.verdict(sums, truth).word == "unbiased"


@pytest.mark.parametrize("replicates", [64, 4096, 16_384])
def test_an_enumerated_gradient_is_unbiased_to_rounding(replicates: int) -> None:
    for truth in (np.array([0.1, -0.3]), np.zeros(2)):
        g = np.broadcast_to(truth * (1 + 1e-15), (replicates, 2))
        found = statistics.verdict(sums_of(g, truth), truth)
        assert found.word == "unbiased"
        assert statistics.bias_p(sums_of(g, truth), truth) > 0.9


def test_a_wrong_constant_is_biased_when_it_has_been_constant_for_long() -> None:
    truth = np.array([0.1, -0.3])
    for replicates, word in ((4096, "undecided"), (16_384, "biased")):
        sums = sums_of(np.broadcast_to(1.001 * truth, (replicates, 2)), truth)
        rejected = bool(statistics.holm([statistics.bias_p(sums, truth)]).rejected[0])
        assert statistics.verdict(sums, truth, rejected=rejected).word == word


def test_a_replicate_that_is_not_finite_is_never_certified() -> None:
    g, truth = normal(4096, 2, sd=0.01), np.ones(2)
    assert statistics.verdict(sums_of(g, truth), truth).word == "unbiased"
    g[17, 1] = np.nan
    found = statistics.verdict(sums_of(g, truth, np.ones(2)), truth)
    assert (found.word, found.replicates_needed) == ("undecided", math.inf)


@pytest.mark.parametrize(("size", "wanted"), [(1, 130_000), (6, 35_000), (200, 3_800), (2000, 1_100)])
def test_replicates_needed_for_one_percent_of_a_standard_deviation(size: int, wanted: int) -> None:
    """The numbers of the evidence for a flat spectrum; with a measured one, about 1.3 times as many and no fewer."""
    quantile = stats.chi2(size).ppf(0.9) / size
    assert (statistics._high_end(quantile, 1 / size, 1 / size, 0.05) / 0.01) ** 2 == pytest.approx(wanted, rel=0.02)
    sums = sums_of(normal(4096, size), np.ones(size))
    assert 1.2 * wanted < statistics.replicates_needed(sums, 0.01 * math.sqrt(size)) < 2.2 * wanted


def test_replicates_needed_where_something_else_binds() -> None:
    sums = sums_of(normal(16_384, 2), np.ones(2))
    free, bound = statistics.replicates_needed(sums, 0.05), statistics.replicates_needed(sums, 0.05, 0.01)
    assert free < bound < math.inf
    assert statistics.replicates_needed(sums, 0.05, 0.05) == math.inf
    rare = sums_of(np.where(np.random.default_rng(0).random((10_000, 1)) < 0.004, 1.0, 0.0), np.full(1, 0.004))
    v = statistics.total_variance(rare)
    assert statistics.replicates_needed(rare, 1.0) == pytest.approx(10_000 * 400 / v.effective_number)
    assert statistics.replicates_needed(sums_of(np.zeros((100, 2))), 1.0) == 10_000


def test_an_undecided_cell_asks_for_no_less_than_the_next_look() -> None:
    """A bias of 0.9 of the tolerance takes more than an unbiased estimator would."""
    truth = np.ones(6)
    sums = sums_of(normal(65_536, 6, sd=0.2) * 1.0099, truth)
    found = statistics.verdict(sums, truth)
    assert found.word == "undecided"
    assert found.replicates_needed == 2 * 65_536


def test_levels_spent_at_looks_sum_to_the_whole() -> None:
    assert statistics.spend(0.01, 0) == 0.005
    assert sum(statistics.spend(0.01, j) for j in range(100_000)) == pytest.approx(0.01, rel=2e-5)


# Comparisons


def test_variance_ratio_is_paired() -> None:
    g = normal(8192, 3)
    other = 2 * (g + 0.01 * normal(8192, 3, seed=1))
    a, b = sums_of(g), sums_of(other)
    found, back = statistics.variance_ratio(b, a), statistics.variance_ratio(a, b)
    assert found.value == pytest.approx(4, rel=0.01)
    assert (back.value, back.low, back.high) == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))
    assert math.log(found.high / found.low) < 0.02
    x, y = (((h - h.mean(0)) ** 2).sum(1) for h in (other, g))
    width = stats.t.ppf(0.975, 63) * np.linalg.norm(influence(g, x) / x.mean() - influence(g, y) / y.mean())
    assert math.log(found.high / found.value) == pytest.approx(width)
    same = statistics.variance_ratio(a, a)
    assert (same.value, same.low, same.high, same.trusted) == (1, 1, 1, True)


def test_variance_ratio_without_trust_has_no_ends() -> None:
    a, b, still = sums_of(heavy(4096)), sums_of(normal(4096, 2)), sums_of(np.zeros((4096, 2)))
    for found in (
        statistics.variance_ratio(a, b),
        statistics.variance_ratio(b, a),
        statistics.variance_ratio(b, still),
    ):
        assert (found.low, found.high, found.trusted) == (0.0, math.inf, False)
    assert statistics.variance_ratio(b, still).value == math.inf
    assert statistics.variance_ratio(still, b).value == 0
    assert statistics.variance_ratio(still, still).value == 1


def test_work_ratio_adds_in_quadrature() -> None:
    found = statistics.work_ratio(
        VarianceRatio(2.0, 2 / math.exp(0.3), 2 * math.exp(0.3), True),
        Interval(3, 3 / math.exp(0.4), 3 * math.exp(0.4)),
    )
    assert (found.value, found.low, found.high) == pytest.approx((6, 6 / math.exp(0.5), 6 * math.exp(0.5)))
    assert statistics.work_ratio(VarianceRatio(2.0, 0.0, math.inf, False), Interval(3, 2, 4)) == Interval(
        6, 0, math.inf
    )


@pytest.mark.parametrize(("rounds", "first"), [(6, 1), (7, 1), (9, 2), (15, 4), (21, 6), (31, 10), (51, 19)])
def test_median_takes_order_statistics(rounds: int, first: int) -> None:
    x = np.random.default_rng(0).permutation(rounds) + 1.0
    found = statistics.median_interval(x)
    assert (found.value, found.low, found.high) == ((rounds + 1) / 2, first, rounds + 1 - first)
    assert 2 * stats.binom.cdf(first - 1, rounds, 0.5) <= 0.05 < 2 * stats.binom.cdf(first, rounds, 0.5)


def test_median_of_few_rounds_has_no_ends() -> None:
    found = statistics.median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.value, found.low, found.high) == (3.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no round"):
        statistics.median_interval([])


# Everywhere


def numbers(x: Any) -> list[float]:
    """Every number in a result, however deep."""
    if x is None or isinstance(x, str | bool):
        return []
    if is_dataclass(x):
        return [n for f in fields(x) for n in numbers(getattr(x, f.name))]
    if isinstance(x, list):
        return [n for each in x for n in numbers(each)]
    return [float(n) for n in np.ravel(x)]


@pytest.mark.parametrize("size", [1, 3, 70])
@pytest.mark.parametrize(
    "kind", ["normal", "constant", "zero", "rare", "one constant", "huge", "tiny", "all nan", "some nan"]
)
def test_nothing_is_nan_and_nothing_warns(size: int, kind: str) -> None:
    for replicates in (0, 1, 2, 63, 65, 1000, 10_000):
        g = normal(replicates, size, centre=0.0)
        if kind == "one constant":
            g[:, 0] = 0.3
        g = {"constant": 0 * g + 0.1, "zero": 0 * g, "rare": (g > 3) * 1.0, "huge": g * 1e55, "tiny": g * 1e-40}.get(
            kind, g
        )
        if kind.endswith("nan"):
            g[:: 1 if kind == "all nan" else 5] = np.nan
        for truth in (np.zeros(size), np.full(size, 0.1), np.full(size, 1e-17)):
            sums = sums_of(g, truth, np.full(size, 0.1))
            for se in (0.0, 1e-3):
                found: list[Any] = [
                    statistics.bias_norm(sums, truth, se),
                    statistics.snr(sums, truth, se),
                    statistics.verdict(sums, truth, se),
                    statistics.bias_p(sums, truth, se),
                    statistics.z_scores(sums, truth, se),
                ]
                assert not np.isnan(numbers(found)).any()
            of_sums = (statistics.mean, statistics.variance, statistics.standard_error, statistics.kurtosis)
            rest: list[Any] = [
                f(sums) for f in (*of_sums, statistics.total_variance, statistics.snr, statistics.cosine)
            ]
            rest += [statistics.mse(sums, truth), statistics.variance_ratio(sums, sums)]
            assert not np.isnan(numbers(rest)).any()
            for interval in (x for x in (*found, *rest) if isinstance(x, Interval)):
                assert interval.low <= interval.high


def test_a_truth_that_cannot_be_is_refused() -> None:
    sums = sums_of(normal(100, 2))
    with pytest.raises(ValueError, match="not 2 finite numbers"):
        statistics.mse(sums, np.ones(3))
    with pytest.raises(ValueError, match="not 2 finite numbers"):
        statistics.bias_p(sums, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="negative or not finite"):
        statistics.bias_norm(sums, np.ones(2), -1.0)


def test_import_is_light() -> None:
    heavy_ones = "{'scipy', 'torch', 'numba'}"
    code = f"import sys, bench.statistics; print(sorted({{m.split('.')[0] for m in sys.modules}} & {heavy_ones}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
