"""MuProp: REINFORCE whose control variate is f expanded at the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning, Noise, Size
from estimators.learning import BATCH, check_learning, least_variance
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FAMILIES = [  # those whose mean has a derivative
    *("bernoulli", "categorical", "subset", "poisson", "geometric", "binomial"),
    *("normal", "gamma", "weibull", "beta", "dirichlet"),
]


def draw(q: Family, noise: Tensor) -> Tensor:
    """x_k ~ q, and the mean mu of q; x: [K + 1, ..., *event]."""
    samples = q.sample(noise)
    return torch.cat([samples, q.mean.expand_as(samples[:1])])


def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """g = 1/K sum_k [f(x_k) - eta (f(mu) + f'(mu).(x_k - mu))] grad log q(x_k) + eta (d mu / d theta)' f'(mu)."""
    samples, mu, slope, eta = x[:-1], x[-1], dfx[-1], state["eta"]
    expansion = fx[-1] + (slope * (samples - mu)).flatten(-q.event_axes).sum(-1)
    return q.score(samples, (fx[:-1] - eta * expansion) / len(samples)) + eta * q.mean_pull(slope)


def combine_simple(q: Family, x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """g = 1/K sum_k [f(x_k) - eta f(mu)] grad log q(x_k)."""
    return q.score(x[:-1], (fx[:-1] - state["eta"] * fx[-1]) / (len(x) - 1))


def muprop(samples: int = 1, linear: bool = True, eta: float = 1.0, steps: int = 0, lr: float = 0.02) -> Estimator:
    """MuProp: REINFORCE less f's linear expansion at the mean, whose gradient is added back exactly.

    With linear=False the expansion is f at the mean alone, a baseline ("simple MuProp"). Assumes f defined at the mean of q, which
    lies off the support, and with linear=True differentiable there. Unbiased for Expectation and Elbo, for any scale eta of the
    expansion: fixed with steps=0, else learned by descending the variance, as in the code of Tucker et al. 2017. K + 1 evaluations
    of f; 1 gradient, none with linear=False.
    Gu, Levine, Sutskever & Mnih 2016, arXiv:1511.05176; linear=False: Tucker et al. 2017, arXiv:1703.07370.
    """
    at_least("muprop", 1, samples=samples)
    check_learning("muprop", steps, lr)

    def noise(size: Size) -> list[Noise]:
        return [n._replace(front=(samples,)) for n in size.family.noise(size)]

    def init() -> dict[str, Tensor]:
        return {"eta": torch.tensor(float(eta))}

    return Estimator(
        "muprop",
        [Ask.SAMPLE] * samples + [Ask.RELAXED | (Ask.GRADIENT if linear else Ask.VALUE)],
        draw,
        combine if linear else combine_simple,
        FAMILIES,
        noise=noise,
        learning=Learning(init, least_variance("eta", lr=lr), steps, BATCH),
        kernel="estimators.kernels.control_variates:muprop",
        settings={"samples": samples, "linear": linear, "eta": eta, "steps": steps, "lr": lr},
        source="arXiv:1511.05176",
    )
