"""Forms by hand in jitted JAX, as a peer: XLA's CPU compiler, threefry keys, replicates on the last axis.

`forms(trial)` gives `{"by hand": g, "vmap(grad)": g}`, the latter where there is a surrogate: `g(key, n)`, gradients `[P, n]` as a
list of blocks of coordinates, which XLA fuses better apart in float64 and together in float32. Noise is held behind a barrier, or
every consumer would draw it again. Imported only where the extra `peers` is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid, softplus

from bench.evaluate import Trial

jax.config.update("jax_enable_x64", True)  # so that float64 is one; every array below says its dtype
Form = Callable[[Any, int], list[Any]]
held, stop = jax.lax.optimization_barrier, jax.lax.stop_gradient
ROOT_TURN = math.sqrt(2 * math.pi)


def forms(trial: Trial) -> dict[str, Form]:
    """Of the pair, in its dtype."""
    of = {
        "bernoulli_toy": bernoulli_toy,
        "gaussian_cost": gaussian_cost,
        "linear_gaussian": linear_gaussian,
        "bayes_logreg": bayes_logreg,
    }
    return of[trial.problem.name](trial)


def summed(form: Form, n: int, pilot: np.ndarray, joined: bool) -> Callable[[Any], Any]:
    """`sums(key)`, compiled: four power sums of each coordinate of g - pilot, of n replicates; of all blocks joined, or of each."""

    @jax.jit
    def sums(key: Any) -> Any:
        blocks, at, found = form(key, n), 0, []
        for g in [jnp.concatenate(blocks)] if joined else blocks:
            d = g - jnp.asarray(pilot[at : at + len(g)], g.dtype)[:, None]
            d2 = d * d
            found.append((d.sum(1), d2.sum(1), (d2 * d).sum(1), (d2 * d2).sum(1)))
            at += len(g)
        return found

    return sums


def real_of(trial: Trial) -> Any:
    return jnp.dtype(str(trial.dtype).replace("torch.", ""))


def bernoulli_toy(trial: Trial) -> dict[str, Form]:
    name, settings, real = trial.estimator.name, trial.estimator.settings, real_of(trial)
    target, theta = trial.problem.settings["target"], jnp.asarray(trial.problem.theta.numpy(), real)
    D, K = len(theta), settings.get("samples", 1)
    p = sigmoid(theta)[:, None]
    cut = np.clip(np.ceil(np.asarray(p, np.float64) * 2.0**32 - 0.5), 0, 2**32 - 1).astype(np.uint32)
    last = np.uint32(2**32 - 1)

    def f(x: Any, axis: int = -2) -> Any:
        return ((x - target) ** 2).mean(axis)

    def log_prob(x: Any, theta: Any) -> Any:
        return (x * theta - softplus(theta)).sum(-1)

    def sample(key: Any, *front: int) -> Any:
        return (held(jax.random.bits(key, front, jnp.uint32)) < cut).astype(real)

    def each(surrogate: Callable[..., Any], *draws: Any) -> list[Any]:
        """The gradient of every replicate's surrogate."""
        return [jax.vmap(jax.grad(surrogate), (None, *[-1] * len(draws)), -1)(theta, *draws)]

    def reinforce(key: Any, n: int) -> list[Any]:
        x = sample(key, D, n)
        return [f(x) * (x - p)]

    def reinforce_by_grad(key: Any, n: int) -> list[Any]:
        return each(lambda theta, x: f(x, -1) * log_prob(x, theta), sample(key, D, n))

    def rloo(key: Any, n: int) -> list[Any]:
        x = sample(key, K, D, n)
        fx = f(x)
        weight = (fx - fx.mean(0)) / (K - 1)
        return [(weight[:, None] * x).sum(0)]  # the weights add up to nil, so that p falls out

    def rloo_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(theta: Any, x: Any) -> Any:
            fx = f(x, -1)
            return ((fx - fx.mean()) * log_prob(x, theta)).sum() / (K - 1)

        return each(surrogate, sample(key, K, D, n))

    def pair(key: Any, n: int) -> tuple[Any, Any]:
        words = held(jax.random.bits(key, (D, n), jnp.uint32))
        return (last - words < cut).astype(real), (words < cut).astype(real)

    def disarm(key: Any, n: int) -> list[Any]:
        b, b_tilde = pair(key, n)
        return [0.5 * (f(b) - f(b_tilde)) * (b - b_tilde) * sigmoid(abs(theta))[:, None]]

    def disarm_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(theta: Any, b: Any, b_tilde: Any) -> Any:
            weight = 0.5 * (f(b, -1) - f(b_tilde, -1)) * (b - b_tilde) * sigmoid(abs(theta))
            return (stop(weight) * theta).sum()

        return each(surrogate, *pair(key, n))

    def logistic(key: Any, n: int) -> Any:
        u = (held(jax.random.bits(key, (D, n), jnp.uint32)).astype(real) + real.type(0.5)) * real.type(2.0**-32)
        u = jnp.minimum(u, real.type(1 - np.finfo(real).eps / 2))
        return jnp.log(u) - jnp.log1p(-u)

    def gumbel_softmax(key: Any, n: int) -> list[Any]:
        tau = settings["temperature"]
        y = sigmoid((theta[:, None] - logistic(key, n)) / tau)
        return [(2 / (tau * D)) * y * (1 - y) * (y - target)]

    def gumbel_softmax_by_grad(key: Any, n: int) -> list[Any]:
        tau = settings["temperature"]
        return each(lambda theta, noise: f(sigmoid((theta - noise) / tau), -1), logistic(key, n))

    return {
        "reinforce": {"by hand": reinforce, "vmap(grad)": reinforce_by_grad},
        "rloo": {"by hand": rloo, "vmap(grad)": rloo_by_grad},
        "disarm": {"by hand": disarm, "vmap(grad)": disarm_by_grad},
        "gumbel_softmax": {"by hand": gumbel_softmax, "vmap(grad)": gumbel_softmax_by_grad},
    }[name]


