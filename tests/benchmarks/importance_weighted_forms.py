"""VIMCO's and DReG's gradients of linear_gaussian by hand: vectorised, and one replicate at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from array_libraries import Library

from bench.evaluate import Trial


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates in A, b and mu, `[P, n]`; z: `[K, D, N, n]`.

    q's scale is the same everywhere, so that its own gradient is left out, and log q is -1/2 eps^2 but for a constant.
    """
    xp, problem = lib.xp, trial.problem
    assert problem.data is not None
    assert problem.model is not None
    (N, D), K = problem.data.shape, problem.objective.samples
    site = problem.site_parameters(problem.theta)
    mean, sigma, mu = lib.array(site[:, 0].T), float(site[0, 1, 0].exp()), lib.array(problem.model[:, None])
    data = lib.array(problem.data.T)
    rows = data[..., 0]
    halves = mean - mu, data - mean
    constant = D * (math.log(sigma) - 0.5 * math.log(2 * math.pi))

    def log_weights(eps: Any) -> tuple[Any, Any]:
        """log w `[K, N, n]`, and z - mu."""
        moved = sigma * eps
        prior, likelihood = moved + halves[0], halves[1] - moved
        return 0.5 * (eps * eps - prior * prior - likelihood * likelihood).sum(1) + constant, prior

    def bound(log_w: Any) -> tuple[Any, Any]:
        """L and v."""
        most = xp.amax(log_w, 0)
        w = xp.exp(log_w - most)
        total = w.sum(0)
        return most + xp.log(total) - math.log(K), w / total

    def without(log_w: Any) -> Any:
        """L^(-k), the geometric mean of the others in the place of w_k."""
        others, total = of_the_others(xp.logaddexp, log_w), of_the_others(lambda a, b: a + b, log_w)
        return xp.logaddexp(others, total * (1 / (K - 1))) - math.log(K)

    def of_the_others(add: Callable[[Any, Any], Any], a: Any) -> Any:
        before = list(accumulate(a[:-1], add))
        after = list(accumulate([a[k] for k in range(K - 1, 0, -1)], add))[::-1]
        return xp.stack([after[0], *map(add, before[:-1], after[1:]), before[-1]])

    def weighted(a: Any, z: Any) -> Any:
        """sum_k a_k z_k: `[D, N, n]`."""
        total = a[0] * z[0]
        for k in range(1, K):
            total += a[k] * z[k]
        return total

    def pulled_back(g_mean: Any, g_model: Any) -> Any:
        """To A, as the rows of the data times the gradient in the mean, to b, and the model's beside them."""
        g = xp.empty((D * D + 2 * D, g_mean.shape[-1]), dtype=lib.real)
        xp.matmul(rows, g_mean, out=g[: D * D].reshape(D, D, -1))
        g[D * D : D * D + D] = g_mean.sum(1)
        g[D * D + D :] = g_model.sum(1)
        return g

    def vimco(n: int) -> Any:
        eps = lib.normals(K, D, N, n)
        log_w, prior = log_weights(eps)
        L, v = bound(log_w)
        return pulled_back(weighted((L - without(log_w) - v) * (1 / sigma), eps), weighted(v, prior))

    def dreg(n: int) -> Any:
        """grad log w = mu + x - 2 z + eps / sigma."""
        eps = lib.normals(K, D, N, n)
        log_w, prior = log_weights(eps)
        v = bound(log_w)[1]
        slope = (halves[1] - halves[0]) + (1 / sigma - 2 * sigma) * eps
        return pulled_back(weighted(v * v, slope), weighted(v, prior))

    return {"vimco": vimco, "dreg": dreg}[trial.estimator.name]


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate, all the data at once, as the papers' code has it: autograd of surrogates."""
    problem = trial.problem
    assert problem.data is not None
    assert problem.model is not None
    K = problem.objective.samples
    theta, model = (t.clone().requires_grad_() for t in (problem.theta, problem.model))

    def proposal(weights: torch.Tensor) -> torch.distributions.Normal:
        mean, log_sigma = problem.site_parameters(weights).unbind(-2)
        return torch.distributions.Normal(mean, log_sigma.exp())

    def log_weight(z: torch.Tensor, q: torch.distributions.Normal) -> torch.Tensor:
        """`[K, N]`."""
        return problem.value(z, model) - q.log_prob(z).sum(-1)

    def gradients(of_theta: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        (g_theta,) = torch.autograd.grad(of_theta, theta, retain_graph=True)
        (g_model,) = torch.autograd.grad(bound, model)
        return torch.cat([g_theta, g_model])

    def dreg() -> torch.Tensor:
        z = proposal(theta).rsample((K,))
        log_w = log_weight(z, proposal(theta.detach()))
        v = log_w.softmax(0).detach()
        return gradients((v * v * log_w).sum(), (v * log_w).sum())

    def vimco() -> torch.Tensor:
        q = proposal(theta)
        z = q.sample((K,))
        log_q = q.log_prob(z).sum(-1)
        log_w = log_weight(z, proposal(theta.detach()))
        with torch.no_grad():
            mean = (log_w.sum(0) - log_w) / (K - 1)
            own = torch.eye(K, dtype=torch.bool)[:, :, None]
            without = torch.where(own, mean, log_w).logsumexp(1) - math.log(K)
            v = log_w.softmax(0)
            signal = log_w.logsumexp(0) - math.log(K) - without - v
        return gradients((signal * log_q).sum(), (v * log_w).sum())

    return {"vimco": vimco, "dreg": dreg}[trial.estimator.name]
