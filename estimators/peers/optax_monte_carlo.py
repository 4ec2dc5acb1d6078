"""optax.monte_carlo (up to optax 0.2.3): a jacobian for each sample, and so a replicate for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from estimators.base import Ask, Estimator
from estimators.peers import imported
from estimators.peers.jax_bridge import gradient_by, jax


@cache
def monte_carlo() -> Any:
    """The library: its module monte_carlo, and the Normal distribution that this asks for."""
    jax()
    return imported("optax")


def jacobians(name: str) -> Callable[..., Any]:
    """Gradients in the mean and the logarithm of the scale, of every sample."""

    def made(family: str, f: Callable[[Any], Any], replicates: int) -> Callable[[Any, Any], Any]:
        library, optax = jax(), monte_carlo()

        def gradient(key: Any, theta: Any) -> Any:
            estimate = getattr(optax.monte_carlo, name)
            found = estimate(f, tuple(theta), optax.multi_normal, key, replicates)
            return library.numpy.stack(found, 1)

        return gradient

    return made


def member(name: str, function: str, asked: Ask = Ask.SAMPLE) -> Estimator:
    """The estimator of this function of optax.monte_carlo."""
    fn = gradient_by(jacobians(function))
    return Estimator(name, [asked], gradients=fn, family=["normal"], source="optax 0.2.3")


def optax_score_function() -> Estimator:
    """optax.monte_carlo.score_function_jacobians of Normal variables, on JAX.

    Unbiased for Expectation and Elbo; 1 evaluation of f. Its time includes the way to f and back.
    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652.
    """
    return member("optax_score_function", "score_function_jacobians")


def optax_pathwise() -> Estimator:
    """optax.monte_carlo.pathwise_jacobians of Normal variables, on JAX.

    Assumes f differentiable. Unbiased for Expectation and Elbo; 1 evaluation of f, 1 gradient. Its time includes the way to f and
    back. Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652.
    """
    return member("optax_pathwise", "pathwise_jacobians", Ask.SAMPLE | Ask.GRADIENT)


def optax_measure_valued() -> Estimator:
    """optax.monte_carlo.measure_valued_jacobians of Normal variables, coupled, on JAX.

    Unbiased for Expectation and Elbo; 4 D evaluations of f. Its time includes the way to f and back.
    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652.
    """
    return member("optax_measure_valued", "measure_valued_jacobians")
