"""Score and pathwise gradients of bayes_logreg, and rloo of a belief network, by hand: vectorised, and one replicate at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from array_libraries import Library

from bench.evaluate import Trial


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates, `[P, n]`."""
    return of_network(trial, lib) if trial.problem.name == "sbn" else of_regression(trial, lib)


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate by autograd of a surrogate, as the papers' code has it."""
    return network_by_autograd(trial) if trial.problem.name == "sbn" else regression_by_autograd(trial)


def of_regression(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """f - log q is y'Z w - sum_i log(1 + exp z_i) - |w|^2 / 2 + |eps|^2 / 2 and a constant; the logits z are one product."""
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
        fx = 0.5 * square.sum(0) + (w * (pull - 0.5 * w)).sum(0) - lib.softplus(z).sum(0) + constant
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


def regression_by_autograd(trial: Trial) -> Callable[[], torch.Tensor]:
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


def of_network(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """rloo of one layer: `batch` rows drawn for each replicate, K draws of each; products over the replicates one by one."""
    problem, K = trial.problem, trial.estimator.settings["samples"]
    assert problem.data is not None
    assert problem.model is not None
    xp, B, (N, V) = lib.xp, problem.batch or problem.rows, problem.data.shape
    H = problem.settings["hidden"]
    logits = problem.site_parameters(problem.theta, problem.data)
    p_cut, p = lib.cut(logits.sigmoid())[..., 0], lib.array(logits.sigmoid())[..., 0]
    logits, data = lib.array(logits)[..., 0], lib.array(problem.data)[..., 0]
    table = lib.array(problem.model[: (H + 1) * V].reshape(H + 1, V))[..., 0]
    W, bias, top = table[:-1], table[-1], lib.array(problem.model[(H + 1) * V :])[..., 0]
    scale = N / B

    def g(n: int) -> Any:
        chosen = lib.distinct(n, N, B)
        pixels, own, prob = data[chosen], logits[chosen], p[chosen]  # [n, B, V or H]
        x = lib.bits(lib.words(K, n, B, H) < p_cut[chosen])
        below = x @ W + bias  # [K, n, B, V]
        fx = (x * (top - own)).sum(-1) + (pixels * below).sum(-1) - lib.softplus(below).sum(-1)
        fx += lib.softplus(own).sum(-1)
        weight = (fx - fx.mean(0)) * (scale / (K - 1))
        toward = (weight[..., None] * (x - prob)).sum(0)  # [n, B, H]
        left = (pixels - lib.sigmoid(below)) * (scale / K)
        found = xp.empty((n, trial.dim), dtype=lib.real)
        at = [0, V * H, (V + 1) * H, (V + 1) * H + H * V, (V + 1) * H + (H + 1) * V, trial.dim]
        found[:, at[0] : at[1]] = (pixels.swapaxes(-1, -2) @ toward).reshape(n, -1)
        found[:, at[1] : at[2]] = toward.sum(1)
        found[:, at[2] : at[3]] = (x.swapaxes(-1, -2) @ left).sum(0).reshape(n, -1)
        found[:, at[3] : at[4]] = left.sum((0, 2))
        found[:, at[4] : at[5]] = (x.sum((0, 2)) - K * B * lib.sigmoid(top)) * (scale / K)
        return found.T

    return g


def network_by_autograd(trial: Trial) -> Callable[[], torch.Tensor]:
    problem, K = trial.problem, trial.estimator.settings["samples"]
    assert problem.data is not None
    assert problem.model is not None
    rows, data = problem.rows, problem.data
    theta, model = (t.clone().requires_grad_() for t in (problem.theta, problem.model))

    def one() -> torch.Tensor:
        batch = data[torch.randperm(rows)[: problem.batch or rows]]
        q = torch.distributions.Bernoulli(logits=problem.site_parameters(theta, batch))
        x = q.sample((K,))
        log_q, log_p = q.log_prob(x).sum(-1), problem.value(x, model, batch)
        fx = (log_p - log_q).detach()
        baseline = (fx.sum(0) - fx) / (K - 1)
        loss = (((fx - baseline) * log_q).mean(0) + log_p.mean(0)).sum() * (rows / len(batch))
        return torch.cat(torch.autograd.grad(loss, (theta, model)))

    return one
