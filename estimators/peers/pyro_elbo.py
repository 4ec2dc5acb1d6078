"""Pyro's objectives for stochastic variational inference. Replicates are a plate, and each has a row of the parameters.

f enters as a factor. What Pyro adds to it, log p of the latent variable in the model less log q in the guide, is made nothing: the
model draws it from the same q, held fixed; and where it is reparameterised, so that there is no score, both sites are masked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Estimator
from estimators.peers.torch_distributions import REPARAMETERISED, seeded

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ["bernoulli", "categorical", "poisson", *REPARAMETERISED]

DIMENSION = -1  # of the plate of replicates


def pyro() -> Any:
    """The library; its own deprecation warnings stay within."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyro as library
        import pyro.distributions
        import pyro.infer
    return library


def gradient_by(objective: Callable[[Any], Any]) -> Callable[..., Tensor]:
    """Gradients of what this objective of pyro.infer descends, [R, *site], in the direction of ascent."""

    def gradients(theta: Tensor, q: Any, f: Any, generator: Any, replicates: int) -> Tensor:
        library = pyro()
        rows, held = (theta.expand(replicates, *theta.shape).clone() for _ in range(2))
        masked = q.name in REPARAMETERISED

        def latent(parameters: Tensor) -> Tensor:
            with library.poutine.mask(mask=not masked):
                found: Tensor = library.sample("x", _as_pyro(library, q.name, parameters))
            return found

        def model() -> None:
            with library.plate("replicates", replicates, dim=DIMENSION):
                library.factor("f", f(latent(held)))

        def guide() -> None:
            with library.plate("replicates", replicates, dim=DIMENSION):
                latent(library.param("rows", rows))

        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seeded(generator))
            library.clear_param_store()
            objective(library.infer).loss_and_grads(model, guide)
            descent: Tensor = library.param("rows").grad
            library.clear_param_store()
        return -descent

    return gradients


def _as_pyro(library: Any, family: str, theta: Tensor) -> Any:
    """The same distribution of pyro.distributions."""
    kinds = library.distributions
    if family == "bernoulli":
        return kinds.Bernoulli(logits=theta).to_event(1)
    if family == "categorical":
        return kinds.OneHotCategorical(logits=theta).to_event(1)
    if family == "poisson":
        return kinds.Poisson(theta.exp()).to_event(1)
    if family == "dirichlet":
        return kinds.Dirichlet(theta.exp()).to_event(1)
    a, b = theta.unbind(-2)
    if family == "normal":
        return kinds.Normal(a, b.exp()).to_event(1)
    return (kinds.Gamma if family == "gamma" else kinds.Beta)(a.exp(), b.exp()).to_event(1)


def pyro_trace_elbo() -> Estimator:
    """Pyro's Trace_ELBO: pathwise where the distribution has rsample, else the score function.

    Unbiased for Expectation and Elbo; 1 evaluation of f, and 1 gradient where it is pathwise.
    Bingham et al. 2019, JMLR 20(28); Ranganath, Gerrish & Blei 2014, arXiv:1401.0118.
    """
    fn = gradient_by(lambda infer: infer.Trace_ELBO())
    return Estimator("pyro_trace_elbo", gradients=fn, family=FAMILIES, source="pyro-ppl")


def pyro_tracegraph_elbo() -> Estimator:
    """Pyro's TraceGraph_ELBO: as Trace_ELBO, with the dependencies of the costs; no site asks for a baseline.

    Unbiased for Expectation and Elbo; 1 evaluation of f, and 1 gradient where it is pathwise.
    Bingham et al. 2019, JMLR 20(28); Schulman, Heess, Weber & Abbeel 2015, arXiv:1506.05254.
    """
    fn = gradient_by(lambda infer: infer.TraceGraph_ELBO())
    return Estimator("pyro_tracegraph_elbo", gradients=fn, family=FAMILIES, source="pyro-ppl")
