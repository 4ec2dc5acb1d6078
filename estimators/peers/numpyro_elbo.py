"""NumPyro's objectives for stochastic variational inference. Replicates are a plate, and each has a row of the parameters.

f enters as a factor, as with Pyro (`estimators.peers.pyro_elbo`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from estimators.base import Claim, Estimator
from estimators.peers import imported
from estimators.peers.jax_bridge import gradient_by, jax
from estimators.peers.torch_distributions import REPARAMETERISED, pathwise_where_it_can

if TYPE_CHECKING:
    from problems.base import Problem

KINK = "no Bernoulli logit is 0, at which the slope of NumPyro's log_prob is that of |l|"


@cache
def numpyro() -> Any:
    """The library."""
    jax()
    return imported("numpyro", "numpyro.distributions", "numpyro.infer")


def distribution(family: str, theta: Any) -> Any:
    """The distribution of the whole point at site parameters `[..., *site]`."""
    kinds, exp = numpyro().distributions, jax().numpy.exp
    if family == "bernoulli":
        return kinds.BernoulliLogits(theta).to_event(1)
    if family == "poisson":
        return kinds.Poisson(exp(theta)).to_event(1)
    if family == "dirichlet":
        return kinds.Dirichlet(exp(theta)).to_event(1)
    a, b = theta[..., 0, :], exp(theta[..., 1, :])
    if family == "normal":
        return kinds.Normal(a, b).to_event(1)
    return (kinds.Gamma if family == "gamma" else kinds.Beta)(exp(a), b).to_event(1)


def elbo(objective: Callable[[Any], Any]) -> Callable[..., Any]:
    """Gradient of what this objective of numpyro.infer ascends, of every replicate at once."""

    def made(family: str, f: Callable[[Any], Any], replicates: int) -> Callable[[Any, Any], Any]:
        library = jax()

        def latent(rows: Any) -> Any:
            with numpyro().handlers.mask(mask=family not in REPARAMETERISED):
                return numpyro().sample("x", distribution(family, rows))

        def model(rows: Any) -> None:
            with numpyro().plate("replicates", replicates):
                x = latent(library.lax.stop_gradient(rows))
                numpyro().factor("f", f(x.astype(rows.dtype)))

        def guide(rows: Any) -> None:
            with numpyro().plate("replicates", replicates):
                latent(rows)

        def gradient(key: Any, theta: Any) -> Any:
            def ascent(rows: Any) -> Any:
                return -objective(numpyro().infer).loss(key, {}, model, guide, rows)

            return library.grad(ascent)(library.numpy.broadcast_to(theta, (replicates, *theta.shape)))

        return gradient

    return made


def numpyro_trace_elbo() -> Estimator:
    """NumPyro's Trace_ELBO, which is pathwise.

    Assumes f differentiable. Unbiased for Expectation and Elbo; 1 evaluation of f, 1 gradient. Its time includes the way to f and
    back. Phan, Pradhan & Jankowiak 2019, arXiv:1912.11554.
    """
    fn = gradient_by(elbo(lambda infer: infer.Trace_ELBO()))
    return Estimator(
        "numpyro_trace_elbo", pathwise_where_it_can, gradients=fn, family=REPARAMETERISED, source="numpyro"
    )


def smooth(problem: Problem) -> bool:
    """The logarithm of every probability has the slope that the library takes there."""
    return problem.family_name != "bernoulli" or bool((problem.theta != 0).all())


def numpyro_tracegraph_elbo() -> Estimator:
    """NumPyro's TraceGraph_ELBO: the score function with the dependencies of the costs, pathwise where it can be.

    Unbiased for Expectation and Elbo, but for bits of probability one half: log q is max(l, 0) + log(1 + exp -|l|) - l x there, of
    which JAX takes the slopes 1 and 0 at l = 0 (NumPyro 0.22), so that x = 0 has no score and x = 1 twice its own. 1 evaluation of
    f, and 1 gradient where it is pathwise. Its time includes the way to f and back.
    Phan, Pradhan & Jankowiak 2019, arXiv:1912.11554.
    """
    fn = gradient_by(elbo(lambda infer: infer.TraceGraph_ELBO()))
    claim = Claim("biased", unless=smooth, because=KINK)
    return Estimator(
        "numpyro_tracegraph_elbo",
        pathwise_where_it_can,
        gradients=fn,
        family=["bernoulli", "poisson", *REPARAMETERISED],
        claims={"Expectation": claim, "Elbo": claim},
        source="numpyro",
    )
