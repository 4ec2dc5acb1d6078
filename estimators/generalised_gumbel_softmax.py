"""Generalised Gumbel-Softmax: counts relaxed as the mean of a softened choice among the first of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import distributions
from torch.nn.functional import softplus

from estimators.base import Ask, Claim, Estimator, Noise, Size
from estimators.relaxation import check_temperature
from estimators.relaxed_objective import relaxed_gradient
from problems.families.categorical import Categorical
from problems.objectives import Expectation
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family


def generalised_gumbel_softmax(temperature: float = 1.0, truncation: int = 20) -> Estimator:
    """Generalised Gumbel-Softmax (GenGS) for counts: Poisson, geometric and binomial variables.

    Assumes f differentiable and defined between whole numbers. A count is min(X, n), n = `truncation`: one of n + 1 categories,
    the last with all the mass from n on, whose Gumbel-Softmax point y is read as the number sum_k k y_k. Biased: the gradient of
    the relaxed objective E f(sum_k k y_k), unbiased for that; the model's gradient is that of f there as well. For Elbo log q
    is continued between the counts by its own formula. One evaluation and gradient of f, n + 1 Gumbel variables a site.
    Joo, Kim, Shin & Moon 2020, arXiv:2003.01847.
    """
    check_temperature("generalised_gumbel_softmax", temperature)
    at_least("generalised_gumbel_softmax", 1, truncation=truncation)

    def noise(size: Size) -> list[Noise]:
        return [Noise("gumbel", (1,), (*size.event, last(size.family, truncation) + 1))]

    def soft(q: Family, noise: Tensor) -> Tensor:
        """y = softmax((log pi + G) / tau): `[..., D, n + 1]`."""
        return ((chances(q, noise.shape[-1] - 1)[0] + noise) / temperature).softmax(-1)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """x = sum_k k y_k; x: [1, ..., D]."""
        y = soft(q, noise)
        return y @ torch.arange(y.shape[-1]).to(y)

    def combine(q: Family, noise: Tensor, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/tau f'(x) sum_k y_k (k - x) d log pi_k / d theta."""
        y = soft(q, noise[0])
        k = torch.arange(y.shape[-1]).to(y)
        return 1 / temperature * dfx[0] * (y * (k - x[0][..., None]) * chances(q, len(k) - 1)[1]).sum(-1)

    def value(fx: Tensor) -> Tensor:
        """L is estimated by the relaxed objective."""
        return fx[0]

    def target(problem: Problem) -> Tensor | None:
        return as_categories(problem, last(problem.family, truncation), temperature)

    claim = Claim("biased", target=target, of="the relaxed objective E f(sum_k k y_k)")
    return Estimator(
        "generalised_gumbel_softmax",
        [Ask.RELAXED | Ask.GRADIENT],
        draw,
        combine,
        list(TAIL),
        {"Expectation": claim, "Elbo": claim},
        noise=noise,
        value=value,
        settings={"temperature": temperature, "truncation": truncation},
        source="arXiv:2003.01847",
    )


def last(family: Any, truncation: int) -> int:
    """n: the largest count, where there is one below the truncation."""
    return min(truncation, getattr(family, "n", truncation))


def chances(q: Family, n: int) -> tuple[Tensor, Tensor]:
    """log pi_k of min(X, n) = 0 ... n, and d log pi_k / d theta: `[..., D, n + 1]` each."""
    sites = q.at(q.theta[..., None, None])
    k = torch.arange(n).to(q.theta)[:, None]
    log_tail, slope = TAIL[q.name](q, n)
    log_pi = torch.cat([sites.log_prob(k), log_tail[..., None]], -1)
    return log_pi, torch.cat([sites.local(k)[..., 0], slope[..., None]], -1)


def poisson_tail(q: Any, n: int) -> tuple[Tensor, Tensor]:
    """log P(X >= n) = log of the incomplete gamma function at the rate, d/dtheta = n q(n) / P(X >= n); q(n) where P underflows."""
    at_n = q.at(q.theta[..., None]).log_prob(torch.full((1,), float(n)).to(q.theta))
    mass = torch.special.gammainc(torch.full_like(q.theta, n), q.rate)
    log_tail = torch.where(mass > 0, mass.log(), at_n)
    return log_tail, n * (at_n - log_tail).exp()


def geometric_tail(q: Any, n: int) -> tuple[Tensor, Tensor]:
    """log P(X >= n) = n log(1 - p), d/dtheta = -n p."""
    return -n * softplus(q.theta), -n * q.p


def binomial_tail(q: Any, n: int) -> tuple[Tensor, Tensor]:
    """log P(X >= n) = log of the sum of q(n) ... q(N), N the trials, and the mean of the score there."""
    sites = q.at(q.theta[..., None, None])
    k = torch.arange(n, q.n + 1).to(q.theta)[:, None]
    log_q = sites.log_prob(k)
    return log_q.logsumexp(-1), (log_q.softmax(-1) * sites.local(k)[..., 0]).sum(-1)


TAIL: dict[str, Callable[[Any, int], tuple[Tensor, Tensor]]] = {
    "poisson": poisson_tail,
    "geometric": geometric_tail,
    "binomial": binomial_tail,
}


def law(family: Any, theta: Tensor) -> Any:
    """The family by torch.distributions."""
    if family.name == "poisson":
        return distributions.Poisson(theta.exp(), validate_args=False)
    if family.name == "geometric":
        return distributions.Geometric(logits=theta, validate_args=False)
    return distributions.Binomial(family.n, logits=theta, validate_args=False)


def as_categories(problem: Problem, n: int, temperature: float) -> Tensor | None:
    """The gradient of the relaxed objective as that of a problem of n + 1 categories, by quadrature where n is small enough."""
    family: Any = problem.family
    k = torch.arange(n + 1, dtype=problem.theta.dtype)

    def pi(theta: Tensor) -> Tensor:
        """By torch.distributions; the last has what the others leave."""
        p = law(family, theta[..., None]).log_prob(k[:-1]).exp()
        return torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1)

    def encode(w: Tensor, data: Tensor) -> Tensor:
        return pi(problem.site_parameters(w, data)).log()

    def f(y: Tensor, model: Tensor, data: Tensor) -> Tensor:
        x = y @ k
        fx = problem.value(x, model, data)
        fx = fx if problem.parts is None else fx.sum(-1)
        if not problem.objective.ratio:
            return fx
        return fx - problem.bind(problem.site_parameters(problem.theta, data).detach(), data).log_prob(x)

    one = replace(problem, family=Categorical, encode=encode, f=f, objective=Expectation(), parts=None)
    return relaxed_gradient(one, lambda z: (z / temperature).softmax(-1))
