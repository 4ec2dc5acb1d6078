"""A bandit: the reward of one choice of a softmax policy, and what committing to a choice does to gradient estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.settings import at_least, finite

SECOND = 0.7  # mean reward of the second best arm; 1 is that of the best, 0 of the worst


def bandit(arms: int = 3, contexts: int = 1, offset: float = 0.0) -> Problem:
    """Expected reward of a softmax policy over A arms of known mean rewards, (1, .7, 0) for three of them.

    J = 1/S sum_s sum_a softmax(theta_s)_a r_sa, r_s = (1, .7, .., 0), evenly from .7 down, turned by s places: for several contexts
    they are the data, a row of logits each. offset is added to every reward: it moves no gradient, and only what subtracts a
    baseline is unmoved by it. Points: `init` (uniform), `committed` (a logit of 4 on the second best arm) and `converged` (4 on
    the best). Where a policy has committed to the wrong arm the gradient p_a (r_a - J) is small, the better arm is all but never
    seen, and a score's variance over the squared gradient grows as 1 / p of the better arm, as exp(logit), whatever the baseline;
    the best baseline tends to the mean of the arms not chosen, not to J. What sums over the arms has none of this, and drawing
    them without replacement little. f is linear, so that straight-through has no bias.
    Closed form. Williams 1992; Chung et al. 2021, arXiv:2008.13773.
    """
    at_least("bandit", 2, arms=arms)
    at_least("bandit", 1, contexts=contexts)
    finite("bandit", offset=offset)
    r = torch.cat([torch.ones(1), torch.linspace(SECOND, 0, arms - 1, dtype=torch.float64)])
    rewards = offset + torch.stack([r.roll(s) for s in range(contexts)])
    table = rewards[0].numpy()

    def f(x: torch.Tensor) -> torch.Tensor:
        """r(a) = r . a, a one-hot."""
        return (x * rewards.to(x)).sum((-2, -1))

    def f_of_context(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """r(a, s) / S = 1/S s' r a, of one-hot context s and arm a."""
        return (x.squeeze(-2) * (data @ rewards.to(x))).sum(-1) / contexts

    def scalar_f(x: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for a in range(arms):
            total += x[0][a] * table[a]
        return total

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return (data @ theta.reshape(contexts, arms))[..., None, :]

    def exact(problem: Problem) -> torch.Tensor:
        """dJ/dtheta_sa = 1/S n_s p_sa (r_sa - J_s), n_s how often s is in the data: once."""
        p = problem.theta.reshape(contexts, arms).softmax(-1)
        n = torch.ones(1, 1) if problem.data is None else problem.data.sum(0)[:, None]
        return n * p * (rewards - (p * rewards).sum(-1, keepdim=True)) / contexts

    def preferring(place: int, logit: float) -> Point:
        """`logit` on the arm of this rank, best first, in every context."""
        theta = torch.stack([logit * torch.eye(arms, dtype=torch.float64)[place].roll(s) for s in range(contexts)])
        return Point(theta if contexts == 1 else theta.reshape(-1))

    points = {
        "init": preferring(0, 0.0),
        "committed": preferring(1, 4.0),
        "converged": preferring(0, 4.0),
    }
    of_data: dict[str, Any] = {"encode": encode, "data": torch.eye(contexts, dtype=torch.float64)}
    return Problem(
        name="bandit",
        family=Categorical,
        theta=points["init"].theta,
        f=f if contexts == 1 else f_of_context,
        smooth=2,
        relaxed=True,
        degree=1,
        exact=exact,
        scalar_f=scalar_f if contexts == 1 else None,
        points=points,
        settings={"arms": arms, "contexts": contexts, "offset": float(offset)},
        source="Chung et al. 2021, arXiv:2008.13773",
        **({} if contexts == 1 else of_data),
    )
