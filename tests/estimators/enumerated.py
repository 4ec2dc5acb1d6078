"""The exact mean of an estimator of few samples of few states: its gradient at every draw there is, by the harness."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations_with_replacement

import torch

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, asks, size_of
from problems.base import Problem
from problems.truth import log_probability


def first_datum(problem: Problem) -> Problem:
    """The same problem with one datum: there, a draw is one of S^K."""
    assert problem.data is not None
    return replace(problem, data=problem.data[:1])


def exact_mean(estimator: Estimator, problem: Problem, symmetric: bool = False) -> torch.Tensor:
    """E g `[P]` of an estimator whose points are K independent draws of q, and which reads no other noise.

    Of a problem of one datum, or without data. symmetric: the order of the points does not matter, so that each multiset of them
    is taken once. The probabilities are those of `problems.truth`.
    """
    assert problem.rows <= 1
    q = problem.bind(problem.site_parameters(problem.theta))
    support = q.support()
    if problem.rows:
        support = support[:, None]
    K, S = len(asks(estimator.points, size_of(problem))), len(support)
    if symmetric:
        index = torch.tensor(list(combinations_with_replacement(range(S), K))).T
        counts = torch.stack([(index == s).sum(0) for s in range(S)]).double()
        orders = (math.lgamma(K + 1) - (counts + 1).lgamma().sum(0)).exp()
    else:
        index = torch.cartesian_prod(*[torch.arange(S)] * K).reshape(-1, K).T
        orders = torch.ones(index.shape[1], dtype=torch.float64)
    chance = orders * log_probability(q, support).reshape(-1)[index].sum(0).exp()
    assert abs(float(chance.sum()) - 1) < 1e-12
    laid_out = replace(estimator, draw=lambda theta: support[index].to(theta))
    return chance @ gradients(prepare(laid_out, problem), range(index.shape[1]))