def gaussian_cost(trial: Trial) -> dict[str, Form]:
    real, k = real_of(trial), trial.problem.settings["k"]
    theta = jnp.asarray(trial.problem.theta.numpy(), real)
    D = theta.shape[-1]
    mu, sigma = theta[0, :, None], jnp.exp(theta[1])[:, None]

    def f(x: Any, axis: int = -2) -> Any:
        return ((x - k) ** 2).sum(axis)

    def each(surrogate: Callable[..., Any], draws: Any) -> Any:
        g = jax.vmap(jax.grad(surrogate), (None, -1), -1)(theta, draws)
        return [g.reshape(2 * D, -1)]

    def normal(key: Any, n: int) -> Any:
        return held(jax.random.normal(key, (D, n), real))

    def score(key: Any, n: int) -> list[Any]:
        eps = normal(key, n)
        fx = f(mu + sigma * eps)
        return [fx * eps / sigma, fx * (eps * eps - 1)]

    def score_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(theta: Any, x: Any) -> Any:
            z = (x - theta[0]) * jnp.exp(-theta[1])
            return f(x, -1) * (-0.5 * z * z - theta[1]).sum(-1)

        return each(surrogate, mu + sigma * normal(key, n))

    def pathwise(key: Any, n: int) -> list[Any]:
        moved = sigma * normal(key, n)
        df = 2 * (mu + moved - k)
        return [df, df * moved]

    def pathwise_by_grad(key: Any, n: int) -> list[Any]:
        return each(lambda theta, eps: f(theta[0] + jnp.exp(theta[1]) * eps, -1), normal(key, n))

    def measure_valued(key: Any, n: int) -> list[Any]:
        """D = 1. A double-sided Maxwell is as long as a normal and a Rayleigh at right angles."""
        ours, theirs = jax.random.split(key)
        eps, u = normal(ours, n), 1 - held(jax.random.uniform(theirs, (3, 1, n), real))
        square = -2 * jnp.log(u[:2])
        W, M = sigma * jnp.sqrt(square[0]), sigma * jnp.copysign(jnp.sqrt(eps * eps + square[1]), eps)
        g_mu = (f(mu + W) - f(mu - W)) / (sigma * ROOT_TURN)
        return [g_mu, (f(mu + M) - f(mu + u[2] * M))[None]]

    return {
        "reinforce": {"by hand": score, "vmap(grad)": score_by_grad},
        "pathwise": {"by hand": pathwise, "vmap(grad)": pathwise_by_grad},
        "measure_valued_normal": {"by hand": measure_valued},
    }[trial.estimator.name]


