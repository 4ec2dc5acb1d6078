"""A hidden Markov model under variational inference: states that depend on each other, in the model and in its posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.objectives import chosen
from problems.points import stored_points
from problems.settings import at_least, one_of

SEED = 1989
STAY = 0.8
SPACING = 2.0
NEAR = 3  # observations that the encoder sees: those before, at and after a step


def hmm(states: int = 3, steps: int = 8, data: int = 8, posterior: str = "chain", objective: str = "elbo") -> Problem:
    """ELBO of a hidden Markov model with Normal emissions, amortised: q(z | y) a Markov chain, or factorised over the steps.

    p(z, y) = pi_{z_1} prod_t A_{z_{t-1} z_t} prod_t N(y_t; mu_{z_t}, 1). model: the logits of pi `[S]` and of A `[S, S]`, then mu
    `[S]`. The sequences `[N, T]` are drawn from such a model with a fixed seed: means 2 apart around nil, a state kept with
    probability 0.8, a uniform start. posterior=chain: q(z_t | z_{t-1}, y) = softmax(e_t W + B_{z_{t-1}}), e_t = (y_{t-1}, y_t,
    y_{t+1}), nil beyond the ends, a layer of a Chain for each step; mean_field: q(z_t | y) = softmax(e_t W + b). theta: W `[3, S]`,
    then B `[S + 1, S]`, its first row for the first step, or b `[S]`. W and B serve every step. Off the support the mean of y_t is
    z_t' mu, as in `mixture`. In the chain a state turned by hand turns those after it: estimators that run them again, or that sum
    out one state given all others, stand against scores; mean_field brings relaxations and couplings in. At `converged` the
    bounds are -118.8 and -123.1, each within 1.1 of its own log p(y): it is the model that makes do with a factorised q.
    objective: log_marginal, log p(y) itself, in which q has no part.
    Exact for any number of steps: the ELBO by the forward recursion of q's marginals, log p(y) by the forward algorithm,
    differentiated. Rabiner 1989, Proceedings of the IEEE 77(2); Krishnan, Shalit & Sontag 2017, arXiv:1609.09869, for q.
    """
    at_least("hmm", 2, states=states, steps=steps)
    at_least("hmm", 1, data=data)
    one_of("hmm", ("chain", "mean_field"), posterior=posterior)
    one_of("hmm", ("elbo", "log_marginal"), objective=objective)
    chained = posterior == "chain"
    rows, _ = draws(states, steps, data)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(z, y) = log pi_{z_1} + sum_t log A_{z_{t-1} z_t} + sum_t log N(y_t; z_t' mu, 1)."""
        start, moves, mu = parameters(model, states)
        error = data - x @ mu
        stayed = ((x[..., :-1, :] @ moves) * x[..., 1:, :]).sum((-2, -1))
        return x[..., 0, :] @ start + stayed - 0.5 * (error * error).sum(-1) - 0.5 * steps * math.log(2 * math.pi)

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return local_logits(theta, data, states) + theta[NEAR * states :]

    encoders: list[Callable[..., torch.Tensor]] = [partial(step_logits, t=t, states=states) for t in range(steps)]
    settings: dict[str, Any] = {
        "states": states,
        "steps": steps,
        "data": data,
        "posterior": posterior,
        "objective": objective,
    }
    init = Point(*map(torch.from_numpy, beginning(states, chained)))
    truth = elbo if objective == "elbo" else evidence

    def exact(problem: Problem) -> torch.Tensor:
        assert problem.model is not None
        assert problem.data is not None
        theta, model = (t.detach().clone().requires_grad_() for t in (problem.theta, problem.model))
        found = torch.autograd.grad(truth(theta, model, problem.data, states), (theta, model), materialize_grads=True)
        return torch.cat(found)

    return Problem(
        name="hmm",
        family=Chain(Categorical, encoders, [1] * steps, categories=states, data=True) if chained else Categorical,
        theta=init.theta,
        f=f,
        objective=chosen(objective, 1, 0.0),
        smooth=2,
        relaxed=True,
        degree=2,
        encode=None if chained else encode,
        model=init.model,
        data=rows,
        exact=exact,
        points=stored_points("hmm", settings | {"objective": "elbo"}, init),
        settings=settings,
        source="Rabiner 1989, with seeded sequences",
    )


