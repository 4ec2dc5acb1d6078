"""reinforce, rloo and disarm on bernoulli_toy by hand: vectorised, and one replicate at a time with autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from array_libraries import Library

from bench.evaluate import Trial


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates, `[D, n]`."""
    theta, target = trial.problem.theta, trial.problem.settings["target"]
    D, K, p_cut = len(theta), trial.estimator.settings["samples"], lib.cut(theta.sigmoid())
    p, sure = lib.array(theta.sigmoid()), lib.array(theta.abs().sigmoid())

    def f(x: Any) -> Any:
        d = x - target
        d *= d
        return d.mean(-2)

    def reinforce(n: int) -> Any:
        x = lib.bits(lib.words(D, n) < p_cut)
        fx = f(x)
        x -= p
        x *= fx
        return x

    def rloo(n: int) -> Any:
        """p falls out, as the weights add up to nil."""
        x = lib.bits(lib.words(K, D, n) < p_cut)
        fx = f(x)
        weight = (fx - fx.mean(0)) / (K - 1)
        g = weight[0] * x[0]
        for k in range(1, K):
            g += weight[k] * x[k]
        return g

    def disarm(n: int) -> Any:
        words = lib.words(D, n)
        b, b_tilde = lib.bits(words > lib.LAST - p_cut), lib.bits(words < p_cut)
        weight = 0.5 * (f(b) - f(b_tilde))
        b -= b_tilde
        b *= sure
        b *= weight
        return b

    return {"reinforce": reinforce, "rloo": rloo, "disarm": disarm}[trial.estimator.name]


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate by autograd of a surrogate, as the papers' code has it."""
    problem, K = trial.problem, trial.estimator.settings["samples"]
    theta = problem.theta.clone().requires_grad_()

    def reinforce() -> torch.Tensor:
        q = torch.distributions.Bernoulli(logits=theta)
        x = q.sample()
        return gradient(problem.f(x) * q.log_prob(x).sum(-1))

    def rloo() -> torch.Tensor:
        q = torch.distributions.Bernoulli(logits=theta)
        x = q.sample((K,))
        fx = problem.f(x)
        baseline = (fx.sum() - fx) / (K - 1)
        return gradient(((fx - baseline) * q.log_prob(x).sum(-1)).mean())

    def disarm() -> torch.Tensor:
        """The coefficient, held fixed, times the logits."""
        p = theta.sigmoid()
        u = torch.rand_like(theta)
        b, b_tilde = (u > 1 - p).to(theta), (u < p).to(theta)
        differ = (1 - b) * b_tilde + b * (1 - b_tilde)
        factor = differ * (-1) ** b_tilde * theta.abs().sigmoid()
        coefficient = 0.5 * (problem.f(b) - problem.f(b_tilde)) * factor
        return gradient((coefficient.detach() * theta).sum())

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        theta.grad = None
        loss.backward()
        assert theta.grad is not None
        return theta.grad

    return {"reinforce": reinforce, "rloo": rloo, "disarm": disarm}[trial.estimator.name]
