"""Minibatches: how much of the variance is that of the rows drawn, from pairs of estimates that share their rows and nothing else.

    Var g = E Var(g | rows) + Var E[g | rows],    tr Var E[g | rows] = E (g - E g).(g' - E g'),

for g and g' are independent given the rows. What is left of the total is the noise of the latent variables.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.moments import Sums, block_sums, fold
from estimators.noise import key_of

if TYPE_CHECKING:
    from bench.evaluate import State, Trial

PAIRS = 2048
LEAST = 64


def afresh(trial: Trial) -> Trial:
    """The same rows of data in every replicate, and everything else drawn anew."""
    return replace(trial, key=key_of(trial.key, "afresh"), rows_key=trial.key)


def pair_products(trial: Trial, state: State | None, chunk: int) -> Sums:
    """Sums of (g_r - m).(g'_r - m') c / (c - 1) over the replicates r below PAIRS, as of gradients of one coordinate.

    g' is that of `afresh`; m and m' are the means over the c replicates of r's chunk, so that the mean of each product is the
    trace of Var E[g | rows] exactly; over LEAST of them where a chunk is smaller, for products that share a mean of few are not
    independent. By torch, in chunks that divide PAIRS: a pure function of the trial and the state, whatever else is measured of
    the cell.
    """
    from bench.evaluate import gradients

    again, size, zero = afresh(trial), min(max(chunk, LEAST), PAIRS), np.zeros(1)
    step = min(chunk, size)

    def deviations(of: Trial, start: int) -> np.ndarray:
        ranges = [range(first, first + step) for first in range(start, start + size, step)]
        g = np.concatenate([gradients(of, each, state).cpu().double().numpy() for each in ranges])
        return np.asarray(g - g.mean(0))

    def block(start: int) -> Sums:
        products = np.einsum("rp,rp->r", deviations(trial, start), deviations(again, start)) * (size / (size - 1))
        return block_sums(products[:, None], zero, zero, 0.0, start)

    return fold(block(start) for start in range(0, PAIRS, size))
