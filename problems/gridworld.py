"""The return of a walk over a slippery grid with a goal and a pit: policy gradients where the dynamics are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.settings import at_least

GOAL, PIT, LIVING = 1.0, -1.0, -0.04  # rewards on arrival, and after each step begun elsewhere
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up: a quarter turn from one to the next


class Grid(NamedTuple):
    """moves `[4, S, S]`: from cell to cell in each direction; prize `[S]`: of the two ends; alive `[S]`: 1 at all other cells."""

    moves: torch.Tensor
    prize: torch.Tensor
    alive: torch.Tensor


def gridworld(side: int = 4, steps: int = 8, slip: float = 0.2) -> Problem:
    """Return of a walk of T steps over an n x n grid of S cells: 1 at the goal, -1 in the pit, -0.04 for each step, slippery.

    It starts in the upper left corner, the goal is the lower right, the pit lies in row n - 1, column 2; both end the walk, and
    walls hold it. theta: a logit for each cell and direction `[S 4]`, the policy softmax(theta_s). A layer is a step: the action,
    whose logits depend on the steps before, and the turn that the direction takes, which no weight moves: none with probability
    1 - slip, else one of the other three. (slip=0: actions alone, and moves are certain.) f comes in T addends, the reward after
    each step, which depends on the steps so far: what asks for addends credits an action with the rewards to go, all others with
    the whole return, and the actions after the walk's end are noise to them. f is a polynomial: the cell is a vector that the
    one-hot actions and turns multiply, so that it is smooth off the support as well. Rewards to go without a baseline are noisier
    at `init` than the whole return with one; replaying what follows a changed action with the same noise pays at `converged`,
    where most walks are alike.
    Exact by the distribution over the cells, step by step, differentiated. Points: `init` (uniform: the goal is all but never
    seen), `mid` and `converged` (logits of 1.5 and 4 on the best action of each cell, by value iteration).
    Policy gradients: Williams 1992; Sutton et al. 2000. The rewards: Russell & Norvig, section 17.1.
    """
    at_least("gridworld", 2, side=side)
    at_least("gridworld", 1, steps=steps)
    if not 0 <= slip < 0.75:
        raise ValueError(
            f"gridworld[slip={slip}]: slip lies between 0 and 3/4, where no direction is more likely than another"
        )
    grid, cells = grid_of(side), side * side
    sites = 2 if slip else 1
    turn_logits = torch.tensor([math.log(1 - slip), *[math.log(slip / 3) if slip else 0.0] * 3], dtype=torch.float64)
    start = torch.eye(cells, dtype=torch.float64)[0]

    def policy(theta: torch.Tensor, earlier: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the action, and of the turn, after the steps before: `[..., sites, 4]`."""
        here = start.to(theta)
        for step in earlier:
            here = after(here, step, grid.moves.to(theta))
        action = here @ theta.reshape(cells, 4)
        return torch.stack([action, turn_logits.to(theta).expand_as(action)][:sites], -2)

    def f(x: torch.Tensor) -> torch.Tensor:
        """r_t = (s_t - s_{t-1}) . prize - 0.04 s_{t-1} . alive, s_t = sum_{a, k} action_a turn_k M_{a+k}' s_{t-1} one-hot."""
        here, rewards = start.to(x), []
        prize, alive, moves = (t.to(x) for t in (grid.prize, grid.alive, grid.moves))
        for step in x.unflatten(-2, (steps, sites)).unbind(-3):
            there = after(here, step, moves)
            rewards.append((there - here) @ prize + LIVING * (here @ alive))
            here = there
        return torch.stack(rewards, -1)

    def exact(problem: Problem) -> torch.Tensor:
        return gradient_of_walk(problem.theta, steps, slip, grid)

    best = torch.eye(4, dtype=torch.float64)[best_actions(grid, slip)].reshape(-1)
    encoders: list[Callable[..., torch.Tensor]] = [policy] * steps
    points = {"init": Point(0 * best), "mid": Point(1.5 * best), "converged": Point(4 * best)}
    return Problem(
        name="gridworld",
        family=Chain(Categorical, encoders, [sites] * steps, categories=4),
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=True,
        degree=sites * steps,
        parts=torch.ones(steps, steps, dtype=torch.bool).tril().repeat_interleave(sites, 1),
        exact=exact,
        points=points,
        settings={"side": side, "steps": steps, "slip": float(slip)},
        source="Sutton et al. 2000",
    )


def grid_of(side: int) -> Grid:
    """The grid of n x n cells, row by row."""
    cells = side * side
    goal, pit = cells - 1, (side - 2) * side + 1
    moves = torch.zeros(4, cells, cells, dtype=torch.float64)
    for direction, (down, right) in enumerate(DIRECTIONS):
        for s in range(cells):
            row, column = divmod(s, side)
            there = (row + down) * side + column + right
            inside = 0 <= row + down < side and 0 <= column + right < side
            moves[direction, s, there if inside and s not in (goal, pit) else s] = 1
    prize = torch.zeros(cells, dtype=torch.float64)
    prize[goal], prize[pit] = GOAL, PIT
    return Grid(moves, prize, (prize == 0).to(prize))


def after(here: torch.Tensor, step: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """The cell after a step (action, turn) `[..., sites, 4]` from the cell `here [(...), S]`, all of them one-hot."""
    direction = step[..., 0, :]
    if step.shape[-2] == 2:
        turned = torch.stack([direction.roll(k, -1) for k in range(4)], -2)
        direction = (step[..., 1, :, None] * turned).sum(-2)
    reached = (here @ moves.movedim(0, 1).flatten(1)).unflatten(-1, (4, -1))
    return (direction[..., None] * reached).sum(-2)


def directed(grid: Grid, slip: float) -> torch.Tensor:
    """P(s' | s, a) `[4, S, S]`: the turn summed out."""
    turns = torch.tensor([1 - slip] + [slip / 3] * 3, dtype=torch.float64)
    return torch.stack([turns[k] * grid.moves.roll(-k, 0) for k in range(4)]).sum(0)


def gradient_of_walk(theta: torch.Tensor, steps: int, slip: float, grid: Grid) -> torch.Tensor:
    """d/dtheta sum_t [(P_t - P_{t-1}) . prize - 0.04 P_{t-1} . alive], P_t = P_{t-1} M, by autograd."""
    theta = theta.detach().clone().requires_grad_()
    policy = theta.reshape(-1, 4).softmax(-1)
    M = torch.einsum("sa,ast->st", policy, directed(grid, slip))
    M = torch.where(grid.alive[:, None] > 0, M, torch.diag(1 - grid.alive))
    P = torch.eye(len(policy), dtype=torch.float64)[0]
    total = theta.new_zeros(())
    for _ in range(steps):
        there = P @ M
        total = total + (there - P) @ grid.prize + LIVING * (P @ grid.alive)
        P = there
    return torch.autograd.grad(total, theta)[0]


def best_actions(grid: Grid, slip: float) -> torch.Tensor:
    """argmax_a Q(s, a) `[S]` of a walk without an end in time, by value iteration; the first of equals to 1e-9."""
    P = directed(grid, slip)
    V = torch.zeros_like(grid.prize)
    for _ in range(1000):
        Q = P @ (V + grid.prize) - grid.prize + LIVING * grid.alive
        V, before = Q.amax(0), V
        if float((V - before).abs().max()) < 1e-12:
            break
    return (Q >= V - 1e-9).double().argmax(0)
