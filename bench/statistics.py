"""Intervals and verdicts read from Sums: pure functions, each with its formula and section of the evidence.

Everything rests on one idea: a mean xbar = sum x_b / n of grouped sums x_b, over B groups, has the influences
f_b = (x_b - n_b xbar) / n sqrt(B / (B-1)) and se^2 = sum f_b^2, with Student's t of B - 1 degrees.
An interval that cannot be had ends at infinity, and no estimate is NaN. scipy is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from bench.moments import Sums

ENOUGH = 400  # effective number from which an interval of the variance is two-sided: a standard error of 5%
TAIL = 1.5  # Hill index of |d|^2 from which it is
RARE = 30  # effective events below which a coordinate cannot reject
CONSTANT = 10_000  # replicates after which what never varied is taken for constant
ROUNDING = 1e-10  # of the size of a gradient: below it a difference is rounding
SMALLEST = 1e-15  # and so it is below this, whatever the size
CANCELLED = 1e-12  # a sum of squares below this share of what was subtracted from it is rounding

Word = Literal["unbiased", "biased", "undecided", "truth-limited", "no-truth"]


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TotalVariance:
    """V and its interval, whose high end is infinite unless `trusted`."""

    value: float
    low: float
    high: float
    effective_number: float
    tail_index: float
    trusted: bool


@dataclass(frozen=True)
class VarianceRatio:
    """Var A / Var B and its interval, from 0 to infinity unless both variances are trusted."""

    value: float
    low: float
    high: float
    trusted: bool


@dataclass(frozen=True)
class Rejections:
    """Which p-values reject, and the level that each one was held against."""

    rejected: np.ndarray
    level: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """tolerance: the norm of bias that `unbiased` excludes. bias_norm: "no bias above its high end" is what was shown.

    replicates_needed: about how many would decide; None where the cell is decided or replicates are not what it lacks.
    Where there is no truth, tolerance is NaN and bias_norm None.
    """

    word: Word
    tolerance: float
    replicates_needed: float | None
    bias_norm: Interval | None


# Means and moments (section 0)


def mean(sums: Sums) -> np.ndarray:
    """[P]: m = c + S1 / n, the pilot where there is no replicate."""
    return sums.pilot + sums.s1[:, :-1].sum(0) / max(_count(sums), 1)


def variance(sums: Sums) -> np.ndarray:
    """[P]: s_j^2 = (S2 - n (m - c)^2) / (n-1) of one replicate; exactly 0 where only rounding varies."""
    return _spread_of_each(sums)[:-1] / max(_count(sums) - 1, 1)


def standard_error(sums: Sums) -> np.ndarray:
    """[P]: s_j / sqrt(n) of the mean; infinite for fewer than two replicates."""
    n = _count(sums)
    return np.sqrt(variance(sums) / n) if n > 1 else np.full(len(sums.pilot), np.inf)


def kurtosis(sums: Sums) -> np.ndarray:
    """[P]: n S4c / S2c^2 with central sums; 0, which no distribution has, where a coordinate is constant."""
    events = _events(sums)[:-1]
    return np.divide(_count(sums), events, out=np.zeros(len(events)), where=events > 0)


def _count(sums: Sums) -> int:
    return int(sums.n.sum())


def _used(sums: Sums) -> int:
    """B: groups that hold a replicate."""
    return int((sums.n > 0).sum())


def _size(sums: Sums) -> float:
    """The size of a gradient: the larger of the scale given and sqrt(mean |g|^2)."""
    return max(sums.scale, math.sqrt(max(_squares(sums, np.zeros(len(sums.pilot))).sum(), 0.0) / max(_count(sums), 1)))


def _floor(sums: Sums, truth: np.ndarray, rounding: float) -> float:
    """What a difference from the truth can be by rounding alone."""
    return rounding * max(_size(sums), float(np.linalg.norm(truth))) + SMALLEST


def _spread_of_each(sums: Sums) -> np.ndarray:
    """[P+1]: S2c = S2 - n (m - c)^2, sum of squares around the mean; 0 where it is rounding."""
    n = max(_count(sums), 1)
    squares = sums.s2 - sums.s1.sum(0) ** 2 / n
    noise = np.maximum(CANCELLED * sums.s2, n * (ROUNDING * _size(sums)) ** 2)
    return np.where(squares > noise, squares, 0.0)


def _events(sums: Sums) -> np.ndarray:
    """[P+1]: effective number S2c^2 / S4c of each coordinate; 0 where it is constant.

    With m short for m - c: S4c = S4 - 4 m S3 + 6 m^2 S2 - 3 n m^4.
    """
    n = max(_count(sums), 1)
    m, squares = sums.s1.sum(0) / n, _spread_of_each(sums)
    fourth = sums.s4 - 4 * m * sums.s3 + 6 * m**2 * sums.s2 - 3 * n * m**4
    least = squares**2 / n  # by Cauchy-Schwarz: rounding cannot make more events than replicates
    return np.divide(squares**2, np.maximum(fourth, least), out=np.zeros(len(m)), where=least > 0)


def _squares(sums: Sums, centre: np.ndarray) -> np.ndarray:
    """[64]: x_b = sum |g - a|^2 = Q1_b - 2 e.S1_b + n_b |e|^2, with e = a - c."""
    e = centre - sums.pilot
    return sums.q1 - 2 * np.einsum("bp,p->b", sums.s1[:, :-1], e) + sums.n * np.einsum("p,p->", e, e)


def _share(sums: Sums, x: np.ndarray) -> tuple[float, np.ndarray]:
    """xbar = sum x_b / n, and the influences f_b = (x_b - n_b xbar) / n sqrt(B / (B-1))."""
    n, groups = max(_count(sums), 1), max(_used(sums), 2)
    xbar = float(x.sum()) / n
    return xbar, (x - sums.n * xbar) / n * math.sqrt(groups / (groups - 1))


def _half_width(groups: int, influence: np.ndarray, alpha: float) -> float:
    """t_{B-1} sqrt(sum f_b^2); infinite for fewer than two groups."""
    from scipy.special import stdtrit

    return -float(stdtrit(groups - 1, alpha / 2)) * float(np.linalg.norm(influence)) if groups > 1 else math.inf


def _log_interval(value: float, width: float, trusted: bool) -> Interval:
    """value exp(+- width); no high end unless trusted."""
    return Interval(value, value * math.exp(-width), value * _exp(width) if trusted else math.inf)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _over(a: float, b: float) -> float:
    """a / b for ends of intervals, a >= 0 and b >= 0: 0 / 0 is 0, and so is all over infinity."""
    if a == 0 or math.isinf(b):
        return 0.0
    return a / b if b > 0 else math.inf


def _vector(sums: Sums, truth: np.ndarray) -> np.ndarray:
    truth = np.asarray(truth, dtype=np.float64)
    if truth.shape != sums.pilot.shape or not np.isfinite(truth).all():
        raise ValueError(
            f"a truth of shape {truth.shape} is not {len(sums.pilot)} finite numbers, one for each coordinate"
        )
    return truth


def _errors(sums: Sums, truth_se: np.ndarray | float) -> np.ndarray:
    """[P]: the truth's standard error at each coordinate."""
    se = np.broadcast_to(np.asarray(truth_se, dtype=np.float64), sums.pilot.shape)
    if not np.all((se >= 0) & np.isfinite(se)):
        raise ValueError("a standard error of the truth is negative or not finite")
    return se


