"""Measure-valued derivatives: dq/dtheta_i = c_i (q_i+ - q_i-), with one coordinate of the point replaced at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size
from estimators.replaced import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.bernoulli import Bernoulli
    from problems.families.normal import Normal
    from problems.families.poisson import Poisson

SOURCE = "Mohamed et al. 2020, arXiv:1906.10652, section 6"


def draw_normal(q: Normal, noise: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """mu +- sigma W, W ~ Rayleigh, for the means; mu + sigma M and mu + sigma U M, M ~ double-sided Maxwell, for the scales.

    U M ~ N(0, 1), so the last D points are samples of q; x: [4 D, ..., D].
    """
    eps, u, normals, U = noise
    W = (-2 * u.log()).sqrt()
    M = normals.square().sum(0).sqrt() * normals[0].sign()
    return replaced(q.sample(eps), q.mu + q.sigma * torch.stack([W, -W, M, U * M]))


def combine_normal(q: Normal, fx: Tensor) -> Tensor:
    """g_mu = (f+ - f-) / (sigma sqrt(2 pi)); g_log_sigma = f+ - f-, the constant 1/sigma of sigma times dsigma/dlog sigma."""
    up, down, wide, narrow = fx.unflatten(0, (4, -1)).movedim(1, -1)
    return torch.stack([(up - down) / (q.sigma * math.sqrt(2 * math.pi)), wide - narrow], -2)


def measure_valued_normal() -> Estimator:
    """Measure-valued gradient for factorised Normal variables, the two parts of each parameter coupled.

    Nothing is assumed of f but moderate growth. Unbiased for Expectation and Elbo; 4 D evaluations of f, no gradient of f.
    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6.
    """
    noise = [Noise("normal"), Noise("uniform"), Noise("normal", (3,)), Noise("uniform")]

    def points(size: Size) -> list[Ask]:
        return [Ask.VALUE] * 3 * size.D + [Ask.SAMPLE] * size.D

    return Estimator(
        "measure_valued_normal",
        points,
        draw_normal,
        combine_normal,
        ["normal"],
        noise=noise,
        kernel="estimators.kernels.measure_valued:measure_valued_normal",
        source=SOURCE,
    )


def draw_bernoulli(q: Bernoulli, noise: Tensor) -> Tensor:
    """b ~ q with b_d = 1, then with b_d = 0, for each d; x: [2 D, ..., D]."""
    b = q.sample(noise)
    return replaced(b, torch.stack([torch.ones_like(b), torch.zeros_like(b)]))


def combine_bernoulli(q: Bernoulli, fx: Tensor) -> Tensor:
    """g_d = p_d (1 - p_d) (f(b with b_d = 1) - f(b with b_d = 0)), the constant 1 of p_d times dp/dtheta."""
    one, zero = fx.unflatten(0, (2, -1)).movedim(1, -1)
    return q.p * (1 - q.p) * (one - zero)


def value_bernoulli(q: Bernoulli, fx: Tensor) -> Tensor:
    """L = mean_d [p_d f(b with b_d = 1) + (1 - p_d) f(b with b_d = 0)]."""
    one, zero = fx.unflatten(0, (2, -1)).movedim(1, -1)
    return (q.p * one + (1 - q.p) * zero).mean(-1)


def measure_valued_bernoulli() -> Estimator:
    """Measure-valued gradient for factorised Bernoulli variables: f with each bit on, less f with it off.

    Unbiased for Expectation and Elbo; 2 D evaluations of f, no gradient of f (that one of each pair is f(b) is not made use of).
    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6.
    """
    return Estimator(
        "measure_valued_bernoulli",
        lambda size: [Ask.VALUE] * 2 * size.D,
        draw_bernoulli,
        combine_bernoulli,
        ["bernoulli"],
        noise=[Noise("uniform")],
        value=value_bernoulli,
        kernel="estimators.kernels.measure_valued:measure_valued_bernoulli",
        source=SOURCE,
    )


def draw_poisson(q: Poisson, noise: Tensor) -> Tensor:
    """x ~ q, then x with x_d + 1 for each d; x: [1 + D, ..., D]."""
    x = q.sample(noise)
    return torch.cat([x[None], replaced(x, x[None] + 1)])


def combine_poisson(q: Poisson, fx: Tensor) -> Tensor:
    """g_d = lambda_d (f(x with x_d + 1) - f(x)), the constant 1 of lambda_d times dlambda/dtheta."""
    return q.rate * (fx[1:] - fx[0]).movedim(0, -1)


def measure_valued_poisson() -> Estimator:
    """Measure-valued gradient for factorised Poisson variables: f with one more count, less f.

    Unbiased for Expectation and Elbo; 1 + D evaluations of f, no gradient of f: the negative parts are one sample.
    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6.
    """
    return Estimator(
        "measure_valued_poisson",
        lambda size: [Ask.SAMPLE] + [Ask.VALUE] * size.D,
        draw_poisson,
        combine_poisson,
        ["poisson"],
        noise=[Noise("uniform")],
        source=SOURCE,
    )
