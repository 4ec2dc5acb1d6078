"""The exact gradient, or the best stored one, with its tier. Nothing here is shared with the estimators.

Probabilities come from torch.distributions and derivatives from autograd, whereas the estimators use the families' hand-written
scores. Tiers, best first: closed form, enumeration, quadrature, reference, none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import distributions

from problems.base import Problem
from problems.calling import call

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

TIERS = ("closed form", "enumeration", "quadrature", "reference", "none")
LISTED = ("bernoulli", "categorical", "binomial", "subset")  # what log_probability knows
MOST_TERMS = 2**20
MOST_STATES = 2**12


@dataclass(frozen=True, eq=False)
class Truth:
    """gradient `[P]`, its standard error `[P]` (zero where exact), and the tier it comes from."""

    gradient: Tensor
    se: Tensor
    tier: str


def exactly(gradient: Tensor, tier: str = "closed form") -> Truth:
    """A truth without error."""
    flat = gradient.detach().reshape(-1).double().cpu()
    return Truth(flat, torch.zeros_like(flat), tier)


def true_gradient(problem: Problem) -> Truth | None:
    """The gradient of the problem's objective with respect to theta and then the model, at its parameters.

    In this order: the problem's own `exact`; enumeration, where the support is finite and small; the stored reference of this
    problem, settings and point. None where there is none of them.
    """
    with _one_thread():
        problem = in_double(problem)
        if problem.exact is not None:
            return _own(problem)
        if terms(problem) is not None:
            return enumerated(problem)
    from problems.reference import stored_reference

    return stored_reference(problem)


def _own(problem: Problem) -> Truth | None:
    """What the problem itself says, checked; None where it says None."""
    assert problem.exact is not None
    own = problem.exact(problem)
    if own is None:
        return None
    found = own if isinstance(own, Truth) else exactly(torch.as_tensor(own))
    if found.gradient.numel() != problem.dim:
        raise ValueError(f"{problem.name}: exact gave {found.gradient.numel()} numbers; the gradient has {problem.dim}")
    return found


def in_double(problem: Problem) -> Problem:
    """The same problem in float64 on the CPU, whatever it was written in."""
    cast: dict[str, Any] = {
        name: None if (t := getattr(problem, name)) is None else t.detach().double().cpu()
        for name in ("model", "data", "parts")
    }
    return replace(problem, theta=problem.theta.detach().double().cpu(), **cast)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over threads are added in another order: a truth must not depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def terms(problem: Problem) -> int | None:
    """Number of terms of the enumeration for each datum, S^K; None where it is not to be had (f draws, for one)."""
    if problem.noise:
        return None
    family = problem.family
    kind = getattr(getattr(family, "layer", family), "name", "")
    if not getattr(family, "finite", False) or kind not in LISTED:
        return None
    theta = problem.site_parameters(problem.theta)
    states = family.states(theta)  # type: ignore[attr-defined]
    samples = 1 if problem.objective.exact else problem.objective.samples
    if states is None or states > MOST_STATES or states**samples > MOST_TERMS:
        return None
    return int(states**samples)


def log_probability(q: Family, x: Tensor) -> Tensor:
    """log q(x) by torch.distributions, from the sites' parameters."""
    params = q.params(x)
    family: Any = getattr(q, "layer", type(q))
    kind = family.name
    if kind == "bernoulli":
        return distributions.Bernoulli(logits=params, validate_args=False).log_prob(x).sum(-1)
    if kind == "categorical":
        return distributions.OneHotCategorical(logits=params, validate_args=False).log_prob(x).sum(-1)
    if kind == "binomial":
        return distributions.Binomial(family.n, logits=params, validate_args=False).log_prob(x).sum(-1)
    if kind == "subset":
        D = params.shape[-1]
        chosen = [[float(i in subset) for i in range(D)] for subset in combinations(range(D), family.k)]
        weights = (params[..., None, :] * torch.tensor(chosen).to(params)).sum(-1)
        return (params * x).sum(-1) - weights.logsumexp(-1)
    raise NotImplementedError(f"no enumeration for {q.name} variables")


def enumerated(problem: Problem) -> Truth:
    """sum over all S^K draws of q(x_1) ... q(x_K) value(fx), differentiated by autograd, datum by datum; and the closed form."""
    drawn = by_datum(problem, lambda *of: enumerated_objective(problem, *of))
    return exactly(drawn + of_closed_form(problem), "enumeration")


