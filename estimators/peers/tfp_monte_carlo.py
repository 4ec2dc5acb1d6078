"""TensorFlow Probability on JAX: `monte_carlo.expectation`, whose gradient is pathwise or a score function's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from estimators.base import Estimator
from estimators.peers import imported
from estimators.peers.jax_bridge import gradient_by, jax
from estimators.peers.torch_distributions import REPARAMETERISED, pathwise_where_it_can

SCORED = ["bernoulli", "categorical", "poisson", "normal", "gamma"]


@cache
def tfp() -> Any:
    """The library."""
    jax()
    return imported("tensorflow_probability.substrates.jax")


def distribution(family: str, theta: Any) -> Any:
    """The distribution of the whole point at site parameters `[..., *site]`."""
    kinds, exp = tfp().distributions, jax().numpy.exp
    if family == "bernoulli":
        return kinds.Independent(kinds.Bernoulli(logits=theta, dtype=theta.dtype), 1)
    if family == "categorical":
        return kinds.Independent(kinds.OneHotCategorical(logits=theta, dtype=theta.dtype), 1)
    if family == "poisson":
        return kinds.Independent(kinds.Poisson(log_rate=theta), 1)
    if family == "dirichlet":
        return kinds.Independent(kinds.Dirichlet(exp(theta)), 1)
    a, b = theta[..., 0, :], exp(theta[..., 1, :])
    if family == "normal":
        return kinds.Independent(kinds.Normal(a, b), 1)
    return kinds.Independent((kinds.Gamma if family == "gamma" else kinds.Beta)(exp(a), b), 1)


def expectation(pathwise: bool) -> Callable[..., Any]:
    """Gradient of the mean over one sample, of every replicate at once."""

    def made(family: str, f: Callable[[Any], Any], replicates: int) -> Callable[[Any, Any], Any]:
        library = jax()

        def gradient(key: Any, theta: Any) -> Any:
            def total(rows: Any) -> Any:
                q = distribution(family, rows)
                found = tfp().monte_carlo.expectation(
                    f, q.sample(1, seed=key), log_prob=q.log_prob, use_reparameterization=pathwise, axis=0
                )
                return found.sum()

            return library.grad(total)(library.numpy.broadcast_to(theta, (replicates, *theta.shape)))

        return gradient

    return made


def tfp_pathwise() -> Estimator:
    """TensorFlow Probability's monte_carlo.expectation, reparameterised, on JAX.

    Assumes f differentiable. Unbiased for Expectation and Elbo; 1 evaluation of f, 1 gradient. Its time includes the way to f and
    back. Dillon et al. 2017, arXiv:1711.10604; Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498.
    """
    return Estimator(
        "tfp_pathwise",
        pathwise_where_it_can,
        gradients=gradient_by(expectation(True)),
        family=REPARAMETERISED,
        source="tfp-nightly",
    )


def tfp_score_function() -> Estimator:
    """TensorFlow Probability's monte_carlo.expectation by the score function, on JAX.

    Unbiased for Expectation and Elbo; 1 evaluation of f. Its time includes the way to f and back.
    Dillon et al. 2017, arXiv:1711.10604.
    """
    fn = gradient_by(expectation(False))
    return Estimator("tfp_score_function", gradients=fn, family=SCORED, source="tfp-nightly")
