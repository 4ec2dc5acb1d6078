"""Stochastic automatic differentiation: a draw, what an infinitesimal step of theta may turn it into, and with what weight.

What programs add to this is order and propagation: here f is one function of all the draws, and in a Chain what follows an
alternative is run again with the noise it had. DiCE, Loaded DiCE and Storchastic's surrogates (arXiv:1802.05098, 1909.10549,
2104.00428) are no members: they give derivatives of every order, of which the first is the score function's, with the costs
downstream of each variable where f comes in addends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import one_hot

from estimators.base import Ask, Claim, Estimator, Noise, Size, across
from estimators.intervention import each_set, sites, some_set
from estimators.local_expectation import FAMILIES, categories, others, probability
from problems.settings import one_of
from problems.truth import log_probability, terms

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family

LAYERS = [f"chain of {name}" for name in FAMILIES]
KEEP = ("one", "all", "smoothed")
SHARES = {"right": (1.0, 0.0), "left": (0.0, 1.0), "both": (0.5, 0.5)}  # of the derivative that either side gives


class Alternatives(NamedTuple):
    """values: Y `[n, ..., *event]` of each site. weight: w >= 0 `[n, ..., D]`. direction: of theta, `[n, ..., *site]`."""

    values: Tensor
    weight: Tensor
    direction: Tensor


class Steps(NamedTuple):
    """What a count turns into, and with what weight, where its parameter grows, and where it falls: Y = z +- 1."""

    right: int
    weight_right: Tensor
    left: int
    weight_left: Tensor


def of_poisson(q: Any, z: Tensor) -> Steps:
    """Y = z + 1, lambda; Y = z - 1, z: those of lambda, 1 and z / lambda, times dlambda/dtheta."""
    return Steps(1, q.rate.expand_as(z), -1, z)


def of_binomial(q: Any, z: Tensor) -> Steps:
    """Y = z + 1, (n - z) p; Y = z - 1, z (1 - p): those of p, (n - z) / (1 - p) and z / p, times dp/dtheta = p (1 - p)."""
    return Steps(1, (q.n - z) * q.p, -1, z * (-q.theta).sigmoid())


def of_geometric(q: Any, z: Tensor) -> Steps:
    """Y = z - 1, z; Y = z + 1, (z + 1) (1 - p): those of p, z / (p (1 - p)) and (z + 1) / p, times dp/dtheta = p (1 - p)."""
    return Steps(-1, z, 1, (z + 1) * (-q.theta).sigmoid())


COUNTS: dict[str, Callable[[Any, Tensor], Steps]] = {
    "poisson": of_poisson,
    "binomial": of_binomial,
    "geometric": of_geometric,
}


def alternatives(q: Family, z: Tensor, side: str) -> Alternatives:
    """What each site of z turns into when its parameter grows (right), falls (left), or half of each.

    Bits: 0 becomes 1 with weight p, 1 becomes 0 with weight 1 - p: 1/(1-p) and 1/p times dp/dtheta = p (1 - p). Categories: z
    becomes c with weight p_c when logit c grows, and any other y with weight p_y when its own falls: mass goes straight there.
    Counts that cannot fall, or grow, stay, with weight 0.
    """
    right, left = SHARES[side]
    if q.name in COUNTS:
        step = COUNTS[q.name](q, z)
        ways = [(right, 1.0, step.right, step.weight_right), (left, -1.0, step.left, step.weight_left)]
        used = [way for way in ways if way[0]]
        values = torch.stack([torch.where(w > 0, z + up, z) for _, _, up, w in used])
        weight = torch.stack([share * w for share, _, _, w in used])
        return Alternatives(values, weight, torch.stack([torch.full_like(z, sign) for _, sign, _, _ in used]))
    Y = others(q, z)
    w = probability(q, Y)
    if q.event_axes == 1:
        return Alternatives(Y, w * (right * Y + left * z), Y - z)
    return Alternatives(Y, w, right * Y - left * z)


def kept(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """One of the alternatives with probability w / W, marked by 1, and W = sum w; w: [n, 1, ..., D], u: [...]."""
    flat = w.movedim(0, -2).flatten(-2)
    cumulative = flat.cumsum(-1)
    W = cumulative[..., -1]
    index = torch.searchsorted(cumulative, (u * W)[..., None]).clamp(max=flat.shape[-1] - 1)[..., 0]
    return one_hot(index, flat.shape[-1]).to(w).unflatten(-1, (len(w), -1)).movedim(-2, 0), W


def stochastic_ad(keep: str = "one", side: str = "right") -> Estimator:
    """Stochastic automatic differentiation (stochastic triples): f at alternatives to the draw, less f at the draw.

    keep: `one` alternative, with probability proportional to its weight (pruning): 2 evaluations of f; or `all`: 1 + D for bits and
    counts (counts 1 + 2 D with side=both), 1 + D (C - 1) for categories; those of no weight are evaluated with the others. Nothing
    is assumed of f; unbiased for Expectation and Elbo. keep=smoothed has (Y - z) f'(z) in the place of f(Y) - f(z): 1 evaluation
    and gradient of f, biased unless f is linear. side: what z turns into where theta grows (`right`, the paper's), where it falls
    (`left`), or `both`, half of each. Layers too, but not smoothed. All of the right are `go` for bits, Poisson and binomial
    variables, of the left for geometric ones. The sides of a bit weighed by 1 - p and p would be `local_expectation`, and smoothed
    `straight_through`.
    Arya, Schauer, Schaefer & Rackauckas, NeurIPS 2022, arXiv:2210.08572; Gong & Ho 1987 (smoothed perturbation analysis).
    """
    one_of("stochastic_ad", KEEP, keep=keep)
    one_of("stochastic_ad", tuple(SHARES), side=side)

    def points(size: Size) -> list[Ask]:
        if keep == "smoothed":
            return [Ask.SAMPLE | Ask.GRADIENT]
        ways = (2 if side == "both" else 1) if size.family.name in COUNTS else categories(size.event) - 1
        return [Ask.SAMPLE] + [Ask.VALUE] * (1 if keep == "one" else ways * size.D)

    def noise(size: Size) -> list[Noise]:
        """That of a draw; and a uniform that says which alternative is kept."""
        own = [n._replace(front=(1,)) for n in size.family.noise(size)]
        return [*own, Noise("uniform", (), ())] if keep == "one" else own

    def draw(q: Family, noise: Any) -> Tensor:
        """z ~ q, and z with the alternative that is kept, or with each; x: [1 + (1 or n D or none), ..., *event]."""
        eps = noise[0] if keep == "one" else noise
        z = q.sample(eps)
        if keep == "smoothed":
            return z
        Y, w, _ = alternatives(sites(q, z), z, side)
        if keep == "all":
            return torch.cat([z, each_set(q, z, eps, Y).flatten(0, 1)])
        chosen, _ = kept(w, noise[1])
        return torch.cat([z, some_set(q, z, eps, chosen.sum(0) > 0, (across(chosen, Y) * Y).sum(0))])

    def combine(q: Family, noise: Any, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = sum_Y w(Y) (f(z with z_d = Y) - f(z)), Y the alternatives to z_d; for the one kept w = W, the sum of all."""
        z = x[:1]
        _, w, direction = alternatives(sites(q, z), z, side)
        if keep == "all":
            weight = w * (fx[1:].unflatten(0, (len(w), -1, 1)).movedim(1, -1) - fx[:1, ..., None])
        else:
            chosen, W = kept(w, noise[1])
            weight = chosen * (W * (fx[1:] - fx[:1]))[..., None]
        return q.pull(z, (across(weight, direction) * direction).sum(0))

    def smoothed(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g_d = sum_Y w(Y) (Y - z_d) df/dx_d(z)."""
        Y, w, direction = alternatives(q, x, side)
        along = (Y - x) * dfx
        weight = w * (along if q.event_axes == 1 else along.sum(-1))
        return (across(weight, direction) * direction).sum(0)[0]

    claims: dict[str, str | Claim] = {"Expectation": "unbiased", "Elbo": "unbiased"}
    if keep == "smoothed":
        claim = Claim(
            "biased",
            unless=linear,
            because="f is linear, and log q too",
            target=lambda problem: mean_of_smoothed(problem, *SHARES[side]),
            of="the slope of f at the draw, averaged, times what a step of theta adds to it",
        )
        claims = {"Expectation": claim, "Elbo": claim}
    return Estimator(
        "stochastic_ad",
        points,
        draw,
        smoothed if keep == "smoothed" else combine,
        [*FAMILIES, *COUNTS, *([] if keep == "smoothed" else LAYERS)],
        claims,
        noise=noise,
        kernel="estimators.kernels.summed:stochastic_ad",
        settings={"keep": keep, "side": side},
        source="arXiv:2210.08572",
    )


def linear(problem: Problem) -> bool:
    """The integrand is affine in x: f is, and log q where it is part of it, as it is but for Poisson and binomial variables."""
    affine = problem.degree is not None and problem.degree <= 1
    return affine and (not problem.objective.ratio or problem.family_name not in ("poisson", "binomial"))


def mean_of_smoothed(problem: Problem, right: float, left: float) -> Tensor | None:
    """The mean of the smoothed gradient of bits and categories, and the model's gradient, by enumeration: `[P]`.

    E sum_y p_y (y - x) . f'(x) (right y - left x) of every site; of bits that is right p (1 - x) f'(x) + left (1 - p) x f'(x).
    """
    if problem.family_name not in FAMILIES or terms(problem) is None:
        return None
    leaves = [t.detach().clone().requires_grad_() for t in (problem.theta, problem.model) if t is not None]
    theta = problem.site_parameters(leaves[0])
    q = problem.bind(theta.detach())
    support = q.support()
    x = support if problem.data is None else support[:, None].expand(-1, problem.rows, *support.shape[1:])
    x = x.clone().requires_grad_()
    f = problem.value(x, leaves[1] if problem.model is not None else None)
    f = f if problem.parts is None else f.sum(-1)
    (slope,) = torch.autograd.grad((f - q.log_prob(x) if problem.objective.ratio else f).sum(), x, retain_graph=True)
    chance, x = log_probability(q, x.detach()).exp(), x.detach()
    if q.event_axes == 1:
        p = theta.detach().sigmoid()
        each = right * p * (1 - x) * slope + left * (1 - p) * x * slope
    else:
        p, here = theta.detach().softmax(-1), (x * slope).sum(-1, keepdim=True)
        each = right * p * (slope - here) - left * x * ((p * slope).sum(-1, keepdim=True) - here)
    mean = (across(chance, each) * each).sum(0)
    total = (mean * theta).sum() + (chance * f).sum()
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, leaves)])