# Total variance (section 1)


def total_variance(sums: Sums, alpha: float = 0.05) -> TotalVariance:
    """V = sum x_b / (n-1) with x_b = sum |g - m|^2; rel = se / xbar; interval V exp(+- t rel); effective number rel^-2.

    Trusted where the effective number is at least 400 (of no fewer replicates), the Hill index at least 1.5, and every
    replicate finite: one left out could hold anything. V = 0 to rounding is trusted from 10^4 replicates. Section 1.
    """
    n, groups, tail, whole = _count(sums), _used(sums), tail_index(sums), sums.nonfinite == 0
    xbar, influence = _share(sums, _squares(sums, mean(sums)))
    if xbar <= max(CANCELLED * sums.q1.sum() / max(n, 1), (ROUNDING * _size(sums)) ** 2):
        constant = n >= CONSTANT and whole
        return TotalVariance(0.0, 0.0, 0.0 if constant else math.inf, math.inf if constant else 0.0, math.inf, constant)
    rel = float(np.linalg.norm(influence)) / xbar
    effective = 0.0 if groups < 2 else 1 / max(rel, 1e-8) ** 2
    trusted = min(effective, n) >= ENOUGH and tail >= TAIL and whole
    found = _log_interval(xbar * n / (n - 1), _half_width(groups, influence, alpha) / xbar, trusted)
    return TotalVariance(found.value, found.low, found.high, effective, tail, trusted)


