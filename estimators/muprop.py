"""MuProp: REINFORCE whose control variate is f expanded to first order at the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw(q: Family, noise: Tensor) -> Tensor:
    """x_k ~ q, and the mean mu of q; x: [K + 1, ..., *event]."""
    samples = q.sample(noise)
    return torch.cat([samples, q.mean.expand_as(samples[:1])])


def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
    """g = 1/K sum_k [f(x_k) - f(mu) - f'(mu).(x_k - mu)] grad log q(x_k) + (d mu / d theta)' f'(mu)."""
    samples, mu, slope = x[:-1], x[-1], dfx[-1]
    linear = fx[-1] + (slope * (samples - mu)).flatten(-q.event_axes).sum(-1)
    return q.score(samples, (fx[:-1] - linear) / len(samples)) + q.mean_pull(slope)


def muprop(samples: int = 1) -> Estimator:
    """MuProp: REINFORCE less f's linear expansion at the mean, whose gradient is added back exactly.

    Assumes f differentiable and defined at the mean of q, which lies off the support. Unbiased for Expectation and Elbo; K + 1
    evaluations and 1 gradient of f. Gu, Levine, Sutskever & Mnih 2016, arXiv:1511.05176.
    """
    if samples < 1:
        raise ValueError(f"muprop[samples={samples}]: at least one sample is needed")

    def noise(size: Size) -> list[Noise]:
        return [n._replace(front=(samples,)) for n in size.family.noise(size)]

    return Estimator(
        "muprop",
        [Ask.SAMPLE] * samples + [Ask.RELAXED | Ask.GRADIENT],
        draw,
        combine,
        ["bernoulli", "categorical", "poisson"],
        noise=noise,
        kernel="estimators.kernels.control_variates:muprop",
        settings={"samples": samples},
        source="arXiv:1511.05176",
    )
