"""Which of twenty Gaussians a number came from: a mixture in which a wrong q is wrong by hundreds of nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.modules import functional
from problems.objectives import OBJECTIVES, InclusiveKL, Objective, chosen
from problems.points import stored_points
from problems.settings import at_least, finite, one_of

SEED = 1805
STRIDE = 10.0  # of the means
SCALE = 5.0
DEFENSIVE = {"init": 1.0, "mid": 0.5, "converged": 0.1}  # share of the uniform in q at the points of free logits


def gmm_inference(
    categories: int = 20,
    hidden: int = 16,
    data: int = 16,
    samples: int = 1,
    objective: str = "elbo",
    alpha: float = 0.5,
    amortised: bool = True,
) -> Problem:
    """ELBO of a mixture of 20 Gaussians on a line, fitted by a network that tells the component from x.

    p(c) = softmax(w)_c, p(x | c) = N(x; 10 c, 5^2), c = 0 .. C - 1; q(c | x) = softmax of a layer of `hidden` tanh units that read
    x / (5 (C - 1)) - 1. theta: the network's weights; model: w. The data are drawn from p(c) in proportion to c + 5, fixed seed; w
    starts at C - 1 - c, where the commonest component has e^-19, and the network at weights of torch's own, from a seed.
    samples > 1: the importance-weighted bound of so many draws, at the ELBO's points where none of its own are stored.
    objective: renyi, the bound of order alpha of so many draws; log_marginal, log p(x) itself, in which q has no part;
    thermodynamic, its integral along the path from q to p; inclusive_kl, sum_c p(c | x) log q(c | x), what wake-phi estimates, with
    p(c) held fixed at that of the data. amortised=False: the first datum alone with free logits, neither encoder, data nor model,
    p(c) that of the data; q is the posterior mixed with the uniform, of which it has all (`init`), half (`mid`) and a tenth
    (`converged`). Exact by enumeration, of C^K terms: up to 4 draws of 20 categories.
    The means are two standard deviations apart: neighbours overlap, all others are out of the question, and log w spans 700 nats.
    Score functions are lost in that: RLOO's spread is twice the gradient, at the end more than ten times. To sum the one site out
    costs 20 evaluations and leaves theta's gradient no noise, w's its own; two draws without replacement are no better than RLOO
    but at the end, where they have a sixth of its spread. Trained by the ELBO, q and w settle on a few components, which is what
    wake-sleep was revisited for; once there, wake-phi of 50 draws sees nothing of its own gradient, since q no longer proposes
    what it has missed.
    Le, Kosiorek, Siddharth, Teh & Wood 2019, arXiv:1805.10469 (in whose code x enters the network as it is).
    """
    at_least("gmm_inference", 2, categories=categories)
    at_least("gmm_inference", 1, hidden=hidden, data=data, samples=samples)
    finite("gmm_inference", alpha=alpha)
    one_of("gmm_inference", OBJECTIVES, objective=objective)
    settings: dict[str, Any] = {
        "categories": categories,
        "hidden": hidden,
        "data": data,
        "samples": samples,
        "objective": objective,
        "alpha": alpha,
        "amortised": amortised,
    }
    bound = chosen("elbo" if objective == "inclusive_kl" else objective, samples, alpha)
    whole = mixture_of_line(categories, hidden, bound, settings)
    if amortised:
        return inclusive(whole) if objective == "inclusive_kl" else whole
    if objective == "log_marginal":
        raise ValueError(
            "gmm_inference[amortised=False,objective=log_marginal]: q has no part in log p(x), and there is no model: "
            "the gradient is nil"
        )
    return of_one_datum(whole, InclusiveKL() if objective == "inclusive_kl" else bound)


def mixture_of_line(categories: int, hidden: int, objective: Objective, settings: dict[str, Any]) -> Problem:
    """Encoder, data and model."""
    rows, _ = draws(categories, settings["data"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, categories))
        theta, network = functional(module)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(c, x) = c.log softmax(w) + log N(x; 10 sum_i i c_i, 5^2), c one-hot: `[..., B, 1, C]`, data `[(R,) B, 1]`."""
        return log_joint(x.squeeze(-2), data[..., 0], model.log_softmax(-1))

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network(theta, data / (0.5 * STRIDE * (categories - 1)) - 1)
        return found[..., None, :]

    init = Point(theta, torch.arange(categories - 1, -1, -1, dtype=torch.float64))
    elbo = settings | {"objective": "elbo", "alpha": 0.5, "amortised": True}
    points = stored_points("gmm_inference", elbo | {"samples": 1}, init) | stored_points("gmm_inference", elbo, init)
    return Problem(
        name="gmm_inference",
        family=Categorical,
        theta=init.theta,
        f=f,
        objective=objective,
        smooth=2,
        relaxed=True,
        degree=2,
        encode=encode,
        model=init.model,
        data=rows,
        points=points,
        settings=settings,
        source="Le et al. 2019, arXiv:1805.10469",
    )


