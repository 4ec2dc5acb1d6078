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
    from problems.families.binomial import BinomialFamily
    from problems.families.categorical import Categorical
    from problems.families.gamma import Gamma
    from problems.families.geometric import Geometric
    from problems.families.normal import Normal
    from problems.families.poisson import Poisson
    from problems.families.weibull import WeibullFamily

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


def draw_categorical(q: Categorical, noise: Tensor) -> Tensor:
    """x ~ q with x_d = c, for each category c and each d; x: [C D, ..., D, C]."""
    x = q.sample(noise)
    values = torch.eye(x.shape[-1]).to(x)
    return replaced(x, values.reshape(-1, *[1] * (x.ndim - 1), x.shape[-1]).expand(-1, *x.shape), -2)


def combine_categorical(q: Categorical, noise: Tensor, fx: Tensor) -> Tensor:
    """g_dc = p_dc (1 - p_dc) (f(x with x_d = c) - f(x with x_d ~ q(. | not c))).

    The category that is not c is the largest of the others' perturbed logits: x_d itself, or the second where that is c.
    """
    C = noise.shape[-1]
    f = fx.unflatten(0, (C, -1)).movedim((0, 1), (-1, -2))  # [..., D, C]
    first, second = (q.theta + noise).topk(2, -1).indices.unbind(-1)
    at_first, at_second = (f.gather(-1, place[..., None]) for place in (first, second))
    not_c = torch.where(first[..., None] == torch.arange(C, device=fx.device), at_second, at_first)
    return q.p * complement(q) * (f - not_c)


def complement(q: Categorical) -> Tensor:
    """1 - p_c, as the sum of the other probabilities, which keeps its digits where p_c is nearly 1."""
    C = q.theta.shape[-1]
    return torch.stack([q.p.roll(j, -1) for j in range(1, C)]).sum(0)


def value_categorical(q: Categorical, fx: Tensor) -> Tensor:
    """L = mean_d sum_c p_dc f(x with x_d = c)."""
    f = fx.unflatten(0, (q.theta.shape[-1], -1)).movedim((0, 1), (-1, -2))
    return (q.p * f).sum(-1).mean(-1)


def measure_valued_categorical() -> Estimator:
    """Measure-valued gradient for factorised categorical variables: f with each category, less f with one of the others.

    The other is drawn for each logit, coupled with the sample: the sum over the others that local expectation takes, with
    the same evaluations of f, has less variance. Unbiased for Expectation and Elbo; C D evaluations of f, no gradient of f (that
    one of each C is f(x) is not made use of). With C = 2 the other is certain, as in `measure_valued_bernoulli`.
    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6.
    """

    def points(size: Size) -> list[Ask]:
        C = size.event[-1]
        return [Ask.VALUE] * C * size.D

    return Estimator(
        "measure_valued_categorical",
        points,
        draw_categorical,
        combine_categorical,
        ["categorical"],
        noise=[Noise("gumbel")],
        value=value_categorical,
        source=SOURCE,
    )


def one_and_replaced(size: Size) -> list[Ask]:
    """A sample, then the same with one coordinate changed, for each of D coordinates."""
    return [Ask.SAMPLE] + [Ask.VALUE] * size.D


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
        one_and_replaced,
        draw_poisson,
        combine_poisson,
        ["poisson"],
        noise=[Noise("uniform")],
        source=SOURCE,
    )


def draw_geometric(q: Geometric, noise: Tensor) -> Tensor:
    """x ~ q, then x with x_d + 1 + y_d for each d, y ~ q; x: [1 + D, ..., D]."""
    x, y = q.sample(noise)
    return torch.cat([x[None], replaced(x, (x + 1 + y)[None])])


def combine_geometric(q: Geometric, fx: Tensor) -> Tensor:
    """g_d = (1 - p_d) (f(x) - f(x with x_d + 1 + y_d)), the constant 1/p_d of p_d times dp/dtheta."""
    return (-q.theta).sigmoid() * (fx[0] - fx[1:]).movedim(0, -1)


def measure_valued_geometric() -> Estimator:
    """Measure-valued gradient for factorised geometric variables: f, less f with the failures before one more success.

    dq/dp = (q - q-)/p, where q- is the law of all trials before the second success, less one: x + 1 + y with y an independent
    copy of x. Unbiased for Expectation and Elbo; 1 + D evaluations of f, no gradient of f: the positive parts are one sample.
    Derived as those of Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6, which has no geometric law.
    """
    return Estimator(
        "measure_valued_geometric",
        one_and_replaced,
        draw_geometric,
        combine_geometric,
        ["geometric"],
        noise=[Noise("uniform", (2,))],
        source=SOURCE,
    )


def successes(q: BinomialFamily, noise: Tensor) -> tuple[Tensor, Tensor]:
    """x ~ q, and whether one of its n trials, any, is a success: 1[u' < x / n]; noise: [2, ..., D].

    Where all are, single precision, which may round u' to 1, is not asked.
    """
    x = q.sample(noise[0])
    return x, (noise[1] * q.n < x) | (x == q.n)