def parameters(model: torch.Tensor, states: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log pi `[S]`, log A `[S, S]` and mu `[S]`."""
    start, moves, mu = model.split([states, states * states, states])
    return start.log_softmax(-1), moves.reshape(states, states).log_softmax(-1), mu


def local_logits(theta: torch.Tensor, data: torch.Tensor, states: int) -> torch.Tensor:
    """e_t W of every step: data `[(R,) B, T]` -> `[(R,) B, T, S]`."""
    return pad(data, (1, 1)).unfold(-1, NEAR, 1) @ theta[: NEAR * states].reshape(NEAR, states)


def step_logits(
    theta: torch.Tensor, earlier: Sequence[torch.Tensor], data: torch.Tensor, t: int = 0, states: int = 0
) -> torch.Tensor:
    """e_t W + B_{z_{t-1}} of step t after the steps before: `[..., 1, S]`."""
    near = pad(data, (1, 1))[..., t : t + NEAR] @ theta[: NEAR * states].reshape(NEAR, states)
    B = theta[NEAR * states :].reshape(states + 1, states)
    return (near + (earlier[-1][..., 0, :] @ B[1:] if earlier else B[0]))[..., None, :]


def elbo(theta: torch.Tensor, model: torch.Tensor, rows: torch.Tensor, states: int) -> torch.Tensor:
    """sum over the data and t of E [log A_{z' z} N(y_t; mu_z, 1) - log q(z | z')] under q's marginals m_t = m_{t-1} Q_t."""
    start, moves, mu = parameters(model, states)
    near = local_logits(theta, rows, states)
    B = theta[NEAR * states :].reshape(-1, states).expand(states + 1, states)
    log_y = log_emissions(rows, mu)
    log_q = (near[:, 0] + B[0]).log_softmax(-1)
    m = log_q.exp()
    total = (m * (start + log_y[:, 0] - log_q)).sum()
    for t in range(1, rows.shape[1]):
        log_Q = (near[:, t, None] + B[1:]).log_softmax(-1)
        joint = m[..., None] * log_Q.exp()
        total = total + (joint * (moves + log_y[:, t, None] - log_Q)).sum()
        m = joint.sum(1)
    return total


def evidence(theta: torch.Tensor, model: torch.Tensor, rows: torch.Tensor, states: int) -> torch.Tensor:
    """log p(y), summed over the data, by the forward algorithm: a_t = (a_{t-1} A) N(y_t; mu, 1)."""
    start, moves, mu = parameters(model, states)
    log_y = log_emissions(rows, mu)
    log_a = start + log_y[:, 0]
    for t in range(1, rows.shape[1]):
        log_a = (log_a[..., None] + moves).logsumexp(1) + log_y[:, t]
    return log_a.logsumexp(-1).sum()


def log_emissions(rows: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
    """log N(y_t; mu_z, 1): `[N, T, S]`."""
    return -0.5 * (rows[..., None] - mu) ** 2 - 0.5 * math.log(2 * math.pi)


def beginning(states: int, chained: bool) -> tuple[np.ndarray, np.ndarray]:
    """theta and model at `init`, from the fixed seed: W, B and mu are drawn, the logits of pi and A are nil."""
    rng = np.random.default_rng(SEED + 1)
    weights = NEAR * states + states * (states + 1 if chained else 1)
    theta = rng.standard_normal(weights) / np.sqrt(NEAR + 1)
    return theta, np.concatenate([np.zeros(states + states * states), rng.standard_normal(states)])


def draws(states: int, steps: int, data: int) -> tuple[torch.Tensor, torch.Tensor]:
    """y `[N, T]` and the states behind it `[N, T]`, from the fixed seed."""
    rng = np.random.default_rng(SEED)
    mu = SPACING * (np.arange(states) - (states - 1) / 2)
    z = np.empty((data, steps), dtype=int)
    z[:, 0] = rng.integers(states, size=data)
    for t in range(1, steps):
        kept, other = rng.random(data) < STAY, rng.integers(1, states, size=data)
        z[:, t] = np.where(kept, z[:, t - 1], (z[:, t - 1] + other) % states)
    return torch.from_numpy(mu[z] + rng.standard_normal((data, steps))), torch.from_numpy(z)
