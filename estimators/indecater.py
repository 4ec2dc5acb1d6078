"""IndeCateR: each site summed over all its values, the others drawn for that site alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, Size
from estimators.local_expectation import FAMILIES, categories
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FRESH = ("site", "value")


def indecater(samples: int = 1, fresh: str = "site") -> Estimator:
    """IndeCateR for independent bits and categories: f with each site at each of its values, the others fresh draws.

    fresh: draws for each `site`, all its values with the same, or for each site and `value`. Nothing is assumed of f. Unbiased for
    Expectation and Elbo; K D C evaluations of f, C the values of a site, none of them used twice; no gradient of f. With a draw
    for each site every coordinate has the variance that it has in `local_expectation`, but those of different sites are
    independent; the authors' code draws once for all sites, which is `local_expectation` for more evaluations. De Smet, Sansone &
    Zuidberg Dos Martires, NeurIPS 2023, arXiv:2311.12569.
    """
    at_least("indecater", 1, samples=samples)
    one_of("indecater", FRESH, fresh=fresh)

    def points(size: Size) -> list[Ask]:
        return [Ask.VALUE] * samples * size.D * categories(size.event)

    def noise(size: Size) -> list[Noise]:
        front = (samples, 1 if fresh == "site" else categories(size.event), size.D)
        return [n._replace(front=front) for n in size.family.noise(size)]

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z ~ q for every draw, (value,) and site d, and there z_d = v; x: [K C D, ..., *event]."""
        z = q.sample(noise)
        D, free = z.shape[2], z.ndim - 3 - q.event_axes
        here = torch.eye(D, dtype=torch.bool, device=z.device).reshape(D, *[1] * free, D, *[1] * (q.event_axes - 1))
        C = categories(tuple(z.shape[-q.event_axes :]))
        v = torch.eye(C) if q.event_axes == 2 else torch.arange(2)[:, None]
        values = v.to(z).reshape(C, *[1] * (free + q.event_axes), v.shape[-1])
        return torch.where(here, values, z).flatten(0, 2)

    def means(q: Family, fx: Tensor) -> Tensor:
        """F_dv = 1/K sum_k f(z_kdv with z_d = v): [..., D, C]."""
        D = q.theta.shape[-q.event_axes]
        return fx.unflatten(0, (samples, -1, D)).mean(0).movedim((1, 0), (-2, -1))

    def combine(q: Family, fx: Tensor) -> Tensor:
        """g_d = sum_v F_dv grad q_d(v): p (1 - p) (F_d1 - F_d0) of a bit, (diag p - p p') F_d of categories."""
        F = means(q, fx)
        if q.event_axes == 1:
            return q.theta.sigmoid() * (-q.theta).sigmoid() * (F[..., 1] - F[..., 0])
        return q.mean_pull(F)

    def value(q: Family, fx: Tensor) -> Tensor:
        """L = mean_d sum_v q_d(v) F_dv."""
        F = means(q, fx)
        p = q.mean if q.event_axes == 2 else torch.stack([(-q.theta).sigmoid(), q.theta.sigmoid()], -1)
        return (p * F).sum(-1).mean(-1)

    return Estimator(
        "indecater",
        points,
        draw,
        combine,
        FAMILIES,
        noise=noise,
        value=value,
        kernel="estimators.kernels.summed:indecater",
        settings={"samples": samples, "fresh": fresh},
        source="arXiv:2311.12569",
    )
