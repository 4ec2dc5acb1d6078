"""Measurement: an Outcome read as figures, each with its interval, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench import statistics
from bench.moments import Sums
from bench.outcome import Outcome
from bench.statistics import Interval

if TYPE_CHECKING:
    from bench.timing import Timing

LEVEL = 0.01
ROUNDING = {"float64": statistics.ROUNDING, "float32": 1e-5}
UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is known of an estimator on a problem: every figure with its 95% interval.

    gradient, gradient_se, truth, truth_se, bias, variance, kurtosis, z: `[P]`. variance is of one estimate; total_variance its sum.
    bias_norm: |mean - truth|, the noise floor removed. verdict: unbiased, biased, undecided, truth-limited or no-truth.
    tolerance: what `unbiased` means here, a norm. replicates_needed: for a decided verdict, where it is undecided.
    seconds_per_estimate: this run's, on this machine; NaN where it was not timed. yardstick_ratio: to one draw and evaluation of f,
    in the same rounds. noise_floor: of the log of such ratios. work_variance: total_variance x seconds_per_estimate.
    subsampling_variance: the part of total_variance that is of the rows of data drawn; NaN where none are. The rest is latent.
    """

    gradient: np.ndarray
    gradient_se: np.ndarray
    truth: np.ndarray | None
    truth_se: np.ndarray | None
    truth_tier: str
    gradient_norm: float
    bias: np.ndarray | None
    z: np.ndarray | None
    bias_norm: float
    bias_norm_interval: tuple[float, float]
    bias_p: float
    verdict: str
    tolerance: float
    replicates_needed: float | None
    variance: np.ndarray
    total_variance: float
    total_variance_interval: tuple[float, float]
    subsampling_variance: float
    subsampling_variance_interval: tuple[float, float]
    effective_number: float
    tail_index: float
    trusted: bool
    kurtosis: np.ndarray
    mse: float
    mse_interval: tuple[float, float]
    snr: float
    snr_interval: tuple[float, float]
    cosine: float
    cosine_interval: tuple[float, float]
    f_evals: float
    gradient_evals: float
    hessian_evals: float
    learn_f_evals: float
    learn_gradient_evals: float
    learn_seconds: float
    seconds_per_estimate: float
    seconds_per_estimate_interval: tuple[float, float]
    yardstick_ratio: float
    yardstick_ratio_interval: tuple[float, float]
    noise_floor: float
    work_variance: float
    work_variance_interval: tuple[float, float]
    cold_s: float
    rounding: float
    peak_bytes: int
    replicates: int
    nonfinite: int
    claimed: str
    backend: str
    device: str
    dtype: str
    threads: int
    sums: Sums


def bias_test(outcome: Outcome) -> float:
    """p-value of `unbiased`, corrected over the coordinates; 1 where there is no truth. Holm over cells is the caller's."""
    if not outcome.has_truth:
        return 1.0
    return statistics.bias_p(outcome.sums, outcome.truth, outcome.truth_se, ROUNDING[outcome.dtype])


def summarise(outcome: Outcome, timing: Timing | None = None, rejected: bool | None = None) -> Measurement:
    """Read an outcome. rejected: what Holm over the cells of the run says; None: this cell is a family of one, at 1%."""
    s, known = outcome.sums, outcome.has_truth
    truth, truth_se = (outcome.truth, outcome.truth_se) if known else (None, 0.0)
    p = bias_test(outcome)
    verdict = statistics.verdict(
        s, truth, truth_se, rejected=p <= LEVEL if rejected is None else rejected, rounding=ROUNDING[outcome.dtype]
    )
    mean, v = statistics.mean(s), statistics.total_variance(s)
    norm = float(np.linalg.norm(outcome.truth)) if known else statistics.bias_norm(s, np.zeros(len(mean))).value
    rows = statistics.subsampling_variance(outcome.subsampling, s) if outcome.subsampling is not None else UNKNOWN
    mse = statistics.mse(s, truth) if truth is not None else UNKNOWN
    snr = statistics.snr(s, truth, truth_se)
    cosine = statistics.cosine(s) if known and norm > 0 else UNKNOWN
    bias = verdict.bias_norm or UNKNOWN
    seconds = statistics.median_interval(timing.seconds) if timing else UNKNOWN
    ratio = statistics.median_interval(timing.ratios) if timing else UNKNOWN
    work = statistics.work_ratio(Interval(v.value, v.low, v.high), seconds) if timing else UNKNOWN
    return Measurement(
        gradient=mean,
        gradient_se=statistics.standard_error(s),
        truth=truth,
        truth_se=outcome.truth_se if known else None,
        truth_tier=outcome.truth_tier,
        gradient_norm=norm,
        bias=mean - outcome.truth if known else None,
        z=statistics.z_scores(s, outcome.truth, truth_se, ROUNDING[outcome.dtype])[: len(mean)] if known else None,
        bias_norm=bias.value,
        bias_norm_interval=(bias.low, bias.high),
        bias_p=p,
        verdict=verdict.word,
        tolerance=verdict.tolerance,
        replicates_needed=verdict.replicates_needed,
        variance=statistics.variance(s),
        total_variance=v.value,
        total_variance_interval=(v.low, v.high),
        subsampling_variance=rows.value,
        subsampling_variance_interval=(rows.low, rows.high),
        effective_number=v.effective_number,
        tail_index=v.tail_index,
        trusted=v.trusted,
        kurtosis=statistics.kurtosis(s),
        mse=mse.value,
        mse_interval=(mse.low, mse.high),
        snr=snr.value,
        snr_interval=(snr.low, snr.high),
        cosine=cosine.value,
        cosine_interval=(cosine.low, cosine.high),
        f_evals=outcome.f_evals,
        gradient_evals=outcome.gradient_evals,
        hessian_evals=outcome.hessian_evals,
        learn_f_evals=outcome.learn_f_evals,
        learn_gradient_evals=outcome.learn_gradient_evals,
        learn_seconds=outcome.learn_seconds,
        seconds_per_estimate=seconds.value,
        seconds_per_estimate_interval=(seconds.low, seconds.high),
        yardstick_ratio=ratio.value,
        yardstick_ratio_interval=(ratio.low, ratio.high),
        noise_floor=timing.noise_floor() if timing else math.nan,
        work_variance=work.value,
        work_variance_interval=(work.low, work.high),
        cold_s=outcome.cold_s,
        rounding=outcome.rounding,
        peak_bytes=outcome.peak_bytes,
        replicates=outcome.replicates,
        nonfinite=s.nonfinite,
        claimed=outcome.claimed,
        backend=outcome.backend,
        device=outcome.device,
        dtype=outcome.dtype,
        threads=outcome.threads,
        sums=s,
    )
