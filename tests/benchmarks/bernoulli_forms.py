"""reinforce, rloo, disarm and gumbel_softmax on bernoulli_toy by hand: vectorised, and one replicate at a time with autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from array_libraries import Library

from bench.evaluate import Trial


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates, `[D, n]`."""
    theta, target = trial.problem.theta, trial.problem.settings["target"]
    settings = trial.estimator.settings
    D, K, tau = len(theta), settings.get("samples", 1), settings.get("temperature", 1.0)
    p_cut, shift = lib.cut(theta.sigmoid()), lib.array((-theta / tau).exp())
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

    def gumbel_softmax(n: int) -> Any:
        """y = 1 / (1 + e^(-theta/tau) (1/u - 1)^(1/tau)): no logarithm of u is needed where tau = 1."""
        odds = 1 / lib.uniforms(D, n) - 1
        y = 1 / (1 + shift * (odds if tau == 1 else odds ** (1 / tau)))
        g = y - target
        g *= 2 / (tau * D)
        g *= y
        y -= 1
        g *= -y
        return g

    return {"reinforce": reinforce, "rloo": rloo, "disarm": disarm, "gumbel_softmax": gumbel_softmax}[
        trial.estimator.name
    ]


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate by autograd of a surrogate, as the papers' code has it."""
    problem, K = trial.problem, trial.estimator.settings.get("samples", 1)
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

    def gumbel_softmax() -> torch.Tensor:
        tau = torch.tensor(trial.estimator.settings["temperature"], dtype=theta.dtype)
        return gradient(problem.f(torch.distributions.RelaxedBernoulli(tau, logits=theta).rsample()))

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        theta.grad = None
        loss.backward()
        assert theta.grad is not None
        return theta.grad

    return {"reinforce": reinforce, "rloo": rloo, "disarm": disarm, "gumbel_softmax": gumbel_softmax}[
        trial.estimator.name
    ]
