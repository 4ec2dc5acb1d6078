"""Randomised quasi-Monte Carlo: points of a Sobol sequence, digitally shifted, in the place of independent uniforms."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from estimators.base import UNBIASED, Ask, Claim, Estimator, Noise, Size
from estimators.pathwise import FAMILIES
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from problems.families.base import Family

CONSISTENT: Mapping[str, str | Claim] = {"Expectation": "consistent", "Elbo": "consistent"}
NAME = "randomised_quasi_monte_carlo"
MOST_DIMS = 21201  # of Joe & Kuo's directions


@lru_cache(maxsize=16)
def sobol(points: int, dims: int) -> Tensor:
    """The first 2^m points of the Sobol sequence (Joe & Kuo's directions) as words of 32 bits: `[points, dims]`."""
    from scipy.stats.qmc import Sobol

    u = Sobol(dims, scramble=False, bits=32).random_base2(points.bit_length() - 1)
    return torch.from_numpy(u * 2.0**32).long()


def quantile(kind: str, u: Tensor) -> Tensor:
    """The noise of this kind whose distribution function is u."""
    if kind == "normal":
        return torch.special.ndtri(u)
    if kind == "exponential":
        return -u.log()
    return -(-u.log()).log() if kind == "gumbel" else u


def sampled(q: Family, size: Size, u: Tensor) -> Tensor:
    """x ~ q, its noise at the quantiles of u `[..., *event]`, which is in double precision; a uniform stays below one in single."""
    (own,) = size.family.noise(size)
    noise = quantile(own.kind, u).to(q.theta)
    return q.sample(noise.clamp(max=1 - torch.finfo(noise.dtype).eps / 2) if own.kind == "uniform" else noise)


def randomised_quasi_monte_carlo(
    samples: int = 8, shifts: int = 1, gradient: str = "pathwise", randomised: bool = True
) -> Estimator:
    """RQMC: the pathwise gradient, or the score function, over shifted Sobol points: samples / shifts points to each shift.

    For every family that samples by a map of noise (gradient=score), or that has a path. A digital shift makes each point uniform,
    so that the estimate is unbiased for Expectation and Elbo, while the points of one shift spread evenly: what is smooth, and
    varies along few coordinates, has far less variance than 1/K of one sample's. Points of one shift are not independent, so
    that their leave-one-out mean would be no baseline without bias: with gradient=score and shifts > 1, the mean of f over the
    other shifts is the baseline. randomised=False: one fixed shift, to the middle of each point's finest cell; no variance and a
    bias that vanishes as K grows. K evaluations of f (and gradients, by the path).
    Buchholz, Wenzel & Mandt, ICML 2018, arXiv:1807.01604 (with scrambled Sobol points); Owen 1997.
    """
    at_least(NAME, 1, samples=samples, shifts=shifts)
    one_of(NAME, ("pathwise", "score"), gradient=gradient)
    n, path = samples // shifts, gradient == "pathwise"
    if n * shifts != samples or n & (n - 1):
        setting = f"{NAME}[samples={samples},shifts={shifts}]"
        raise ValueError(
            f"{setting}: the points of a shift, samples / shifts, must be 1, 2, 4, 8 ... for them to spread evenly"
        )
    if not randomised and shifts > 1:
        raise ValueError(
            f"{NAME}[shifts={shifts},randomised=False]: there is one fixed shift; several would be the same"
        )

    def points(size: Size) -> list[Ask]:
        if (dims := math.prod(size.event)) > MOST_DIMS:
            raise ValueError(f"{NAME} has a Sobol sequence of at most {MOST_DIMS} coordinates; a point has {dims}")
        return [Ask.SAMPLE | Ask.GRADIENT if path else Ask.SAMPLE] * samples

    def draw(q: Family, size: Size, noise: Tensor) -> Tensor:
        """x_jk = T((v_k xor w_j + 1/2) 2^-32), v the words of the Sobol points and w those of the shifts; x: [K, ..., *event]."""
        w = (noise.double() * 2.0**32).floor().long() if randomised else torch.full_like(noise, 2**31 // n).long()
        v = sobol(n, math.prod(size.event)).to(w.device)
        v = v.reshape(n, *[1] * (w.ndim - 1 - len(size.event)), *size.event)
        return sampled(q, size, ((v ^ w[:, None]).flatten(0, 1).double() + 0.5) * 2.0**-32)

    def by_path(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k)."""
        return q.path(x, dfx / samples)

    def by_score(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g = 1/K sum_jk (f_jk - mean_{i != j} fbar_i) grad log q(x_jk), fbar_j the mean over the points of shift j."""
        f = fx.unflatten(0, (shifts, n))
        mean = f.mean(1, keepdim=True)
        baseline = (mean.sum(0) - mean) / max(shifts - 1, 1)
        return q.score(x, (f - baseline).flatten(0, 1) / samples)

    return Estimator(
        NAME,
        points,
        draw,
        by_path if path else by_score,
        FAMILIES if path else None,
        UNBIASED if randomised else CONSISTENT,
        [Noise("uniform", (shifts,))],
        kernel="estimators.kernels.randomised_quasi_monte_carlo:randomised_quasi_monte_carlo",
        settings={"samples": samples, "shifts": shifts, "gradient": gradient, "randomised": randomised},
        source="arXiv:1807.01604",
    )
