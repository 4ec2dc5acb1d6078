"""Score, pathwise and measure-valued gradients of gaussian_cost by hand: vectorised, and one replicate at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from array_libraries import Library

from bench.evaluate import Trial


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates in mu and log sigma, `[2, n]`."""
    xp, k = lib.xp, trial.problem.settings["k"]
    mu, sigma = float(trial.problem.theta[0, 0]), float(trial.problem.theta[1, 0].exp())
    per_mu = 1 / (sigma * math.sqrt(2 * math.pi))

    def f(x: Any) -> Any:
        d = x - k
        d *= d
        return d

    def empty(n: int) -> Any:
        return xp.empty((2, n), dtype=lib.real)

    def reinforce(n: int) -> Any:
        eps, g = lib.normals(n), empty(n)
        fx = f(sigma * eps + mu)
        g[0] = fx * eps * (1 / sigma)
        g[1] = fx * (eps * eps - 1)
        return g

    def pathwise(n: int) -> Any:
        g = empty(n)
        moved = sigma * lib.normals(n)
        g[0] = 2 * (moved + (mu - k))
        g[1] = g[0] * moved
        return g

    def measure_valued(n: int) -> Any:
        """A double-sided Maxwell is as long as a normal and a Rayleigh at right angles."""
        g, eps = empty(n), lib.normals(n)
        u = lib.uniforms(3, n)
        square = -2 * xp.log(u[:2])
        W = sigma * xp.sqrt(square[0])
        M = sigma * xp.copysign(xp.sqrt(eps * eps + square[1]), eps)
        g[0] = (f(mu + W) - f(mu - W)) * per_mu
        g[1] = f(mu + M) - f(mu + u[2] * M)
        return g

    return {"reinforce": reinforce, "pathwise": pathwise, "measure_valued_normal": measure_valued}[trial.estimator.name]


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate, as the papers' code has it."""
    problem = trial.problem
    theta = problem.theta.clone().requires_grad_()

    def normal() -> torch.distributions.Normal:
        return torch.distributions.Normal(theta[0], theta[1].exp())

    def reinforce() -> torch.Tensor:
        q = normal()
        x = q.sample()
        return gradient(problem.f(x) * q.log_prob(x).sum(-1))

    def pathwise() -> torch.Tensor:
        return gradient(problem.f(normal().rsample()))

    def measure_valued() -> torch.Tensor:
        """One coordinate after the other, f at one point at a time."""
        with torch.no_grad():
            mu, sigma = theta[0], theta[1].exp()
            x, g = torch.distributions.Normal(mu, sigma).sample(), torch.zeros_like(theta)
            for d in range(theta.shape[-1]):
                W = torch.distributions.Weibull(2**0.5 * torch.ones_like(mu[d]), 2.0).sample()
                up, down = (replaced(x, d, mu[d] + sign * sigma[d] * W) for sign in (1, -1))
                g[0, d] = (problem.f(up) - problem.f(down)) / (sigma[d] * math.sqrt(2 * math.pi))
                length = torch.distributions.Chi2(3 * torch.ones_like(mu[d])).sample().sqrt()
                M = length * (2 * torch.distributions.Bernoulli(0.5 * torch.ones_like(mu[d])).sample() - 1)
                wide = replaced(x, d, mu[d] + sigma[d] * M)
                narrow = replaced(x, d, mu[d] + sigma[d] * torch.rand_like(M) * M)
                g[1, d] = problem.f(wide) - problem.f(narrow)
            return g

    def replaced(x: torch.Tensor, d: int, value: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[d] = value
        return y

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        theta.grad = None
        loss.backward()
        assert theta.grad is not None
        return theta.grad

    return {"reinforce": reinforce, "pathwise": pathwise, "measure_valued_normal": measure_valued}[trial.estimator.name]
