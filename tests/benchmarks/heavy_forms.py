"""The heavy problems as others would write them: vectorised torch at its best, and autograd of one replicate at a time.

Every form draws with torch's own generator, in float64, and keeps four power sums of each coordinate (the loop: mean and square).
`python tests/benchmarks/heavy_forms.py` prints the nanoseconds a replicate of each, and of the kernel: processor time, in interleaved rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import softplus

from bench.evaluate import Trial, gradients, prepare
from bench.kernels import kernel_for
from bench.measure import pinned
from bench.moments import block_sums
from estimators import ESTIMATORS
from estimators.kernels.base import Here
from problems import PROBLEMS
from problems.base import Problem
from problems.belief_network_lanes import network_lanes
from problems.lanes import Kit, LaneModel

Call = tuple[Callable[[], object], int]  # and how many replicates it sums
LogPartition = Callable[[torch.Tensor], torch.Tensor]


def power_sums(g: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """sum g, g^2, g^3, g^4 over replicates; g: `[R, P]`."""
    g2 = g * g
    return g.sum(0), g2.sum(0), (g2 * g).sum(0), (g2 * g2).sum(0)


def by_softplus(z: torch.Tensor) -> torch.Tensor:
    """sum_i log(1 + e^z_i)."""
    return softplus(z).sum(-1)


def by_product(z: torch.Tensor) -> torch.Tensor:
    """The same as sum max(z, 0) + log prod (1 + e^-|z|) of 64 at a time, as the kernels take it."""
    factors = z.abs().neg_().exp_().add_(1)
    whole = factors.shape[-1] // 64 * 64
    logs = factors[..., :whole].unflatten(-1, (-1, 64)).prod(-1).log_().sum(-1)
    if whole < factors.shape[-1]:
        logs += factors[..., whole:].prod(-1).log_()
    return logs + z.clamp(min=0).sum(-1)


def one_digit() -> Problem:
    """sbn[data=1]'s encoder logits as theta `[16]`, its model held fixed: what papers' code differentiates."""
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


def rloo_of_one_digit(size: int = 1024, partition: LogPartition = by_softplus) -> Call:
    """g = (f_1 - f_2) (x_1 - x_2) / 2, f = x.(W v + t - theta) - sum_i softplus(z_i), z = x W + b."""
    whole = PROBLEMS["sbn"](data=1, batch=0)
    assert whole.model is not None
    assert whole.data is not None
    W, b, t = whole.model[:1024].reshape(16, 64), whole.model[1024:1088], whole.model[1088:]
    theta = whole.site_parameters(whole.theta)[0].detach()
    p, linear = theta.sigmoid(), W @ whole.data[0] + t - theta

    def call() -> object:
        x = (torch.rand(2 * size, 16, dtype=torch.float64) < p).double()
        fx = (x @ linear - partition(torch.addmm(b, x, W))).reshape(2, size)
        x = x.reshape(2, size, 16)
        return power_sums((0.5 * (fx[0] - fx[1]))[:, None] * (x[0] - x[1]))

    return call, size


def logistic(name: str, size: int = 512, partition: LogPartition = by_softplus) -> Call:
    """Score function or pathwise gradient of bayes_logreg, as matrix products."""
    problem = PROBLEMS["bayes_logreg"]()
    table = problem.lanes(_any_kit()).table  # type: ignore[misc]
    assert table is not None
    rows, y = torch.from_numpy(table[:569, :31].copy()), torch.from_numpy(table[:569, 31].copy())
    mu, sigma = problem.theta[0], problem.theta[1].exp()
    toward, columns = rows.T @ y, rows.T.contiguous()
    constant = problem.theta[1].sum()

    def reinforce() -> object:
        eps = torch.randn(size, 31, dtype=torch.float64)
        x = mu + sigma * eps
        fx = x @ toward - partition(x @ columns) - 0.5 * (x * x).sum(-1) + 0.5 * (eps * eps).sum(-1) + constant
        return power_sums(torch.cat([fx[:, None] * (eps / sigma), fx[:, None] * (eps * eps - 1)], -1))

    def pathwise() -> object:
        eps = torch.randn(size, 31, dtype=torch.float64)
        x = mu + sigma * eps
        df = toward - torch.sigmoid(x @ columns) @ rows - x + eps / sigma
        return power_sums(torch.cat([df, df * (sigma * eps)], -1))

    return {"reinforce": reinforce, "pathwise": pathwise}[name], size


def by_loop(problem: Problem, name: str, samples: int = 1) -> Call:
    """What papers' code does: autograd of one replicate's surrogate at a time."""
    theta, n = problem.theta.clone().requires_grad_(), 20

    def one() -> torch.Tensor:
        normal = problem.family_name == "normal"
        q = (
            torch.distributions.Normal(theta[0], theta[1].exp())
            if normal
            else torch.distributions.Bernoulli(logits=theta)
        )
        if name == "pathwise":
            x = q.rsample()
            held = torch.distributions.Normal(theta[0].detach(), theta[1].exp().detach())
            return torch.autograd.grad(problem.f(x) - held.log_prob(x).sum(-1), theta)[0]
        x = q.sample((samples,))
        log_q = q.log_prob(x).sum(-1)
        fx = (problem.f(x) - log_q).detach()
        weight = fx if samples == 1 else (fx - fx.mean()) * samples / (samples - 1)
        return torch.autograd.grad((weight * log_q).mean(), theta)[0]

    def call() -> object:
        mean, m2 = torch.zeros(theta.numel()), torch.zeros(theta.numel())
        for i in range(n):
            d = one().reshape(-1) - mean
            mean = mean + d / (i + 1)
            m2 = m2 + d * d
        return mean, m2

    return call, n


def by_torch_form(trial: Trial, n: int) -> Call:
    """What the torch back end does: the same addressed noise, the same sums."""
    zero = np.zeros(trial.dim)
    return lambda: block_sums(gradients(trial, range(n)).numpy(), zero, zero, 1.0, 0), n


def by_kernel(trial: Trial) -> Call:
    """Sums of one chunk of replicates."""
    kernel = kernel_for(trial)
    assert kernel is not None
    zero = np.zeros(trial.dim)
    return lambda: kernel.sums(range(1), zero, zero, 0.0, 0.0, 1.0), kernel.chunk


def _any_kit() -> Kit:
    from estimators.kernels.backend import plain
    from estimators.kernels.lift import kit

    return kit(plain(), 4, 0)


def trial(name: str, settings: dict[str, int], problem: Problem) -> Trial:
    return prepare(ESTIMATORS[name](**settings), problem, 7)


def vectorised(make: Callable[[int, LogPartition], Call]) -> dict[str, Call]:
    """Both ways to take the logarithms, at several sizes of a batch: the best of them is what a kernel is compared with."""
    ways = {"softplus": by_softplus, "product": by_product}
    return {f"torch {way} {size}": make(size, part) for way, part in ways.items() for size in (64, 256, 1024)}


def cases() -> dict[str, dict[str, Call]]:
    """The forms of every comparison, the kernel's first."""
    digit, logreg = one_digit(), PROBLEMS["bayes_logreg"]()
    of_digit, of_network = trial("rloo", {"samples": 2}, digit), trial("rloo", {"samples": 2}, PROBLEMS["sbn"]())
    found = {
        "rloo2 one digit": {
            "kernel": by_kernel(of_digit),
            **vectorised(rloo_of_one_digit),
            "torch form": by_torch_form(of_digit, 1024),
            "loop": by_loop(digit, "rloo", 2),
        },
        "rloo2 sbn": {"kernel": by_kernel(of_network), "torch form": by_torch_form(of_network, 64)},
    }
    for name in ("reinforce", "pathwise"):
        there = trial(name, {}, logreg)
        found[f"{name} bayes_logreg"] = {
            "kernel": by_kernel(there),
            **vectorised(lambda size, part, name=name: logistic(name, size, part)),  # type: ignore[misc]
            "torch form": by_torch_form(there, 256),
            "loop": by_loop(logreg, name),
        }
    return found


def main(rounds: int = 15) -> None:
    with pinned(1):
        for what, forms in cases().items():
            each: dict[str, list[float]] = {form: [] for form in forms}
            for r in range(rounds + 1):
                for form, (call, n) in forms.items():
                    started = time.process_time()
                    call()
                    if r:
                        each[form].append((time.process_time() - started) / n * 1e9)
            kernel = each["kernel"]
            for form, spent in each.items():
                ratios = sorted(b / a for a, b in zip(kernel, spent, strict=True))
                middle = ratios[len(ratios) // 2]
                least = math.inf if not kernel else min(spent) / min(kernel)
                print(f"{what}: {form} {min(spent):.0f} ns, x{middle:.3g} (least by least x{least:.3g})", flush=True)


if __name__ == "__main__":
    main()
