"""REBAR: REINFORCE with f at a relaxed point as control variate, which the pathwise derivative corrects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning, Noise, Size
from estimators.conditional_relaxation import conditioned, free, tied
from estimators.learning import BATCH, check_learning, least_variance
from estimators.relaxation import FAMILIES, check_temperature, jacobian, soft
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

State = Mapping[str, "Tensor"]


def once(size: Size) -> list[Noise]:
    """u: the noise of a sample."""
    return list(size.family.noise(size))


def twice(size: Size) -> list[Noise]:
    """u and v: the noise of a sample, and as much again."""
    return once(size) * 2


def rebar(
    temperature: float = 0.5,
    eta: float = 1.0,
    coupling: str = "independent",
    relaxation: str = "concrete",
    steps: int = 0,
    lr: float = 0.02,
) -> Estimator:
    """REBAR: REINFORCE less f at a relaxed point given the sample, whose gradient is added back pathwise.

    Assumes f differentiable and defined between the points of its support. Unbiased for Expectation and Elbo, for any temperature
    and eta: fixed with steps=0, else learned by descending the variance, which takes two derivatives of f. coupling: the noise of
    z given b is independent of that of z, or it is tied to it so that z given b is z, and only the derivatives differ, as in the
    authors' code. relaxation: z / lam, or with relaxation=muprop (z + lam^2 / (lam + 1) l) / lam, whose soft point tends to the
    mean as lam grows, and REBAR to MuProp without its linear term. 3 evaluations of f, 2 gradients; 2 and 1 where tied.
    Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein 2017, arXiv:1703.07370; for categories Grathwohl et al. 2018, arXiv:1711.00123,
    appendix.
    """
    check_temperature("rebar", temperature)
    check_learning("rebar", steps, lr)
    one_of("rebar", ("independent", "tied"), coupling=coupling)
    one_of("rebar", ("concrete", "muprop"), relaxation=relaxation)
    as_one = coupling == "tied"

    def init() -> dict[str, Tensor]:
        return {"log_temperature": torch.tensor(math.log(temperature)), "eta": torch.tensor(float(eta))}

    def scale(state: State) -> tuple[Tensor, Tensor]:
        """lam, and how many logits are added to z."""
        lam = state["log_temperature"].exp()
        return lam, lam * lam / (lam + 1) if relaxation == "muprop" else torch.zeros_like(lam)

    def draw(q: Family, noise: tuple[Tensor, Tensor], state: State) -> Tensor:
        """b = H(z), s = soft((z + kappa l) / lam), s~ the same of z~, which has the law of z given b; x: [3, ..., *event]."""
        u, v = noise
        b, (lam, kappa) = q.sample(u), scale(state)
        z, (z_tilde, _) = free(q, u), conditioned(q, b, v)
        return torch.stack([b, *(soft(q, (z + kappa * q.theta) / lam) for z in (z, z_tilde))])

    def combine(q: Family, noise: tuple[Tensor, Tensor], x: Tensor, fx: Tensor, dfx: Tensor, state: State) -> Tensor:
        """g = [f(b) - eta f(s~)] grad log q(b) + eta d/dl f(s) - eta d/dl f(s~); z~ moves with l through its law given b too."""
        (b, s, s_tilde), (f_b, _, f_tilde), (_, df, df_tilde) = x, fx, dfx
        (lam, kappa), eta = scale(state), state["eta"]
        _, pull = conditioned(q, b, noise[1])
        c, c_tilde = jacobian(q, s, df) / lam, jacobian(q, s_tilde, df_tilde) / lam
        along, along_tilde = c + kappa * c, pull(c_tilde) + kappa * c_tilde
        return q.score(b[None], (f_b - eta * f_tilde)[None]) + eta * along - eta * along_tilde

    def draw_tied(q: Family, noise: Tensor, state: State) -> Tensor:
        """b = H(z), s = soft((z + kappa l) / lam); x: [2, ..., *event]."""
        lam, kappa = scale(state)
        return torch.stack([q.sample(noise), soft(q, (free(q, noise) + kappa * q.theta) / lam)])

    def combine_tied(q: Family, noise: Tensor, x: Tensor, fx: Tensor, dfx: Tensor, state: State) -> Tensor:
        """g = [f(b) - eta f(s)] grad log q(b) + eta (dz/dl - dz~/dl)' (1/lam) J(s) f'(s), z~ = z: kappa l moves both alike."""
        (b, s), (f_b, f_s), (_, df) = x, fx, dfx
        (lam, _), eta = scale(state), state["eta"]
        pull = tied(q, b, free(q, noise))
        c = jacobian(q, s, df) / lam
        return q.score(b[None], (f_b - eta * f_s)[None]) + eta * (c - pull(c))

    relaxed = Ask.RELAXED | Ask.GRADIENT
    settings = {
        "temperature": temperature,
        "eta": eta,
        "coupling": coupling,
        "relaxation": relaxation,
        "steps": steps,
        "lr": lr,
    }
    return Estimator(
        "rebar",
        [Ask.SAMPLE, relaxed] if as_one else [Ask.SAMPLE, relaxed, relaxed],
        draw_tied if as_one else draw,
        combine_tied if as_one else combine,
        FAMILIES,
        noise=once if as_one else twice,
        learning=Learning(init, least_variance("log_temperature", "eta", lr=lr), steps, BATCH),
        kernel="estimators.kernels.rebar:rebar",
        settings=settings,
        source="arXiv:1703.07370",
    )