def of_closed_form(problem: Problem) -> Tensor:
    """Gradient `[P]` of the term of L that needs no draw; zero where there is none."""
    gradient = torch.zeros(problem.dim, dtype=problem.theta.dtype)
    if problem.closed_form is not None:
        theta = problem.theta.detach().clone().requires_grad_()
        L = call(problem.closed_form, {"data": problem.data}, theta).sum()
        gradient[: theta.numel()] = torch.autograd.grad(L, theta)[0].reshape(-1)
    return gradient


def by_datum(problem: Problem, L: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]) -> Tensor:
    """The gradient `[P]` of the sum over the data of L(theta, model, data `[1, F]`), by autograd, one datum at a time."""
    leaves = [t.detach().clone().requires_grad_() for t in (problem.theta, problem.model) if t is not None]
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for row in range(max(problem.rows, 1)):
        data = None if problem.data is None else problem.data[row : row + 1]
        of_datum = L(leaves[0], leaves[1] if problem.model is not None else None, data).sum()
        for sum_, g in zip(total, torch.autograd.grad(of_datum, leaves, allow_unused=True), strict=True):
            if g is not None:
                sum_ += g
    return torch.cat([t.reshape(-1) for t in total])


def enumerated_objective(problem: Problem, theta: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
    """L by enumeration, `[]` or `[B]`, as a differentiable function of theta and the model."""
    q = problem.bind(problem.site_parameters(theta, data), data)
    support = q.support()
    if data is not None:
        support = support[:, None].expand(len(support), len(data), *support.shape[1:])
    f = problem.value(support, model, data)
    if problem.parts is not None:
        f = f.sum(-1)
    log_q = log_probability(q, support)
    objective = problem.objective
    if objective.exact is not None:
        return objective.exact(log_q, f)
    fx = f - problem.share * log_q if objective.ratio else f
    index = torch.cartesian_prod(*[torch.arange(len(support))] * objective.samples).reshape(-1, objective.samples).T
    return (log_q[index].sum(0).exp() * objective.value(fx[index])).sum(0)


def gauss_hermite(dims: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes `[nodes^dims, dims]` and weights `[nodes^dims]` of the product rule for expectations under N(0, I)."""
    import numpy as np

    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    axis, weight = torch.from_numpy(x), torch.from_numpy(w / math.sqrt(2 * math.pi))
    grid = torch.cartesian_prod(*[axis] * dims).reshape(-1, dims)
    weights = torch.cartesian_prod(*[weight] * dims).reshape(-1, dims).prod(-1)
    return grid, weights


def trapezoid(dims: int, nodes: int, reach: float) -> tuple[Tensor, Tensor]:
    """Nodes `[nodes^dims, dims]` of a grid within `reach` of zero, and weights `[nodes^dims]` in proportion to N(0, I).

    For integrands that are analytic in a strip, as tanh and sigmoids are, the error falls exponentially in the nodes, where
    Gauss-Hermite rules cannot bear poles so near to the real axis.
    """
    axis = torch.linspace(-reach, reach, nodes, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dims).reshape(-1, dims)
    return grid, (-0.5 * grid * grid).sum(-1).softmax(0)


def over_normal_draws(problem: Problem, nodes: int, reach: float) -> Tensor:
    """The gradient `[P]` of a bound of Normal latents, by the trapezoidal rule over all its standardised draws at once."""
    K, D = problem.objective.samples, problem.site_parameters(problem.theta).shape[-1]
    grid, weight = trapezoid(K * D, nodes, reach)
    eps = grid.reshape(-1, K, 1, D).movedim(1, 0)

    def L(theta: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
        m, log_s = problem.site_parameters(theta, data).unbind(-2)
        z = m + log_s.exp() * eps
        log_q = distributions.Normal(m, log_s.exp()).log_prob(z).sum(-1)
        fx = problem.value(z, model, data) - log_q
        return (weight[:, None] * problem.objective.value(fx)).sum(0)

    return by_datum(problem, L)


def by_quadrature(gradient: Callable[[int], Tensor], nodes: int, tolerance: float = 1e-9) -> Truth:
    """`gradient(nodes)` certified by a second rule of 3/2 as many nodes: they must agree to `tolerance` of its norm.

    Raises ArithmeticError where they do not.
    """
    coarse, fine = gradient(nodes), gradient(nodes + nodes // 2)
    gap = float((coarse - fine).norm())
    if not gap <= tolerance * max(float(fine.norm()), 1e-12):
        raise ArithmeticError(
            f"quadrature with {nodes} nodes is off by {gap:.1e}, more than {tolerance:g} of the gradient"
        )
    return exactly(fine, "quadrature")