def log_joint(c: torch.Tensor, x: torch.Tensor | float, log_prior: torch.Tensor) -> torch.Tensor:
    """c `[..., C]`, x `[...]` -> `[...]`; off the support it is quadratic in c."""
    mean = STRIDE * (c @ torch.arange(len(log_prior)).to(c))
    return c @ log_prior - 0.5 * ((x - mean) / SCALE).square() - math.log(SCALE * math.sqrt(2 * math.pi))


def inclusive(bound: Problem) -> Problem:
    """The same network fitted to the posterior, p(c) fixed at that of the data."""
    log_prior = torch.from_numpy(np.log(weights(bound.settings["categories"])))

    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """log p(c, x) = c.log p + log N(x; 10 sum_i i c_i, 5^2), c one-hot: `[..., B, 1, C]`, data `[(R,) B, 1]`."""
        return log_joint(x.squeeze(-2), data[..., 0], log_prior.to(x))

    points = {name: Point(point.theta) for name, point in bound.points.items()}
    return replace(bound, f=f, objective=InclusiveKL(), model=None, points=points)


def of_one_datum(bound: Problem, objective: Objective) -> Problem:
    """Free logits for the first datum, p(c) fixed at that of the data."""
    assert bound.data is not None
    categories, datum = bound.settings["categories"], float(bound.data[0, 0])
    log_p = np.log(weights(categories))
    log_prior = torch.from_numpy(log_p)

    def f(x: torch.Tensor) -> torch.Tensor:
        """log p(c, x) = c.log p + log N(x; 10 sum_i i c_i, 5^2), c one-hot: `[..., 1, C]`, x the datum."""
        return log_joint(x.squeeze(-2), datum, log_prior.to(x))

    posterior = log_joint(torch.eye(categories).double(), datum, log_prior).softmax(0)
    points = {
        name: Point(((1 - share) * posterior + share / categories).log()[None]) for name, share in DEFENSIVE.items()
    }
    return replace(
        bound,
        theta=points["init"].theta,
        f=f,
        objective=objective,
        encode=None,
        model=None,
        data=None,
        scalar_f=in_floats(datum, log_p),
        points=points,
    )


def in_floats(datum: float, log_p: np.ndarray) -> Callable[[Sequence[Sequence[float]]], float]:
    """log p(c, x) of one c, in plain Python."""
    C, stride, scale, log_norm = len(log_p), STRIDE, SCALE, math.log(SCALE * math.sqrt(2 * math.pi))

    def scalar_f(x: Sequence[Sequence[float]]) -> float:
        mean, total = 0.0, -log_norm
        for i in range(C):
            mean += stride * i * x[0][i]
            total += log_p[i] * x[0][i]
        return total - 0.5 * ((datum - mean) / scale) ** 2

    return scalar_f


def weights(categories: int) -> np.ndarray:
    """p(c) of the data, in proportion to c + 5."""
    c = np.arange(categories) + 5.0
    return c / c.sum()


def draws(categories: int, data: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x `[N, 1]` and its component `[N]`, from fixed seeds: the first of them are the same, however many there are."""
    component = np.random.default_rng(SEED).choice(categories, size=data, p=weights(categories))
    x = STRIDE * component + SCALE * np.random.default_rng(SEED + 1).standard_normal(data)
    return torch.from_numpy(x[:, None]), torch.from_numpy(component)