def linear_gaussian(trial: Trial) -> dict[str, Form]:
    """vimco and dreg: K draws of each datum, the encoder A x + b, and the model mu."""
    problem, real = trial.problem, real_of(trial)
    assert problem.data is not None
    assert problem.model is not None
    rows, theta, model = (jnp.asarray(t.numpy(), real) for t in (problem.data, problem.theta, problem.model))
    (N, D), K = rows.shape, problem.objective.samples
    A, b = theta[: D * D].reshape(D, D), theta[D * D :]
    sigma = math.sqrt(2 / 3)
    mean = rows @ A.T + b

    def log_w(z: Any, mean: Any, model: Any) -> Any:
        """z `[N, K, D]` -> `[N, K]`, up to a constant."""
        prior, likelihood, own = z - model, rows[:, None] - z, (z - mean[:, None]) / sigma
        return -0.5 * (prior * prior + likelihood * likelihood - own * own).sum(-1)

    def normal(key: Any, n: int) -> Any:
        return held(jax.random.normal(key, (N, K, D, n), real))

    def whole(toward_mean: Any, toward_model: Any) -> list[Any]:
        """`[N, D, n]` pulled back to A and b, and the model's `[D, n]` after it."""
        A_ = jnp.einsum("idn,ie->den", toward_mean, rows).reshape(D * D, -1)
        return [A_, toward_mean.sum(0), toward_model]

    def answers(key: Any, n: int) -> tuple[Any, Any, Any, Any]:
        """eps, z `[N, K, D, n]`, log w and v `[N, K, n]`."""
        eps = normal(key, n)
        z = mean[:, None, :, None] + sigma * eps
        prior, likelihood = z - model[:, None], rows[:, None, :, None] - z
        L = -0.5 * (prior * prior + likelihood * likelihood - eps * eps).sum(2)
        return eps, z, L, jax.nn.softmax(L, 1)

    def toward_model(z: Any, v: Any) -> Any:
        return (v[:, :, None] * (z - model[:, None])).sum((0, 1))

    def without(L: Any) -> Any:
        """L^(-k) of the geometric mean, in the second axis."""
        hat = (L.sum(1, keepdims=True) - L) / (K - 1)
        replaced = jnp.where(jnp.eye(K, dtype=bool).reshape(1, K, K, *[1] * (L.ndim - 2)), hat[:, :, None], L[:, None])
        return jax.scipy.special.logsumexp(replaced, 2)

    def vimco(key: Any, n: int) -> list[Any]:
        eps, z, L, v = answers(key, n)
        weight = jax.scipy.special.logsumexp(L, 1, keepdims=True) - without(L) - v
        return whole((weight[:, :, None] * eps).sum(1) / sigma, toward_model(z, v))

    def dreg(key: Any, n: int) -> list[Any]:
        eps, z, _, v = answers(key, n)
        slope = model[:, None] + rows[:, None, :, None] - 2 * z + eps / sigma
        return whole(((v * v)[:, :, None] * slope).sum(1), toward_model(z, v))

    def vimco_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(theta: Any, model: Any, eps: Any) -> Any:
            mean = rows @ theta[: D * D].reshape(D, D).T + theta[D * D :]
            z = stop(mean[:, None] + sigma * eps)
            L = log_w(z, mean, model)
            fixed = stop(L)
            bound = jax.scipy.special.logsumexp(fixed, 1, keepdims=True)
            log_q = -0.5 * (((z - mean[:, None]) / sigma) ** 2).sum(-1)
            return ((bound - without(fixed)) * log_q).sum() + jax.scipy.special.logsumexp(L, 1).sum()

        one = jax.grad(surrogate, (0, 1))
        return list(jax.vmap(lambda eps: one(theta, model, eps), -1, -1)(normal(key, n)))

    def dreg_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(theta: Any, model: Any, eps: Any) -> Any:
            mean = rows @ theta[: D * D].reshape(D, D).T + theta[D * D :]
            fixed, there, z = stop(mean), stop(model), mean[:, None] + sigma * eps
            v = stop(jax.nn.softmax(log_w(z, fixed, there), 1))
            return (v * v * log_w(z, fixed, there)).sum() + (v * log_w(stop(z), fixed, model)).sum()

        one = jax.grad(surrogate, (0, 1))
        return list(jax.vmap(lambda eps: one(theta, model, eps), -1, -1)(normal(key, n)))

    return {
        "vimco": {"by hand": vimco, "vmap(grad)": vimco_by_grad},
        "dreg": {"by hand": dreg, "vmap(grad)": dreg_by_grad},
    }[trial.estimator.name]


