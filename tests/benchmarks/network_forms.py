"""rloo of the belief network by hand: of all its parameters, and of one digit's logits; vectorised, and one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from array_libraries import Library

from bench.evaluate import Trial
from estimators.kernels.base import Here
from problems import PROBLEMS
from problems.base import Problem
from problems.belief_network_lanes import network_lanes
from problems.lanes import Kit, LaneModel


def vectorised(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """`g(n)`: gradients of n replicates, `[P, n]`."""
    return of_all(trial, lib) if trial.problem.model is not None else of_one_digit(trial, lib)


def naive(trial: Trial) -> Callable[[], torch.Tensor]:
    """The gradient of one replicate by autograd of a surrogate, as the papers' code has it."""
    return by_autograd(trial) if trial.problem.model is not None else one_digit_by_autograd(trial)


def one_digit() -> Problem:
    """The encoder's logits of one digit as theta `[16]`, the model held fixed: what is differentiated without an encoder."""
    whole = PROBLEMS["sbn"](data=1, batch=0)
    model, digit = whole.model, whole.data
    assert model is not None
    assert digit is not None
    table = np.zeros((1 + 64, len(model)))
    table[0], table[1:, 0] = model.numpy(), digit[0].numpy()
    network = network_lanes(64, 16)

    def f(x: torch.Tensor) -> torch.Tensor:
        return whole.f(x[..., None, :], digit.to(x), model.to(x))[..., 0]

    def lanes(kit: Kit) -> LaneModel:
        """The network's, which reads its model and the digit from the table."""
        found = network(kit)
        inner = found.f

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            T = c.table
            held = Here(c.par, T[1:], c.datum, T[0], T, c.state, c.moved, c.buf, c.z, c.room, c.first, c.tag, c.key)
            inner(out, x, held)

        return LaneModel(f, rooms=found.rooms, table=table)

    theta = whole.site_parameters(whole.theta)[0].detach()
    return replace(
        whole, name="one_digit", theta=theta, f=f, lanes=lanes, encode=None, model=None, data=None, batch=0, points={}
    )


def of_one_digit(trial: Trial, lib: Library) -> Callable[[int], Any]:
    """The integrand is x.(W v + t - theta) - sum_i log(1 + exp z_i) and a constant, z = x W + b; rloo needs no constant."""
    K, theta = trial.estimator.settings["samples"], trial.problem.theta
    (digit,), (W, bias, top) = one_digit_numbers()
    H, p_cut = len(theta), lib.cut(theta.sigmoid())[:, None]
    linear = lib.array(W @ digit + top - theta.double())[:, 0]
    upward, bias = lib.array(W.T)[..., 0], lib.array(bias)

    def g(n: int) -> Any:
        x = lib.bits(lib.words(H, K, n) < p_cut)
        flat = x.reshape(H, K * n)
        fx = (linear @ flat - lib.log_partition(upward @ flat + bias)).reshape(K, n)
        weight = (fx - fx.mean(0)) / (K - 1)
        total = weight[0] * x[:, 0]
        for k in range(1, K):
            total += weight[k] * x[:, k]
        return total

    return g


def one_digit_numbers() -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The digit `[1, 64]`; W `[16, 64]`, and the biases of the pixels and of the bits."""
    whole = PROBLEMS["sbn"](data=1, batch=0)
    assert whole.data is not None
    assert whole.model is not None
    W, bias, top = whole.model.split([1024, 64, 16])
    return whole.data, (W.reshape(16, 64), bias, top)


def one_digit_by_autograd(trial: Trial) -> Callable[[], torch.Tensor]:
    problem, K = trial.problem, trial.estimator.settings["samples"]
    theta = problem.theta.clone().requires_grad_()

    def one() -> torch.Tensor:
        q = torch.distributions.Bernoulli(logits=theta)
        x = q.sample((K,))
        log_q = q.log_prob(x).sum(-1)
        fx = (problem.f(x) - log_q).detach()
        baseline = (fx.sum(0) - fx) / (K - 1)
        return torch.autograd.grad(((fx - baseline) * log_q).mean(), theta)[0]

    return one


def of_all(trial: Trial, lib: Library) -> Callable[[int], Any]:
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


def by_autograd(trial: Trial) -> Callable[[], torch.Tensor]:
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
