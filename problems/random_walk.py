"""The random walk of stochastic triples: one parameter in every step of a Markov chain, and a cost of where it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from problems.base import Point, Problem
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.settings import at_least

SURE = 40.0  # the logit of a step that is up for certain: no uniform of 32 bits misses it
POINTS = {"init": 2.0, "short": 0.5, "long": 20.0}


def random_walk(steps: int = 10) -> Problem:
    """E X_n^2 of a walk of n steps from X_0 = 0: up by one with probability exp(-X / p), down by one otherwise.

    A layer is a step, a bit whose logit depends on the steps before, -log(e^{X / p} - 1); at X = 0 the step is up for certain, so
    that X never falls below. theta = [log p], p the length of the decay, the same in every step: d/dp is the gradient over p. The
    score adds up n terms and multiplies them by one f. To run the walk again with one step turned and the same noise (RAM,
    stochastic AD, which the paper is about) gives a walk that meets the first one soon: of n = 50 steps at `init` the standard
    deviation is 4.7 times the gradient for REINFORCE, 1.4 for RLOO, and 0.6 and 0.4 for these two; and to turn a step and keep all
    others, local_expectation, is the best for n = 10 and 1.1 for n = 50, for the walks stay apart.
    Exact by the distribution of X_t, P_{t+1} = P_t M, differentiated. Points: `init` (p = 2 n, the paper's), `short` (p = n / 2:
    the walk hovers) and `long` (p = 20 n: steps down are rare, and rare events make scores large).
    Arya, Schauer, Schäfer & Rackauckas 2022, arXiv:2210.08572.
    """
    at_least("random_walk", 2, steps=steps)

    def logit(theta: torch.Tensor, earlier: Sequence[torch.Tensor]) -> torch.Tensor:
        """-u - log(1 - e^{-u}), u = X / p, of the step after these: `[..., 1]`."""
        X = place(earlier) if earlier else torch.zeros_like(theta)
        u = torch.where(X > 0, X, 1.0) * torch.exp(-theta)
        return torch.where(X > 0, -u - torch.log(-torch.expm1(-u)), SURE)

    def f(x: torch.Tensor) -> torch.Tensor:
        """X_n^2, X_n = sum_t 2 x_t - 1."""
        return (2 * x - 1).sum(-1) ** 2

    def scalar_f(x: Sequence[float]) -> float:
        X = 0.0
        for t in range(steps):
            X += 2 * x[t] - 1
        return X * X

    def exact(problem: Problem) -> torch.Tensor:
        return gradient_of_walk(problem.theta, steps)

    encoders: list[Callable[..., torch.Tensor]] = [logit] * steps
    points = {
        name: Point(torch.tensor([math.log(times * steps)], dtype=torch.float64)) for name, times in POINTS.items()
    }
    return Problem(
        name="random_walk",
        family=Chain(Bernoulli, encoders, [1] * steps),
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=True,
        degree=2,
        exact=exact,
        scalar_f=scalar_f,
        points=points,
        settings={"steps": steps},
        source="Arya et al. 2022, arXiv:2210.08572",
    )


def place(earlier: Sequence[torch.Tensor]) -> torch.Tensor:
    """X after these steps `[..., 1]`."""
    return (2 * torch.cat(list(earlier), -1) - 1).sum(-1, keepdim=True)


def gradient_of_walk(theta: torch.Tensor, steps: int) -> torch.Tensor:
    """d/dtheta sum_X P_n(X) X^2, M_{X, X+1} = exp(-X / p) and M_{X, X-1} the rest, by autograd."""
    theta = theta.detach().clone().requires_grad_()
    X = torch.arange(steps + 1, dtype=theta.dtype)
    up = torch.exp(-X / theta.exp())
    M = torch.diag(up[:-1], 1) + torch.diag(1 - up[1:], -1)
    P = torch.eye(steps + 1, dtype=theta.dtype)[0]
    for _ in range(steps):
        P = P @ M
    return torch.autograd.grad(P @ X**2, theta)[0]
