"""Finite differences: one parameter moved at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator, Noise
from estimators.perturbed import FAMILIES, Laws, exact_mean, law, moved
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family, Size


def finite_difference(step: float = 0.1, kind: str = "central", common: bool = True) -> Estimator:
    """Finite differences of the objective: each parameter of a site moved by h, f asked at a draw from either end.

    Any f, any q that samples by a map of noise. common: all ends share the noise of one draw (common random numbers), so that the
    variance stays as it is when h falls where f and the map are smooth, and grows as 1/h where draws are discrete; without it, each
    end has its own and the variance grows as 1/h^2. kind=central: 2 P evaluations of f, P the parameters of the sites, biased by
    O(h^2); kind=forward: P + 1, of which that at theta is a sample of q, biased by O(h).
    Its mean is exactly the finite difference of the objective: of E_{theta'}[f - log q_theta] for Elbo, whose gradient at
    theta' = theta is that of the ELBO. Biased for Expectation and Elbo; no gradient of f.
    Glasserman & Yao 1992, Management Science 38(6), on common random numbers.
    """
    one_of("finite_difference", ("central", "forward"), kind=kind)
    if not step > 0:
        raise ValueError(f"finite_difference[step={step}]: the step must be positive")
    central = kind == "central"

    def points(size: Size) -> list[Ask]:
        P = torch.Size(size.theta).numel()
        return [Ask.VALUE] * 2 * P if central else [Ask.SAMPLE] + [Ask.VALUE] * P

    def noise(size: Size) -> list[Noise]:
        ends = 1 if common else len(points(size))
        return [n._replace(front=(ends,)) for n in size.family.noise(size)]

    def draw(q: Family, size: Size, theta: Tensor, noise: Tensor) -> Tensor:
        """x+-_i = T(u; theta +- h e_i), or x_0 = T(u; theta) in the place of x-_i; x: [2 P or 1 + P, ..., *event]."""
        P = torch.Size(size.theta).numel()
        h = step * torch.eye(P).to(theta)
        ends = torch.cat([h, -h] if central else [0 * h[:1], h])
        middle = [1] * (noise.ndim - 1 - len(size.event))
        return moved(q, ends.reshape(len(ends), *middle, *size.theta), noise)

    def combine(size: Size, fx: Tensor) -> Tensor:
        """g_i = (f(x+_i) - f(x-_i)) / (2 h), or (f(x+_i) - f(x_0)) / h."""
        difference = (fx[: len(fx) // 2] - fx[len(fx) // 2 :]) / (2 * step) if central else (fx[1:] - fx[0]) / step
        return difference.movedim(0, -1).unflatten(-1, size.theta)

    def laws(sites: Tensor) -> Laws:
        """(law(theta + h e_j) - law(theta - h e_j)) / (2 h), or (law(theta + h e_j) - law(theta)) / h."""
        h = step * torch.eye(sites.shape[-1]).to(sites)[:, None]
        here, up, down = law(sites), law(sites + h).movedim(0, -1), law(sites - h).movedim(0, -1)
        if central:
            return Laws(here, (up - down) / (2 * step), (up + down) / 2)
        return Laws(here, (up - here[..., None]) / step)

    def target(problem: Problem) -> Tensor | None:
        return exact_mean(problem, laws)

    claim = Claim("biased", target=target, of="the finite difference of the objective")
    return Estimator(
        "finite_difference",
        points,
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        noise,
        (lambda fx: fx.mean(0)) if central else None,
        settings={"step": step, "kind": kind, "common": common},
        source="Glasserman & Yao 1992",
    )