def tail_index(sums: Sums) -> float:
    """Hill index of the 32 largest |d|^2, 1 / mean log(top_i / top_33); infinite where no tail is seen. Section 1."""
    largest, next_one = sums.top[-32:], sums.top[-33]
    excess = float(np.log(largest / next_one).mean()) if next_one > 0 else 0.0
    return 1 / excess if excess > 0 else math.inf


def subsampling_variance(products: Sums, sums: Sums, alpha: float = 0.05) -> Interval:
    """tr Var E[g | rows]: the mean of the products of `bench.subsampling` +- t se, cut at 0, below which no variance is.

    It has that high end where 30 effective events or more are seen, the Hill index of the products is at least 1.5 and every one
    is finite; where not, that of the total variance, of which it is a part.
    """
    total = total_variance(sums, alpha)
    if total.value == 0:
        return Interval(0.0, 0.0, total.high)
    xbar, influence = _share(products, products.s1[:, 0])
    width = _half_width(_used(products), influence, alpha)
    tail = 2 * tail_index(products)  # that of |product|, where the sums hold its square
    trusted = _events(products)[0] >= RARE and tail >= TAIL and products.nonfinite == 0
    return Interval(max(xbar, 0.0), max(xbar - width, 0.0), max(xbar + width, 0.0) if trusted else total.high)


# MSE, SNR, cosine (section 7)


def mse(sums: Sums, truth: np.ndarray, alpha: float = 0.05) -> Interval:
    """E |g - g*|^2 directly: x_b = Q1_b - 2 a.S1_b + n_b |a|^2, a = g* - c; log interval, guarded as V. Section 7."""
    xbar, influence = _share(sums, np.maximum(_squares(sums, _vector(sums, truth)), 0.0))
    trusted = total_variance(sums).trusted
    if xbar == 0:
        return Interval(0.0, 0.0, 0.0 if trusted else math.inf)
    return _log_interval(xbar, _half_width(_used(sums), influence, alpha) / xbar, trusted)


def snr(
    sums: Sums, truth: np.ndarray | None = None, truth_se: np.ndarray | float = 0.0, alpha: float = 0.05
) -> Interval:
    """|E g|^2 / V. With an exact truth |g*|^2 / V, whose interval is that of V inverted. Section 7.

    Without truth |E g| is the debiased norm of the mean, and with a truth of standard error se* that of the truth; then
    the intervals of numerator and V have alpha / 2 each. (The naive |m|^2 / V is too large by 1 / n.)
    """
    if truth is None:
        signal, part = bias_norm(sums, np.zeros(len(sums.pilot)), 0.0, alpha / 2), alpha / 2
    else:
        signal = _truth_norm(_vector(sums, truth), _errors(sums, truth_se), alpha / 2)
        part = alpha / 2 if np.any(_errors(sums, truth_se) > 0) else alpha
    v = total_variance(sums, part)
    return Interval(
        _over(signal.value**2, v.value),
        _over(signal.low**2, v.high),
        _over(signal.high**2, v.low),
    )


def _truth_norm(truth: np.ndarray, se: np.ndarray, alpha: float) -> Interval:
    """|g*| of a truth known to se: the model of section 3 for a Gaussian with independent coordinates."""
    x = float(np.sum(truth**2))
    noise = Noise(float(np.sum(se**2)), float(np.sum(se**4)), float(np.max(se**2)))
    return _debiased(x, noise, alpha)


def cosine(sums: Sums, alpha: float = 0.05) -> Interval:
    """E cos(g, g*) = sum C_b / n +- t se, within [-1, 1]. Means nothing where the axis of the sums is zero. Section 7.

    Where it never varied, what was not seen has probability at most p = 1 - (alpha/2)^(1/n), and reaches to -1 and 1.
    """
    n = _count(sums)
    value, influence = _share(sums, sums.cos)
    width = _half_width(_used(sums), influence, alpha)
    if width > ROUNDING:
        return Interval(value, max(value - width, -1.0), min(value + width, 1.0))
    unseen = 1 - (alpha / 2) ** (1 / n)
    return Interval(value, value - unseen * (1 + value), value + unseen * (1 - value))


# Test of bias (section 2)


