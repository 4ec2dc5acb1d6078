"""The return of a walk along a corridor whose steps a policy chooses: the smallest policy gradient, its dynamics known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from problems.base import Point, Problem
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.settings import at_least

NEAR = 0.2  # reward at the near end; 1 at the far one


def corridor(cells: int = 5, steps: int = 6, slip: float = 0.1) -> Problem:
    """Return of a walk of T steps along a corridor: 1 after each step at its far end, 0.2 at its near end, where it starts.

    The policy goes on in cell s with probability sigmoid(theta_s); the step goes the other way with probability `slip`. A layer is
    a step: its action, whose logit depends on the steps before, and its slip, which no weight moves. f comes in T addends, the
    reward after each step, which depends on the steps so far: estimators that ask for addends see the rewards to go, all others
    the whole return.
    Exact by the distribution of the walk, differentiated. Points: `init` (theta = 0), `mid` (1), `converged` (3).
    Policy gradients: Williams 1992; Sutton et al. 2000.
    """
    at_least("corridor", 2, cells=cells)
    at_least("corridor", 1, steps=steps)
    if not 0 < slip < 0.5:
        raise ValueError(f"corridor[slip={slip}]: slip must lie between 0 and 1/2")
    prizes = torch.zeros(cells, dtype=torch.float64)
    prizes[0], prizes[-1] = NEAR, 1.0
    slip_logit = math.log(slip / (1 - slip))

    def here(s: torch.Tensor) -> torch.Tensor:
        """One-hot vector of the cell: `[...] -> [..., cells]`."""
        return (s[..., None] == torch.arange(cells, device=s.device)).to(s)

    def policy(theta: torch.Tensor, earlier: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the action and of the slip after the steps before."""
        s = theta.new_zeros(())
        for step in earlier:
            s = after(s, step, cells)
        action = here(s).to(theta) @ theta
        return torch.stack([action, torch.full_like(action, slip_logit)], -1)

    def f(x: torch.Tensor) -> torch.Tensor:
        """r(s_t) for t = 1 ... T: 1 at the far end, 0.2 at the near one, s_t the cell after step t; their sum is the return."""
        s, rewards = torch.zeros_like(x[..., 0]), []
        for step in x.unflatten(-1, (steps, 2)).unbind(-2):
            s = after(s, step, cells)
            rewards.append(here(s) @ prizes.to(x))
        return torch.stack(rewards, -1)

    def exact(problem: Problem) -> torch.Tensor:
        return gradient_of_walk(problem.theta, steps, slip, prizes)

    encoders: list[Callable[..., torch.Tensor]] = [policy] * steps
    start = torch.zeros(cells, dtype=torch.float64)
    return Problem(
        name="corridor",
        family=Chain(Bernoulli, encoders, [2] * steps),
        theta=start,
        f=f,
        parts=torch.ones(steps, steps, dtype=torch.bool).tril().repeat_interleave(2, 1),
        exact=exact,
        points={"init": Point(start), "mid": Point(start + 1), "converged": Point(start + 3)},
        settings={"cells": cells, "steps": steps, "slip": float(slip)},
        source="Williams 1992",
    )


def after(s: torch.Tensor, step: torch.Tensor, cells: int) -> torch.Tensor:
    """The cell after a step (action, slip) `[..., 2]`: on if one of the two is 1, back if both or none are; walls hold it."""
    action, slip = step.unbind(-1)
    on = action + slip - 2 * action * slip
    return (s + 2 * on - 1).clamp(0, cells - 1)


def gradient_of_walk(theta: torch.Tensor, steps: int, slip: float, prizes: torch.Tensor) -> torch.Tensor:
    """d/dtheta sum_t P(s_t) . prizes, P(s_{t+1}) = P(s_t) M, by autograd."""
    theta = theta.detach().clone().requires_grad_()
    cells = len(theta)
    on = slip + (1 - 2 * slip) * torch.sigmoid(theta)
    M = torch.zeros(cells, cells, dtype=theta.dtype)
    for s in range(cells):
        ahead, back = torch.eye(cells).to(theta)[[min(s + 1, cells - 1), max(s - 1, 0)]]
        M = M + torch.outer(torch.eye(cells).to(theta)[s], on[s] * ahead + (1 - on[s]) * back)
    P = torch.eye(cells).to(theta)[0]
    total = theta.new_zeros(())
    for _ in range(steps):
        P = P @ M
        total = total + P @ prizes
    return torch.autograd.grad(total, theta)[0]
