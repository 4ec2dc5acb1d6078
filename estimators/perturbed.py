"""What estimators share that move the parameters: the points they ask f at, and the exact mean of what they make of them.

The mean is a function of the sites' laws alone. Perturbations of different sites are independent, so that the laws may be averaged
site by site, and one enumeration of the support does for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from problems.truth import in_double, log_probability, terms

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family

FAMILIES = [
    *["bernoulli", "categorical", "normal", "gamma", "poisson", "geometric", "binomial", "subset"],
    *["beta", "dirichlet", "von_mises", "weibull"],
]
MOST_NODES = 2**16


def moved(q: Family, shift: Tensor, u: Tensor) -> Tensor:
    """x_i = T(u_i; theta + shift_i); shift `[N, R or 1, (B or 1,) *site]`, u `[N or 1, R, (B,) ...]`."""
    return q.at(q.theta + shift).sample(u.expand(len(shift), *u.shape[1:]))


class Laws(NamedTuple):
    """Of sites whose parameters are moved, J of each, V values.

    law: `[D, V]`, the mean law. slope: `[D, V, J]`, what stands for the derivative of the law in each parameter.
    ends: `[D, V, J]`, the mean law where parameter j alone is moved, if the objective is asked there and not at `law`.
    """

    law: Tensor
    slope: Tensor
    ends: Tensor | None = None


def law(sites: Tensor) -> Tensor:
    """Probabilities of the values of sites, `[..., D, J] -> [..., D, V]`; J is 1 of bits, whose values are 0 and 1."""
    return torch.cat([-sites, sites], -1).sigmoid() if sites.shape[-1] == 1 else sites.softmax(-1)


def symmetric(sites: Tensor, nodes: Tensor, chance: Tensor, scale: float) -> Laws:
    """E law(theta + scale e) and E law(theta + scale e) e_j / scale, over nodes e `[N, J]` and their chances `[N]`."""
    of_node = law(sites + scale * nodes[:, None]) * chance[:, None, None]  # [N, D, V]
    return Laws(of_node.sum(0), torch.einsum("ndv,nj->dvj", of_node, nodes) / scale)


def per_site(problem: Problem) -> int:
    """J: a bit has one parameter, a category as many as there are."""
    return 1 if problem.family_name == "bernoulli" else int(problem.site_parameters(problem.theta).shape[-1])


def exact_mean(problem: Problem, laws: Callable[[Tensor], Laws]) -> Tensor | None:
    """The mean of an estimator that puts `slope` for the laws' derivative: `[P]`; None where the support is too large.

    With M(law) = sum_x f~(x) prod_d law_d(x_d), f~ the integrand (of a bound, f less log q at the theta that is not moved), it is
    sum_v slope_d(v) dM / dlaw_d(v), pulled back to theta, and the derivative of M in the model.
    """
    if problem.family_name not in ("bernoulli", "categorical") or terms(problem) is None:
        return None
    problem = in_double(problem)
    leaves = [t.detach().clone().requires_grad_() for t in (problem.theta, problem.model) if t is not None]
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for row in range(max(problem.rows, 1)):
        data = None if problem.data is None else problem.data[row : row + 1]
        sites = problem.site_parameters(leaves[0], data)
        one = sites[0] if problem.encode is not None and problem.rows else sites
        of_sites, value = _of_datum(problem, one.detach(), leaves[1] if len(leaves) > 1 else None, data, laws)
        found = [torch.autograd.grad(one, leaves[0], of_sites)[0]]
        if len(leaves) > 1:
            found += torch.autograd.grad(value, leaves[1])
        for sum_, g in zip(total, found, strict=True):
            sum_ += g
    return torch.cat([t.reshape(-1) for t in total])


def _of_datum(
    problem: Problem, sites: Tensor, model: Tensor | None, data: Tensor | None, laws: Callable[[Tensor], Laws]
) -> tuple[Tensor, Tensor]:
    """The mean for the sites of one datum, and the objective where it is asked, a function of the model."""
    bits = problem.family_name == "bernoulli"
    q = problem.bind(sites)
    x = q.support()
    f = problem.value(x if data is None else x[:, None], model, data)
    f = f if problem.parts is None else f.sum(-1)
    f = f if data is None else f[:, 0]
    f = f - log_probability(q, x) if problem.objective.ratio else f
    mean, slope, ends = laws(sites[:, None] if bits else sites)
    leaf = mean.clone().requires_grad_()
    place = x.long() if bits else x.argmax(-1)
    M = (leaf[torch.arange(len(leaf)), place].prod(-1) * f).sum()
    (dM,) = torch.autograd.grad(M, leaf, create_graph=True)
    of_sites = (slope * dM[..., None]).sum(-2).detach().reshape(sites.shape)
    return of_sites, M if ends is None else (ends * dM[..., None]).sum() / sites.numel()


def signs(count: int) -> tuple[Tensor, Tensor]:
    """Every vector of so many signs, and its chance."""
    each = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    nodes = torch.cartesian_prod(*[each] * count).reshape(-1, count)
    return nodes, torch.full((len(nodes),), 1 / len(nodes), dtype=torch.float64)