@dataclass(frozen=True)
class _Deviations:
    """[P+1] each: b = m - g*, its standard error with the truth's, R = largest deviation; seen: not none (rule c)."""

    b: np.ndarray
    se: np.ndarray
    reach: np.ndarray
    seen: bool


def z_scores(
    sums: Sums, truth: np.ndarray, truth_se: np.ndarray | float = 0.0, rounding: float = ROUNDING
) -> np.ndarray:
    """[P+1]: z of each coordinate and of the truth's direction, with the sign of b = m - g*. Section 2.

    z solves |b| = z se + 2 R z^2 / (3n), R = M + |m - c| the largest deviation seen: the worst skewness the data allow.
    It is 0 where it cannot reject: by rule a, a coordinate that varies and has fewer than 30 effective events; by rule
    c, every coordinate, where all were constant for less than 10^4 replicates.
    rounding: of the size of a gradient; 1e-5 for float32.
    """
    found = _deviations(sums, _vector(sums, truth), truth_se, rounding)
    b, events = np.abs(found.b), _events(sums)
    z = 2 * b / (found.se + np.sqrt(found.se**2 + 8 * found.reach * b / (3 * max(_count(sums), 1))))
    return np.where(found.seen & ((events == 0) | (events >= RARE)), np.copysign(z, found.b), 0.0)


def bias_p(sums: Sums, truth: np.ndarray, truth_se: np.ndarray | float = 0.0, rounding: float = ROUNDING) -> float:
    """p-value of "unbiased": p_j = 2 Phi(-|z_j|), Bonferroni over P coordinates and the truth's direction. Section 2.

    Where V is not trusted (rule b), p_j = 2 exp(-L) of the empirical Bernstein bound |b| = se sqrt(2 L) + 14/3 R L / n
    instead of z and rule a, which under infinite variance would let no bias be seen; R of a coordinate of few events is then the
    largest of all, for what it has met says nothing of what it has not. 1 where rule c forbids.
    Correction over the cells of a run (`holm`) is the caller's.
    """
    from scipy.special import ndtr

    truth = _vector(sums, truth)
    if total_variance(sums).trusted:
        p = 2 * ndtr(-np.abs(z_scores(sums, truth, truth_se, rounding)))
    else:
        found = _deviations(sums, truth, truth_se, rounding)
        b, linear = np.abs(found.b), math.sqrt(2) * found.se
        reach = np.where(_events(sums) < RARE, found.reach.max(), found.reach)
        root = 2 * b / (linear + np.sqrt(linear**2 + 4 * 14 / 3 * reach * b / max(_count(sums), 1)))  # sqrt(L)
        p = np.minimum(2 * np.exp(-(root**2)), 1.0) if found.seen else np.ones(len(root))
    tests = len(truth) + int(len(truth) > 1 and np.any(sums.axis != 0))
    return float(min(1.0, tests * p[:tests].min()))


def _deviations(sums: Sums, truth: np.ndarray, truth_se: np.ndarray | float, rounding: float) -> _Deviations:
    """se^2 = s^2 / n + se*^2 + floor^2: the floor keeps rounding of a constant coordinate from being an infinite z.

    A constant coordinate has the largest R of all, and so has one of 30 effective events or more beside one of fewer: rare
    events move the coordinates together, and what one has not met yet the others show. (Measured: an unbiased baseline on
    rare categories has z = -8 by its own R at n = 65,536, -0.7 at 4 million.) Rule c: where all are constant it takes 10^4
    replicates, for an event of probability p is missed with probability e^{-np}.
    """
    n = _count(sums)
    e, se = truth - sums.pilot, _errors(sums, truth_se)
    m, squares = sums.s1.sum(0) / max(n, 1), _spread_of_each(sums)
    noise = squares / (max(n - 1, 1) * max(n, 1))
    known = np.append(se**2, np.sum(se**2 * sums.axis**2)) + _floor(sums, truth, rounding) ** 2
    reach, varies = sums.high + np.abs(m), squares > 0
    rare = varies & (_events(sums) < RARE)
    return _Deviations(
        b=m - np.append(e, np.sum(e * sums.axis)),
        se=np.sqrt(noise + known),
        reach=np.where(rare | (varies & ~rare.any()), reach, reach.max()),
        seen=n >= CONSTANT or bool(varies.any()),
    )


