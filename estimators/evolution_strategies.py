"""Evolution strategies: the gradient of the objective smoothed by Gaussian noise on the parameters, from values of f alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, Noise, across
from estimators.perturbed import FAMILIES, MOST_NODES, exact_mean, moved, per_site, symmetric
from estimators.randomised_quasi_monte_carlo import MOST_DIMS
from problems.settings import at_least, one_of
from problems.truth import gauss_hermite

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size

BASELINES = ("none", "centre", "leave_one_out", "antithetic")
LEAST = 2.0**-33


def evolution_strategies(
    samples: int = 8,
    sigma: float = 0.1,
    baseline: str = "antithetic",
    design: str = "independent",
    common: bool = True,
) -> Estimator:
    """Evolution strategies: K parameters drawn around theta, each weighted by its direction and f at a draw from there.

    Any f, any q that samples by a map of noise. g = 1/(K sigma) sum_k [f(x_k) - b_k] eps_k, x_k drawn at theta + sigma eps_k,
    eps ~ N(0, I) over the sites' parameters. baseline: none; centre, f at a draw from theta itself, one evaluation more;
    leave_one_out, the mean of the other f; antithetic, K/2 pairs +-eps_k, which need none. design: independent; orthogonal, in
    blocks of as many as there are parameters; latin, a Latin hypercube; sobol, a Sobol sequence shifted at random (balanced where
    K, or K/2 of pairs, is a power of two). common: all ends, or with antithetic both of a pair, share the noise of one draw of q.
    Biased for Expectation and Elbo, by O(sigma^2). Unbiased for the gradient of E_eps E_{theta + sigma eps}[f], and for Elbo of
    E_eps E_{theta + sigma eps}[f - log q_theta]; not so leave_one_out in a latin or sobol design, where the others tell of eps_k.
    K evaluations of f, no gradient of f; the model's gradient is the mean of that at the K points.
    Salimans, Ho, Chen, Sidor & Sutskever 2017, arXiv:1703.03864; designs: Choromanski et al. 2018, arXiv:1804.02395 (orthogonal);
    Petersen et al. 2024, arXiv:2410.08125 (latin, sobol and leave_one_out).
    """
    at_least("evolution_strategies", 1, samples=samples)
    one_of("evolution_strategies", BASELINES, baseline=baseline)
    one_of("evolution_strategies", tuple(DESIGNS), design=design)
    if not sigma > 0:
        raise ValueError(f"evolution_strategies[sigma={sigma}]: the scale must be positive")
    if baseline == "leave_one_out":
        at_least("evolution_strategies", 2, samples=samples)
    paired, centre = baseline == "antithetic", baseline == "centre"
    if paired and samples % 2:
        raise ValueError(
            f"evolution_strategies[samples={samples}]: antithetic directions come in pairs, so samples is even"
        )
    directions = samples // 2 if paired else samples
    wanted, made = DESIGNS[design]

    def points(size: Size) -> list[Ask]:
        if design == "sobol" and (P := math.prod(size.theta)) > MOST_DIMS:
            raise ValueError(
                f"evolution_strategies has a Sobol sequence of at most {MOST_DIMS} parameters; there are {P} of them"
            )
        return [Ask.VALUE] * (samples + centre)

    def noise(size: Size) -> list[Noise]:
        draws = (directions if paired else 1) if common else samples + centre
        own = [n._replace(front=(draws,)) for n in size.family.noise(size)]
        return [*own, *(n._replace(event=size.theta) for n in wanted(directions))]

    def directions_of(size: Size, noise: tuple[Tensor, ...]) -> Tensor:
        """eps_k: `[K or K/2, R, (B,) *site]`."""
        return made(directions, len(size.theta), *noise[1:])

    def draw(q: Family, size: Size, noise: tuple[Tensor, ...]) -> Tensor:
        """x_k = T(u_k; theta + sigma eps_k): those of eps, then those of -eps, or that of theta; x: [K or K + 1, ..., *event]."""
        u, eps = noise[0], directions_of(size, noise)
        if paired:
            return moved(q, sigma * torch.cat([eps, -eps]), torch.cat([u, u]) if common else u)
        return moved(q, sigma * torch.cat([eps, 0 * eps[:1]]) if centre else sigma * eps, u)

    def combine(size: Size, noise: tuple[Tensor, ...], fx: Tensor) -> Tensor:
        """g = 1/(K sigma) sum_k [f(x_k) - b_k] eps_k; of pairs 1/(K sigma) sum_k [f(x+_k) - f(x-_k)] eps_k."""
        eps = directions_of(size, noise)
        if paired:
            weight = fx[:directions] - fx[directions:]
        elif centre:
            weight = fx[:-1] - fx[-1]
        elif baseline == "leave_one_out":
            weight = (fx - fx.mean(0)) * (samples / (samples - 1))
        else:
            weight = fx
        return (across(weight, eps) * eps).sum(0) / (samples * sigma)

    def value(fx: Tensor) -> Tensor:
        return fx[:samples].mean(0)

    def target(problem: Problem) -> Tensor | None:
        """By Gauss-Hermite quadrature over the parameters of a site, which are smoothed apart from those of the others."""
        J = per_site(problem)
        nodes = min(64, int(MOST_NODES ** (1 / J)))
        dependent = baseline == "leave_one_out" and design in ("latin", "sobol")
        if dependent or nodes < 12 or problem.family_name not in ("bernoulli", "categorical"):
            return None
        return exact_mean(problem, lambda sites: symmetric(sites, *gauss_hermite(J, nodes), sigma))

    claim = Claim("biased", target=target, of="the smoothed objective")
    settings = {"samples": samples, "sigma": sigma, "baseline": baseline, "design": design, "common": common}
    return Estimator(
        "evolution_strategies",
        points,
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        noise,
        value,
        settings=settings,
        source="arXiv:1703.03864",
    )


def independent(count: int, axes: int, normals: Tensor) -> Tensor:
    """eps_k ~ N(0, I), each apart."""
    return normals


def orthogonal(count: int, axes: int, normals: Tensor) -> Tensor:
    """In blocks of P, the number of parameters: the directions of Gram and Schmidt, each with the length that it had.

    The factorisation's own signs are undone: each direction is uniform, given those before it, over those orthogonal to them.
    """
    flat = normals.flatten(-axes)
    P = flat.shape[-1]
    blocks = []
    for block in flat.movedim(0, -1).split(P, -1):
        Q, R = torch.linalg.qr(block)
        blocks.append(Q * R.diagonal(dim1=-2, dim2=-1).sign()[..., None, :] * block.norm(dim=-2, keepdim=True))
    return torch.cat(blocks, -1).movedim(-1, 0).unflatten(-1, normals.shape[-axes:])


def latin(count: int, axes: int, order: Tensor, place: Tensor) -> Tensor:
    """In each parameter one point in each of K strata of the same chance, in an order of its own: u_k = (rank_k + place_k) / K."""
    return quantiles((order.argsort(0).argsort(0) + place) / count)


def sobol(count: int, axes: int, shift: Tensor) -> Tensor:
    """The first K points of the Sobol sequence in as many dimensions as there are parameters, shifted modulo 1."""
    site = shift.shape[-axes:]
    points = sobol_points(count, math.prod(site)).to(shift).reshape(count, *[1] * (shift.ndim - axes), *site)
    return quantiles((points + shift) % 1)


@cache
def sobol_points(count: int, dims: int) -> Tensor:
    """The first points of the sequence: `[count, dims]`."""
    from scipy.stats import qmc

    all_of_them = qmc.Sobol(dims, scramble=False).random_base2(math.ceil(math.log2(count)))
    return torch.from_numpy(all_of_them[:count])


def quantiles(u: Tensor) -> Tensor:
    """Of the normal distribution; u that rounds to 0 or 1 is put just within."""
    return torch.special.ndtri(u.clamp(LEAST, 1 - max(LEAST, torch.finfo(u.dtype).eps / 2)))


def of_kind(*kinds: str, shared: bool = False) -> Callable[[int], list[Noise]]:
    """Arrays of noise in the shape of the parameters: one for each direction, or one for all of them."""
    return lambda count: [Noise(kind, () if shared else (count,)) for kind in kinds]


DESIGNS: dict[str, tuple[Callable[[int], list[Noise]], Callable[..., Tensor]]] = {
    "independent": (of_kind("normal"), independent),
    "orthogonal": (of_kind("normal"), orthogonal),
    "latin": (of_kind("uniform", "uniform"), latin),
    "sobol": (of_kind("uniform", shared=True), sobol),
}