def draw_binomial(q: BinomialFamily, noise: Tensor) -> Tensor:
    """x ~ q, then x with one trial of x_d turned round, for each d; x: [1 + D, ..., D]."""
    x, success = successes(q, noise)
    return torch.cat([x[None], replaced(x, torch.where(success, x - 1, x + 1)[None])])


def combine_binomial(q: BinomialFamily, noise: Tensor, fx: Tensor) -> Tensor:
    """g_d = n p_d (1 - p_d) (f(x with y_d + 1) - f(x with y_d)), y_d ~ Binomial(n - 1, p_d) the other trials of x_d."""
    _, success = successes(q, noise)
    turned = (fx[1:] - fx[0]).movedim(0, -1)
    return q.n * q.p * (-q.theta).sigmoid() * torch.where(success, -turned, turned)


def measure_valued_binomial() -> Estimator:
    """Measure-valued gradient for factorised binomial variables: one of the n trials a success, less that trial a failure.

    dq/dp = n (q+ - q-), where q- is the law of n - 1 trials and q+ that of one more than it. The n - 1 are those of the sample
    without one, which leaves f(x) for one part. Unbiased for Expectation and Elbo; 1 + D evaluations of f, no gradient of f.
    Derived as those of Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6, from n Bernoulli variables.
    """
    return Estimator(
        "measure_valued_binomial",
        one_and_replaced,
        draw_binomial,
        combine_binomial,
        ["binomial"],
        noise=[Noise("uniform", (2,))],
        source=SOURCE,
    )


def draw_weibull(q: WeibullFamily, noise: Tensor) -> Tensor:
    """x = (E / rate)^(1/shape), then x_d = ((E_d + E'_d) / rate_d)^(1/shape) for each d; x: [1 + D, ..., D]."""
    x = q.sample(noise[0])
    return torch.cat([x[None], replaced(x, q.sample(noise.sum(0))[None])])


def combine_weibull(fx: Tensor) -> Tensor:
    """g_d = f(x) - f(x with (E_d + E'_d) in the place of E_d), the constant 1/rate of the rate times drate/dtheta."""
    return (fx[0] - fx[1:]).movedim(0, -1)


def measure_valued_weibull() -> Estimator:
    """Measure-valued gradient for factorised Weibull variables of a fixed shape: x^shape of one exponential, less of two.

    Nothing is assumed of f but moderate growth. Unbiased for Expectation and Elbo; 1 + D evaluations of f, no gradient of f: the
    positive parts are one sample. Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6.
    """
    return Estimator(
        "measure_valued_weibull",
        one_and_replaced,
        draw_weibull,
        combine_weibull,
        ["weibull"],
        noise=[Noise("exponential", (2,))],
        source=SOURCE,
    )


def log_share(q: Gamma, V: Tensor) -> Tensor:
    """log S, S = (1 - V^2)^(1/a); a V that single precision rounded to 1 stands for the largest there is, 1 - 2^-33."""
    return ((-(V.double().clamp(max=1 - 2.0**-33) ** 2)).log1p() / q.a).to(V)


def draw_gamma(q: Gamma, noise: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """x ~ q; then x with S_d x_d, for each d; then x with x_d + E_d / b_d, for each d; x: [1 + 2 D, ..., D]."""
    u, V, E = noise
    x = q.sample(u)
    shrunk = (log_share(q, V).exp() * x).clamp(min=torch.finfo(x.dtype).tiny)
    return torch.cat([x[None], replaced(x, torch.stack([shrunk, x + E / q.b]))])


def combine_gamma(q: Gamma, noise: tuple[Tensor, Tensor, Tensor], fx: Tensor) -> Tensor:
    """g_log_a = 2 V_d / (1 - S_d) (f(x) - f(x with S_d x_d)); g_log_b = a_d (f(x) - f(x with x_d + E_d / b_d))."""
    _, V, _ = noise
    shrunk, grown = (fx[0] - fx[1:]).unflatten(0, (2, -1)).movedim(1, -1)
    return torch.stack([2 * V / -log_share(q, V).expm1() * shrunk, q.a * grown], -2)


def measure_valued_gamma() -> Estimator:
    """Measure-valued gradient for factorised Gamma variables: f, less f with the variable shrunk, and less f with it grown.

    The rate: dq/db = a/b (q - q-), q- the law of shape a + 1, which is one more exponential. The shape, for b = 1: because
    log x - psi(a) = int_0^1 s^(a-1) / (1 - s) (1 - s^(-a) exp(x - x/s)) ds, dq/da = int_0^1 s^(a-1) / (1 - s) (q - q_s) ds
    with q_s the law of s x. This measure is infinite near s = 1, where f(x) - f(s x), of one x, vanishes. s is drawn as
    (1 - V^2)^(1/a), V uniform, so that the variance is finite for a smooth f and for one that jumps.
    Nothing is assumed of f but moderate growth at 0 and beyond. Unbiased for Expectation and Elbo; 1 + 2 D evaluations of f, no
    gradient of f. The rate: Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6; the shape: derived here.
    """
    return Estimator(
        "measure_valued_gamma",
        lambda size: [Ask.SAMPLE] + [Ask.VALUE] * 2 * size.D,
        draw_gamma,
        combine_gamma,
        ["gamma"],
        noise=[Noise("uniform"), Noise("uniform"), Noise("exponential")],
        source=SOURCE,
    )
