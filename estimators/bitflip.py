"""bitflip-1: f with one random bit turned; and UGC, which takes it where bits are nearly certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators import disarm
from estimators.base import Ask, Estimator, Noise
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def flipped(b: Tensor, u: Tensor) -> Tensor:
    """flip_j b: b with bit j turned, j uniform over the D coordinates; u: `[R, (B,) 1]`."""
    D = b.shape[-1]
    j = (D * u).long().clamp(max=D - 1)
    return torch.where(torch.arange(D, device=b.device) == j, 1 - b, b)


def slope(theta: Tensor, b: Tensor, flip: Tensor, f_b: Tensor, f_flip: Tensor) -> Tensor:
    """g_j = D p_j (1 - p_j) (-1)^{b_j} (f(flip_j b) - f(b)), and 0 in the other coordinates."""
    sign = flip - b  # (-1)^{b_j} at j, else 0
    return theta.shape[-1] * theta.sigmoid() * (-theta).sigmoid() * sign * (f_flip - f_b)[..., None]


def bitflip() -> Estimator:
    """bitflip-1 for factorised Bernoulli variables with logits theta: one coordinate's exact slope, D times, at random.

    Unbiased for Expectation and Elbo; 2 evaluations of f, no gradient of f; exact for one bit. Its variance is of the order of
    D p^2 (1 - p)^2: small where a bit is nearly certain, large where none is.
    Kunes, Yin, Land, Haviv, Pe'er & Tavare 2022, arXiv:2208.06124.
    """

    def draw(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
        """b ~ q and flip_j b; x: [2, ..., D]."""
        b = q.sample(noise[0])
        return torch.stack([b, flipped(b, noise[1])])

    def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """g_j = D p_j (1 - p_j) (-1)^{b_j} (f(flip_j b) - f(b)), and 0 in the other coordinates."""
        (b, flip), (f_b, f_flip) = x, fx
        return slope(theta, b, flip, f_b, f_flip)

    return Estimator(
        "bitflip",
        [Ask.SAMPLE, Ask.VALUE],
        draw,
        combine,
        ["bernoulli"],
        noise=[Noise("uniform"), Noise("uniform", (), (1,))],
        kernel="estimators.kernels.bitflip:bitflip",
        source="arXiv:2208.06124",
    )


def ugc(clip: float = 0.5) -> Estimator:
    """UGC, gradient variance clipping: bitflip-1 in the coordinates where min(p, 1 - p) < clip / D, DisARM in the others.

    For factorised Bernoulli variables with logits theta. Unbiased for Expectation and Elbo; 3 evaluations of f, no gradient of f.
    With m = min(p, 1 - p) and differences of f up to A, the variances are at most D m^2 (1 - m)^2 A^2 and m (1 - m)^2 A^2 / 2: they
    cross at clip = 1/2.
    Kunes, Yin, Land, Haviv, Pe'er & Tavare 2022, arXiv:2208.06124.
    """
    at_least("ugc", 0, clip=clip)

    def draw(theta: Tensor, noise: tuple[Tensor, Tensor]) -> Tensor:
        """The antithetic pair b, b~, and flip_j b; x: [3, ..., D]."""
        pair = disarm.draw(theta, noise[0][None])
        return torch.cat([pair, flipped(pair[:1], noise[1])])

    def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = D p_d (1 - p_d) (-1)^{b_d} 1[d = j] (f(flip_j b) - f(b)) where min(p_d, 1 - p_d) < clip / D, else DisARM's."""
        rare = (-theta.abs()).sigmoid() < clip / theta.shape[-1]
        return torch.where(rare, slope(theta, x[0], x[2], fx[0], fx[2]), disarm.combine(theta, x[:2], fx[:2]))

    return Estimator(
        "ugc",
        [Ask.SAMPLE, Ask.SAMPLE, Ask.VALUE],
        draw,
        combine,
        ["bernoulli"],
        noise=[Noise("uniform"), Noise("uniform", (), (1,))],
        kernel="estimators.kernels.bitflip:ugc",
        settings={"clip": clip},
        source="arXiv:2208.06124",
    )