def bayes_logreg(trial: Trial) -> dict[str, Form]:
    """The score and the path derivative of f - log q."""
    from problems.bayes_logreg import breast_cancer

    real, count = real_of(trial), trial.problem.settings["data"]
    rows, y = (jnp.asarray(t.numpy()[:count], real) for t in breast_cancer())
    theta = jnp.asarray(trial.problem.theta.numpy(), real)
    D = theta.shape[-1]
    mu, sigma, log_sigma = theta[0, :, None], jnp.exp(theta[1])[:, None], theta[1, :, None]

    def normal(key: Any, n: int) -> Any:
        return held(jax.random.normal(key, (D, n), real))

    def integrand(x: Any, eps: Any) -> Any:
        """f - log q at x `[D, n]`."""
        logits = rows @ x
        likelihood = (y[:, None] * logits - softplus(logits)).sum(0)
        return likelihood + (0.5 * (eps * eps - x * x) + log_sigma).sum(0)

    def score(key: Any, n: int) -> list[Any]:
        eps = normal(key, n)
        fx = integrand(mu + sigma * eps, eps)
        return [fx * eps / sigma, fx * (eps * eps - 1)]

    def pathwise(key: Any, n: int) -> list[Any]:
        eps = normal(key, n)
        x = mu + sigma * eps
        df = rows.T @ (y[:, None] - sigmoid(rows @ x)) - x + eps / sigma
        return [df, df * (sigma * eps)]

    def log_q(x: Any, theta: Any) -> Any:
        z = (x - theta[0]) * jnp.exp(-theta[1])
        return (-0.5 * z * z - theta[1] - 0.5 * math.log(2 * math.pi)).sum(-1)

    def f(x: Any) -> Any:
        logits = rows @ x
        return (y * logits - softplus(logits)).sum() - 0.5 * (x * x + math.log(2 * math.pi)).sum()

    def each(surrogate: Callable[..., Any], draws: Any) -> Any:
        g = jax.vmap(jax.grad(surrogate), (None, -1), -1)(theta, draws)
        return [g.reshape(2 * D, -1)]

    def score_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(here: Any, x: Any) -> Any:
            return (f(x) - log_q(x, theta)) * log_q(x, here)

        return each(surrogate, mu + sigma * normal(key, n))

    def pathwise_by_grad(key: Any, n: int) -> list[Any]:
        def surrogate(here: Any, eps: Any) -> Any:
            x = here[0] + jnp.exp(here[1]) * eps
            return f(x) - log_q(x, theta)

        return each(surrogate, normal(key, n))

    return {
        "reinforce": {"by hand": score, "vmap(grad)": score_by_grad},
        "pathwise": {"by hand": pathwise, "vmap(grad)": pathwise_by_grad},
    }[trial.estimator.name]
