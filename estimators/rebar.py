"""REBAR: REINFORCE with f at a relaxed point as control variate, which the pathwise derivative corrects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning, Noise, Size
from estimators.conditional_relaxation import conditioned, free
from estimators.learning import BATCH, check_learning, least_variance
from estimators.relaxation import FAMILIES, check_temperature, jacobian, soft

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def twice(size: Size) -> list[Noise]:
    """u and v: the noise of a sample, and as much again."""
    return list(size.family.noise(size)) * 2


def draw(q: Family, noise: tuple[Tensor, Tensor], state: Mapping[str, Tensor]) -> Tensor:
    """b = H(z), s = soft(z / lam), s~ = soft(z~ / lam) with z~ of the law of z given b; x: [3, ..., *event]."""
    u, v = noise
    b, lam = q.sample(u), state["log_temperature"].exp()
    z, (z_tilde, _) = free(q, u), conditioned(q, b, v)
    return torch.stack([b, soft(q, z / lam), soft(q, z_tilde / lam)])


def combine(
    q: Family, noise: tuple[Tensor, Tensor], x: Tensor, fx: Tensor, dfx: Tensor, state: Mapping[str, Tensor]
) -> Tensor:
    """g = [f(b) - eta f(s~)] grad log q(b) + eta d/dl f(s) - eta d/dl f(s~); z~ moves with l through its law given b too."""
    (b, s, s_tilde), (f_b, _, f_tilde), (_, df, df_tilde) = x, fx, dfx
    lam, eta = state["log_temperature"].exp(), state["eta"]
    _, pull = conditioned(q, b, noise[1])
    along = jacobian(q, s, df) / lam
    along_tilde = pull(jacobian(q, s_tilde, df_tilde) / lam)
    return q.score(b[None], (f_b - eta * f_tilde)[None]) + eta * along - eta * along_tilde


def rebar(temperature: float = 0.5, eta: float = 1.0, steps: int = 0, lr: float = 0.02) -> Estimator:
    """REBAR: REINFORCE less f at a relaxed point given the sample, whose gradient is added back pathwise.

    Assumes f differentiable and defined between the points of its support. Unbiased for Expectation and Elbo, for any temperature
    and eta: fixed with steps=0, else learned by descending the variance, which takes two derivatives of f. The noise of z given b
    is independent of that of z. 3 evaluations of f, 2 gradients. Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein 2017,
    arXiv:1703.07370; for categories Grathwohl et al. 2018, arXiv:1711.00123, appendix.
    """
    check_temperature("rebar", temperature)
    check_learning("rebar", steps, lr)

    def init() -> dict[str, Tensor]:
        return {"log_temperature": torch.tensor(math.log(temperature)), "eta": torch.tensor(float(eta))}

    relaxed = Ask.RELAXED | Ask.GRADIENT
    return Estimator(
        "rebar",
        [Ask.SAMPLE, relaxed, relaxed],
        draw,
        combine,
        FAMILIES,
        noise=twice,
        learning=Learning(init, least_variance("log_temperature", "eta", lr=lr), steps, BATCH),
        kernel="estimators.kernels.rebar:rebar",
        settings={"temperature": temperature, "eta": eta, "steps": steps, "lr": lr},
        source="arXiv:1703.07370",
    )