def holm(p_values: Sequence[float] | np.ndarray, level: float = 0.01) -> Rejections:
    """Holm's step-down: p-value i = 0, 1, ... of m, ascending, rejects if all before it do and p <= level / (m - i).

    `level` of a p-value that does not reject: the one it would have had to meet.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values lie between 0 and 1: leave out the cells that were not tested")
    order = np.argsort(p, kind="stable")
    steps = level / (len(p) - np.arange(len(p)))
    stops = np.flatnonzero(p[order] > steps)
    count = int(stops[0]) if len(stops) else len(p)
    held = np.where(np.arange(len(p)) < count, steps, level / max(len(p) - count, 1))
    rejected, levels = np.zeros(len(p), dtype=bool), np.empty(len(p))
    rejected[order[:count]], levels[order] = True, held
    return Rejections(rejected, levels)


# Norm of the bias (section 3)


@dataclass(frozen=True)
class Noise:
    """Of the covariance C of the mean: total = tr C, squared = tr C^2, along = variance of the direction kept apart."""

    total: float
    squared: float
    along: float


def bias_norm(sums: Sums, truth: np.ndarray, truth_se: np.ndarray | float = 0.0, alpha: float = 0.05) -> Interval:
    """|b| without the noise floor, sqrt(max(x - t1, 0)), x = |m - g*|^2, t1 = V / n + sum se*^2. Section 3.

    Interval: x ~ (beta + sqrt(lam) Z)^2 + a chi2_nu, one direction plus a gamma. No high end where V is not trusted,
    and no low end either where it is the tail index that is too small: t1 is then too small as well.
    """
    b = mean(sums) - _vector(sums, truth)
    x = float(np.sum(b**2))
    if _used(sums) < 3:
        return Interval(math.sqrt(x), 0.0, math.inf)
    found = _debiased(x, _with_truth(sums, _noise(sums, b / max(math.sqrt(x), 1e-300)), truth_se), alpha)
    v = total_variance(sums)
    if v.trusted:
        return found
    return Interval(found.value, found.low if v.value > 0 and v.tail_index >= TAIL else 0.0, math.inf)


def _debiased(x: float, noise: Noise, alpha: float) -> Interval:
    """Low end: beta with P(X >= x) = alpha/2, 0 if there is none. High end: beta with P(X <= max(x, t1)) = alpha/2.

    (The max, for an x that is small by luck must not look like proof.) In units of sqrt(t1).
    """
    if noise.total < 1e-150:
        return Interval(math.sqrt(x), math.sqrt(x), math.sqrt(x))
    unit, shape = math.sqrt(noise.total), (noise.along / noise.total, noise.squared / noise.total**2)
    y = x / noise.total
    return Interval(
        math.sqrt(max(y - 1, 0.0)) * unit, _low_end(y, *shape, alpha) * unit, _high_end(y, *shape, alpha) * unit
    )


def _low_end(x: float, lam: float, t2: float, alpha: float) -> float:
    from scipy.optimize import brentq

    if 1 - _below(x, 0.0, lam, t2) >= alpha / 2:
        return 0.0
    return float(brentq(lambda beta: 1 - _below(x, beta, lam, t2) - alpha / 2, 0.0, math.sqrt(x) + 14))


def _high_end(x: float, lam: float, t2: float, alpha: float) -> float:
    from scipy.optimize import brentq

    x = max(x, 1.0)
    return float(brentq(lambda beta: _below(x, beta, lam, t2) - alpha / 2, 0.0, math.sqrt(x) + 14))


def _below(x: float, beta: float, lam: float, t2: float) -> float:
    """P((beta + sqrt(lam) Z)^2 + a chi2_nu <= x), t1 = 1: a = (t2 - lam^2) / (1 - lam), nu = (1 - lam) / a."""
    from scipy.special import gammainc, ndtr

    s, r, rest = math.sqrt(lam), math.sqrt(x), 1 - lam
    if rest < 1e-9:
        return float(ndtr((r - beta) / s) - ndtr((-r - beta) / s))
    other = min(max(t2 - lam**2, 1e-12), rest**2)
    a, nu = other / rest, rest**2 / other
    low, high = max(-8.0, (-r - beta) / s), min(8.0, (r - beta) / s)
    if high <= low:
        return 0.0
    nodes, weights = _quadrature()
    z = (high - low) / 2 * nodes + (high + low) / 2
    left = np.maximum(x - (beta + s * z) ** 2, 0.0)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float((high - low) / 2 * np.sum(weights * density * gammainc(nu / 2, left / (2 * a))))


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(64)


def _noise(sums: Sums, direction: np.ndarray) -> Noise:
    """Traces of C from the group means; lam = min(t1, max(b' S b, top, t2 / t1)) for a unit vector b. Section 3.

    X_b = (S1_b - n_b S1 / n) / n sqrt(B / (B-1)), S = X'X (or XX', which has the same eigenvalues), N = B - 1:
    t2 = N^2 / ((N+2)(N-1)) (|S|_F^2 - (tr S)^2 / N) within [t1^2 / P, t1^2];  top = e1 - (tr S - e1) / (N-1).
    """
    n, groups = _count(sums), _used(sums)
    t1 = total_variance(sums).value / n
    if t1 == 0:
        return Noise(0.0, 0.0, 0.0)
    s1 = sums.s1[:, :-1]
    x = (s1 - sums.n[:, None] * s1.sum(0) / n) / n * math.sqrt(groups / (groups - 1))
    s = x @ x.T if x.shape[1] > len(x) else x.T @ x
    free, trace, e1 = groups - 1, float(np.trace(s)), float(np.linalg.eigvalsh(s)[-1])
    t2 = free**2 / ((free + 2) * (free - 1)) * (float(np.sum(s**2)) - trace**2 / free)
    t2 = min(max(t2, t1**2 / x.shape[1]), t1**2)
    top = e1 - (trace - e1) / (free - 1)
    return Noise(t1, t2, min(t1, max(float(np.sum((x @ direction) ** 2)), top, t2 / t1)))


def _with_truth(sums: Sums, noise: Noise, truth_se: np.ndarray | float) -> Noise:
    """t1 += sum se*^2;  t2 += 2 sum C_jj se*_j^2 + sum se*_j^4;  lam += max se*_j^2. Section 3."""
    known = _errors(sums, truth_se) ** 2
    total = noise.total + float(known.sum())
    squared = noise.squared + 2 * float(np.sum(standard_error(sums) ** 2 * known)) + float(np.sum(known**2))
    return Noise(total, min(squared, total**2), min(noise.along + float(known.max()), total))


# Verdicts (section 4)


def verdict(
    sums: Sums,
    truth: np.ndarray | None,
    truth_se: np.ndarray | float = 0.0,
    *,
    rejected: bool = False,
    alpha: float = 0.05,
    resolution: float = 0.01,
    rounding: float = ROUNDING,
) -> Verdict:
    """The word for one cell; `rejected`: whether Holm over the cells of the run rejected its `bias_p`. Section 4.

    The first that holds: `no-truth`. `biased`: rejected; the test counts the truth's error. `unbiased`: V is trusted
    and the high end of |bias| is below the tolerance, or the gradient is constant and equals an exact truth.
    `truth-limited`: V is trusted, and sum se*^2 is more than half of t1 (more replicates narrow the interval by less
    than sqrt 2) or no number of replicates can reach the tolerance. `undecided`.
    """
    if truth is None:
        return Verdict("no-truth", math.nan, None, None)
    truth = _vector(sums, truth)
    v, bias, limit = total_variance(sums), bias_norm(sums, truth, truth_se, alpha), tolerance(sums, truth, resolution)
    if rejected:
        return Verdict("biased", limit, None, bias)
    if (v.trusted and bias.high < limit) or _equals(sums, v, truth, truth_se, rounding):
        return Verdict("unbiased", limit, None, bias)
    needed = replicates_needed(sums, limit, truth_se, alpha)
    known = float(np.sum(_errors(sums, truth_se) ** 2))
    if v.trusted and known > 0 and (known > v.value / _count(sums) or math.isinf(needed)):
        return Verdict("truth-limited", limit, None, bias)
    return Verdict("undecided", limit, max(needed, 2.0 * _count(sums)), bias)


def _equals(sums: Sums, v: TotalVariance, truth: np.ndarray, truth_se: np.ndarray | float, rounding: float) -> bool:
    """A constant gradient that is an exact truth to rounding."""
    exact = not np.any(_errors(sums, truth_se) > 0) and _count(sums) > 0 and sums.nonfinite == 0
    return exact and v.value == 0 and float(np.linalg.norm(mean(sums) - truth)) <= _floor(sums, truth, rounding)


def tolerance(sums: Sums, truth: np.ndarray, resolution: float = 0.01) -> float:
    """1% of |g*|; of one replicate's standard deviation sqrt(V) only where g* is zero, to rounding. Section 4."""
    norm = float(np.linalg.norm(truth))
    return resolution * (norm if norm > ROUNDING * _size(sums) else math.sqrt(total_variance(sums).value))


def replicates_needed(
    sums: Sums,
    tolerance: float,
    truth_se: np.ndarray | float = 0.0,
    alpha: float = 0.05,
    power: float = 0.9,
) -> float:
    """About how many replicates the verdict `unbiased` takes without bias; infinite if no number will do. Section 4.

    The larger of 1.3 N, where h^2 (V / N + sum se*^2) = tolerance^2, and of N_tail = 400 n / effective number; h is the
    high end of |bias| in units of sqrt(t1) when x is at the `power` quantile of chi2_nu / nu, nu = t1^2 / t2.
    """
    from scipy.special import gammaincinv

    n, v = _count(sums), total_variance(sums)
    if sums.nonfinite:
        return math.inf
    if v.value == 0 or _used(sums) < 3:
        return float(CONSTANT)
    noise = _noise(sums, sums.axis)
    nu = noise.total**2 / noise.squared
    h = _high_end(2 * float(gammaincinv(nu / 2, power)) / nu, noise.along / noise.total, 1 / nu, alpha)
    room = tolerance**2 - h**2 * float(np.sum(_errors(sums, truth_se) ** 2))
    return max(1.3 * v.value * h**2 / room if room > 0 else math.inf, n * ENOUGH / v.effective_number, float(ENOUGH))


def spend(alpha: float, look: int) -> float:
    """alpha_j = alpha / ((j+1)(j+2)) at look j = 0, 1, ..., made at n = n_0 2^j only: they sum to alpha. Section 5."""
    return alpha / ((look + 1) * (look + 2))


# Comparisons (sections 6 and 8)


def variance_ratio(a: Sums, b: Sums, alpha: float = 0.05) -> VarianceRatio:
    """Var A / Var B on the same noise, paired through the groups. Section 6.

    log ratio +- t sqrt(sum (f_b^A / xbar_A - f_b^B / xbar_B)^2), f the influences of x_b = sum |g - m|^2.
    """
    va, vb = total_variance(a), total_variance(b)
    if va.value == 0 or vb.value == 0:
        value = 1.0 if va.value == vb.value else _over(va.value, vb.value)
        return VarianceRatio(value, 0.0, math.inf, False)
    (xa, fa), (xb, fb) = _share(a, _squares(a, mean(a))), _share(b, _squares(b, mean(b)))
    value, trusted = va.value / vb.value, va.trusted and vb.trusted
    if not trusted:
        return VarianceRatio(value, 0.0, math.inf, False)
    found = _log_interval(value, _half_width(min(_used(a), _used(b)), fa / xa - fb / xb, alpha), trusted)
    return VarianceRatio(found.value, found.low, found.high, trusted)


def work_ratio(variances: VarianceRatio | Interval, seconds: Interval) -> Interval:
    """Ratio of variance x time: the product of two ratios, log half-widths in quadrature on each side. Section 6."""
    value = variances.value * seconds.value
    if min(variances.low, seconds.low) <= 0 or math.isinf(max(variances.high, seconds.high)):
        return Interval(value, 0.0, math.inf)
    below = math.hypot(math.log(variances.value / variances.low), math.log(seconds.value / seconds.low))
    above = math.hypot(math.log(variances.high / variances.value), math.log(seconds.high / seconds.value))
    return Interval(value, value * math.exp(-below), value * _exp(above))


def median_interval(rounds: Sequence[float] | np.ndarray, alpha: float = 0.05) -> Interval:
    """Median of R rounds, from x_(k+1) to x_(R-k), k largest with 2 P(Bin(R, 1/2) <= k) <= alpha. Section 8.

    Infinite ends where there is no such k: 6 rounds are the fewest for 95%.
    """
    x = np.sort(np.asarray(rounds, dtype=np.float64))
    if len(x) == 0:
        raise ValueError("the median of no round is not defined")
    k, tail = -1, 1
    while 2 * tail / 2 ** len(x) <= alpha:
        k += 1
        tail += math.comb(len(x), k + 1)
    if k < 0:
        return Interval(float(np.median(x)), -math.inf, math.inf)
    return Interval(float(np.median(x)), float(x[k]), float(x[len(x) - 1 - k]))
