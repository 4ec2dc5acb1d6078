"""Score and pathwise gradients of bayes_logreg by hand: vectorised, and one replicate at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from array_libraries import Library

from bench.evaluate import Trial


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates, `[2 D, n]`.

    f - log q is y'Z w - sum_i log(1 + exp z_i) - |w|^2 / 2 + |eps|^2 / 2 and a constant; the logits z are one product.
    """
    from problems.bayes_logreg import breast_cancer

    xp, theta = lib.xp, trial.problem.theta
    Z, y = (t[: trial.problem.settings["data"]] for t in breast_cancer())
    rows, mu, sigma = lib.array(Z)[..., 0], lib.array(theta[0]), lib.array(theta[1].exp())
    pull, constant, D = lib.array(y @ Z), float(theta[1].sum()), theta.shape[-1]
    one_sigma = 1 / sigma

    def drawn(n: int) -> tuple[Any, Any, Any]:
        eps = lib.normals(D, n)
        w = sigma * eps
        w += mu
        return eps, w, rows @ w

    def score(n: int) -> Any:
        eps, w, z = drawn(n)
        square = eps * eps
        fx = 0.5 * square.sum(0) + (w * (pull - 0.5 * w)).sum(0) - lib.log_partition(z) + constant
        g = xp.empty((2 * D, n), dtype=lib.real)
        g[:D] = fx * eps
        g[:D] *= one_sigma
        g[D:] = fx * (square - 1)
        return g

    def pathwise(n: int) -> Any:
        eps, w, z = drawn(n)
        g = xp.empty((2 * D, n), dtype=lib.real)
        g[:D] = rows.T @ lib.sigmoid(z)
        g[:D] *= -1
        g[:D] += pull - w + eps * one_sigma
        g[D:] = g[:D] * (sigma * eps)
        return g

    return {"reinforce": score, "pathwise": pathwise}[trial.estimator.name]


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate by autograd of a surrogate, as the papers' code has it."""
    problem = trial.problem
    theta = problem.theta.clone().requires_grad_()

    def score() -> torch.Tensor:
        q = torch.distributions.Normal(theta[0], theta[1].exp())
        x = q.sample()
        log_q = q.log_prob(x).sum(-1)
        return torch.autograd.grad((problem.f(x) - log_q).detach() * log_q, theta)[0]

    def pathwise() -> torch.Tensor:
        """q is held fixed in log q."""
        x = torch.distributions.Normal(theta[0], theta[1].exp()).rsample()
        fixed = torch.distributions.Normal(theta[0].detach(), theta[1].detach().exp())
        return torch.autograd.grad(problem.f(x) - fixed.log_prob(x).sum(-1), theta)[0]

    return {"reinforce": score, "pathwise": pathwise}[trial.estimator.name]
