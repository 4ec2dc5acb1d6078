"""Pyro's objectives for stochastic variational inference. Replicates are a plate, and each has a row of the parameters.

f enters as a factor. What Pyro adds to it, log p of the latent variable in the model less log q in the guide, is made nothing: the
model draws it from the same q, held fixed; and where it is reparameterised, so that there is no score, both sites are masked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Claim, Estimator
from estimators.peers import imported
from estimators.peers.torch_distributions import REPARAMETERISED, pathwise_where_it_can, seeded
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem

FAMILIES = ["bernoulli", "categorical", "poisson", *REPARAMETERISED]

DIMENSION = -1  # of the plate of replicates


def pyro() -> Any:
    """The library."""
    return imported("pyro", "pyro.distributions", "pyro.infer")


def gradient_by(made: Callable[[Any, Any], Any], bound: bool = False) -> Callable[..., Tensor]:
    """Gradients of what `made(pyro.infer, objective)` descends, [R, *site], in the direction of ascent.

    bound: of several particles, whose weights have the guide's own log q in them, so that nothing is masked.
    """

    def gradients(theta: Tensor, q: Any, f: Any, generator: Any, replicates: int, objective: Any) -> Tensor:
        library = pyro()
        rows, held = (theta.expand(replicates, *theta.shape).clone() for _ in range(2))
        masked = q.name in REPARAMETERISED and not bound

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
            made(library.infer, objective).loss_and_grads(model, guide)
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
    fn = gradient_by(lambda infer, _: infer.Trace_ELBO())
    return Estimator("pyro_trace_elbo", pathwise_where_it_can, gradients=fn, family=FAMILIES, source="pyro-ppl")


def pyro_tracegraph_elbo() -> Estimator:
    """Pyro's TraceGraph_ELBO: as Trace_ELBO, with the dependencies of the costs; no site asks for a baseline.

    Unbiased for Expectation and Elbo; 1 evaluation of f, and 1 gradient where it is pathwise.
    Bingham et al. 2019, JMLR 20(28); Schulman, Heess, Weber & Abbeel 2015, arXiv:1506.05254.
    """
    fn = gradient_by(lambda infer, _: infer.TraceGraph_ELBO())
    return Estimator("pyro_tracegraph_elbo", pathwise_where_it_can, gradients=fn, family=FAMILIES, source="pyro-ppl")


def pyro_renyi_elbo() -> Estimator:
    """Pyro's RenyiELBO, K and alpha those of the objective.

    Unbiased for ImportanceWeighted and Renyi where q is reparameterised. Of other variables it is biased: the score term is that of
    the bound of infinitely many samples, and nil at alpha = 0. K evaluations of f, and K gradients where it is pathwise.
    Li & Turner 2016, arXiv:1602.02311.
    """

    def made(infer: Any, objective: Any) -> Any:
        return infer.RenyiELBO(objective.alpha, objective.samples, max_plate_nesting=1, vectorize_particles=True)

    def reparameterised(problem: Problem) -> bool:
        return problem.family_name in REPARAMETERISED

    claim = Claim("biased", unless=reparameterised, because="q is reparameterised")
    claims = {"ImportanceWeighted": claim, "Renyi": claim}
    fn = gradient_by(made, bound=True)
    return Estimator(
        "pyro_renyi_elbo", pathwise_where_it_can, gradients=fn, family=FAMILIES, claims=claims, source="pyro-ppl"
    )


def pyro_reweighted_wake_sleep(samples: int = 5) -> Estimator:
    """Pyro's ReweightedWakeSleep, its wake phase for q alone, one replicate after the other.

    Consistent for InclusiveKL; K evaluations of f. A plate does not keep replicates apart here: Pyro 1.9 sums log p and log q over
    it before the weights are normalised, so that each replicate is a call of its own, of about a millisecond.
    Bornschein & Bengio 2015, arXiv:1406.2751; Le et al. 2019, arXiv:1805.10469.
    """
    at_least("pyro_reweighted_wake_sleep", 2, samples=samples)

    def made(infer: Any, objective: Any) -> Any:
        return infer.ReweightedWakeSleep(samples, insomnia=1.0, max_plate_nesting=1, vectorize_particles=True)

    of_one = gradient_by(made, bound=True)

    def gradients(theta: Tensor, q: Any, f: Any, generator: Any, replicates: int, objective: Any) -> Tensor:
        return torch.cat([of_one(theta, q, f, generator, 1, objective) for _ in range(replicates)])

    return Estimator(
        "pyro_reweighted_wake_sleep",
        gradients=gradients,
        family=FAMILIES,
        claims={"InclusiveKL": "consistent"},
        settings={"samples": samples},
        source="pyro-ppl",
    )
