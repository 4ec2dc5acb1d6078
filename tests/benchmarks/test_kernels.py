"""pytest-benchmark cases: the sums of a range of replicates by a kernel, by the torch form and by a numpy form.

They measure and assert nothing about speed; `compared` gives the ratios, of rounds interleaved in one process:
`python tests/benchmarks/test_kernels.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.evaluate import Trial, gradients, prepare
from bench.kernels import block_sums_by_kernel, kernel_for
from bench.measure import pinned
from bench.moments import block_sums
from estimators import ESTIMATORS
from problems import PROBLEMS

Call = tuple[Callable[[], object], int]  # and how many replicates it sums

CHUNK = 4096
CASES: list[tuple[str, dict[str, int], str, dict[str, int]]] = [
    (name, settings, "bernoulli_toy", {"dim": D})
    for D in (6, 200)
    for name, settings in (("reinforce", {}), ("rloo", {"samples": 4}), ("disarm", {}))
]
CASES += [(name, {}, "gaussian_cost", {}) for name in ("reinforce", "pathwise", "measure_valued_normal")]
NAMES = ["-".join([e, p, *(f"{k}{v}" for k, v in s.items())]) for e, _, p, s in CASES]


@cache
def trial(which: int) -> Trial:
    e, e_settings, p, p_settings = CASES[which]
    return prepare(ESTIMATORS[e](**e_settings), PROBLEMS[p](**p_settings))


@cache
def centre(which: int) -> tuple[np.ndarray, np.ndarray, float]:
    exact = gradients(trial(which), range(CHUNK)).mean(0).numpy()
    norm = float(np.linalg.norm(exact))
    return exact, exact / norm, norm


def by_kernel(which: int, threads: int = 1) -> Call:
    kernel = kernel_for(trial(which))
    assert kernel is not None
    n = CHUNK * (16 if trial(which).dim > 50 else 128)
    return lambda: block_sums_by_kernel(kernel, *centre(which), range(n), threads), n


def by_torch_form(which: int) -> Call:
    """What the torch back end does: the same addressed noise, the same sums."""
    pilot, axis, scale = centre(which)

    def call() -> object:
        return block_sums(gradients(trial(which), range(CHUNK)).numpy(), pilot, axis, scale, 0)

    return call, CHUNK


def by_torch(which: int) -> Call:
    """The best that torch does by itself: its own generator, four power sums of each coordinate, replicates in one batch."""
    size = batch(which)
    theta, draw = trial(which).problem.theta, vectorised(which)
    generator = torch.Generator().manual_seed(0)
    pilot = torch.from_numpy(centre(which)[0])

    def call() -> object:
        if trial(which).problem.family_name == "bernoulli":
            noise = [
                torch.rand(k, size, theta.shape[-1], dtype=torch.float64, generator=generator) for k in draws(which)
            ]
        else:
            noise = [torch.randn(size, theta.shape[-1], dtype=torch.float64, generator=generator) for _ in draws(which)]
        d = draw(noise, torch) - pilot
        d2 = d * d
        return d.sum(0), d2.sum(0), (d2 * d).sum(0), (d2 * d2).sum(0)

    return call, size


def by_numpy(which: int) -> Call:
    """The same in numpy, with its fastest generator."""
    size = batch(which)
    theta, draw = trial(which).problem.theta, vectorised(which)
    rng = np.random.Generator(np.random.SFC64(0))
    pilot = centre(which)[0]

    def call() -> object:
        if trial(which).problem.family_name == "bernoulli":
            noise = [rng.random((k, size, theta.shape[-1])) for k in draws(which)]
        else:
            noise = [rng.standard_normal((size, theta.shape[-1])) for _ in draws(which)]
        d = draw(noise, np) - pilot
        d2 = d * d
        return d.sum(0), d2.sum(0), (d2 * d).sum(0), (d2 * d2).sum(0)

    return call, size


def batch(which: int) -> int:
    return 256 if trial(which).dim > 50 else 4096


def draws(which: int) -> tuple[int, ...]:
    """The shapes of the noise of a vectorised form: samples of each array."""
    name = CASES[which][0]
    return {"rloo": (4,), "measure_valued_normal": (1, 1, 1, 1, 1)}.get(name, (1,))


def vectorised(which: int) -> Callable[..., np.ndarray]:
    """The gradients by hand, on arrays of torch or of numpy alike."""
    name, problem = CASES[which][0], trial(which).problem
    if problem.family_name == "bernoulli":
        p_numpy = problem.theta.sigmoid().numpy()
        s_numpy = problem.theta.abs().sigmoid().numpy()

        def bits(noise: list[np.ndarray], xp: object) -> np.ndarray:
            u = noise[0]
            p, s = (torch.from_numpy(v) if xp is torch else v for v in (p_numpy, s_numpy))

            def f(x: np.ndarray) -> np.ndarray:
                return ((x - 0.45) ** 2).mean(-1)

            def real(x: np.ndarray) -> np.ndarray:
                return x.double() if xp is torch else x.astype(float)

            if name == "disarm":
                b, b_tilde = real(u[0] > 1 - p), real(u[0] < p)
                return (0.5 * (f(b) - f(b_tilde)))[:, None] * (b - b_tilde) * s
            x = real(u < p)
            fx = f(x)
            if name == "reinforce":
                return fx[0][:, None] * (x[0] - p)
            return ((fx - fx.mean(0))[..., None] * (x - p)).sum(0) / 3

        return bits
    mu, sigma, k = float(problem.theta[0, 0]), float(problem.theta[1, 0].exp()), 2.0

    def cost(noise: list[np.ndarray], xp: object) -> np.ndarray:
        join = torch.cat if xp is torch else np.concatenate
        eps = noise[0]

        def f(x: np.ndarray) -> np.ndarray:
            return (x - k) ** 2

        if name == "pathwise":
            df = 2 * (mu + sigma * eps - k)
            return join([df, df * (sigma * eps)], -1)
        if name == "reinforce":
            fx = f(mu + sigma * eps)
            return join([fx * eps / sigma, fx * (eps * eps - 1)], -1)
        sqrt = torch.sqrt if xp is torch else np.sqrt
        sign = torch.sign if xp is torch else np.sign
        erf_u = (
            torch.rand(len(eps), 1, dtype=torch.float64)
            if xp is torch
            else np.random.default_rng().random((len(eps), 1))
        )
        W = sigma * sqrt(noise[0] ** 2 + noise[1] ** 2)
        M = sigma * sqrt(noise[2] ** 2 + noise[3] ** 2 + noise[4] ** 2) * sign(noise[2])
        g_mu = (f(mu + W) - f(mu - W)) / (sigma * 2.5066282746310002)
        return join([g_mu, f(mu + M) - f(mu + erf_u * M)], -1)

    return cost


def by_loop(which: int) -> Call:
    """What papers' code does: autograd of one replicate's surrogate at a time."""
    name, problem = CASES[which][0], trial(which).problem
    theta = problem.theta.clone().requires_grad_()
    pilot, n = torch.from_numpy(centre(which)[0]), 20
    K = CASES[which][1].get("samples", 1)

    def one() -> torch.Tensor:
        if problem.family_name == "bernoulli":
            if name == "disarm":
                u = torch.rand_like(theta)
                p = theta.detach().sigmoid()
                b, b_tilde = (u > 1 - p).double(), (u < p).double()
                with torch.no_grad():
                    return 0.5 * (problem.f(b) - problem.f(b_tilde)) * (b - b_tilde) * theta.abs().sigmoid()
            q = torch.distributions.Bernoulli(logits=theta)
        else:
            q = torch.distributions.Normal(theta[0], theta[1].exp())
            if name == "pathwise":
                return torch.autograd.grad(problem.f(q.rsample()), theta)[0]
            if name == "measure_valued_normal":
                return gradients(trial(which), range(1))[0]
        x = q.sample((K,))
        fx = problem.f(x)
        weight = fx if K == 1 else (fx - fx.mean()) * K / (K - 1)
        loss = (weight * q.log_prob(x).sum(-1)).mean()
        return torch.autograd.grad(loss, theta)[0]

    def call() -> object:
        mean, m2 = torch.zeros_like(pilot), torch.zeros_like(pilot)
        for i in range(n):
            d = one().reshape(-1) - mean
            mean = mean + d / (i + 1)
            m2 = m2 + d * d
        return mean, m2

    return call, n


FORMS = {"kernel": by_kernel, "torch form": by_torch_form, "torch": by_torch, "numpy": by_numpy, "loop": by_loop}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", range(len(CASES)), ids=NAMES)
def test_sums(benchmark: BenchmarkFixture, which: int, form: str) -> None:
    if benchmark.disabled and (form == "kernel") != (which in (0, 7)):
        pytest.skip("two kernels compiled, and the other forms not run, where nothing is measured")
    with pinned(1):
        call, benchmark.extra_info["replicates"] = FORMS[form](which)
        assert benchmark(call) is not None


def compared(which: int, rounds: int = 11) -> dict[str, list[float]]:
    """Nanoseconds a replicate of every form, in interleaved rounds."""
    calls = {form: make(which) for form, make in FORMS.items()}
    found: dict[str, list[float]] = {form: [] for form in FORMS}
    for r in range(rounds + 1):
        for form, (call, n) in calls.items():
            started = time.perf_counter()
            call()
            if r:
                found[form].append((time.perf_counter() - started) / n * 1e9)
    return found


def main() -> None:
    with pinned(1):
        for which, name in enumerate(NAMES):
            found = compared(which)
            kernel = statistics.median(found["kernel"])
            ratios = []
            for form, seconds in found.items():
                each = sorted(b / a for a, b in zip(found["kernel"], seconds, strict=True))
                ratios.append(f"{form} x{statistics.median(each):.3g} [{each[2]:.3g}, {each[-3]:.3g}]")
            print(f"{name}: {1e3 / kernel:.3g} M/s; {'; '.join(ratios[1:])}", flush=True)


if __name__ == "__main__":
    main()
