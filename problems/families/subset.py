"""Subsets of k of D sites, with logits theta [(B,) D]: independent bits, given that k of them are 1."""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import torch

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


def log_elementary(theta: Tensor, k: int) -> Tensor:
    """log e_j of the first i logits for i = 0 ... D and j = 0 ... k: `[..., D] -> [D + 1, ..., k + 1]`.

    e_j is the sum over subsets of j sites of the product of their exp(theta): e_j(i) = e_j(i - 1) + exp(theta_i) e_{j-1}(i - 1).
    """
    found = [torch.full((*theta.shape[:-1], k + 1), -torch.inf).to(theta)]
    found[0][..., 0] = 0
    for theta_i in theta.unbind(-1):
        with_i = (theta_i[..., None] + found[-1]).roll(1, -1)
        with_i[..., 0] = -torch.inf
        found.append(torch.logaddexp(found[-1], with_i))
    return torch.stack(found)


def inclusion(theta: Tensor, k: int) -> Tensor:
    """mu_i = P(z_i = 1 | k sites are 1) = exp(theta_i) e_{k-1}(all but i) / e_k: `[..., D]`."""
    if k == 0:
        return torch.zeros_like(theta)
    before, after = log_elementary(theta, k), log_elementary(theta.flip(-1), k).flip(0)
    others = (before[:-1, ..., :k] + after[1:, ..., :k].flip(-1)).logsumexp(-1)
    return (theta + others.movedim(0, -1) - before[-1, ..., k:]).exp()


class SubsetFamily(Family):
    """z of k ones and D - k zeros, with probability exp(theta . z) / e_k(exp theta); z: `[..., D]`. `Subset(k)` makes the class.

    The sites depend on each other, so that their scores z_i - mu_i do not stand each for itself as those of other families do.
    """

    name = "subset"
    finite = True
    factorised = False
    k: ClassVar[int]

    def __init__(self, theta: Tensor) -> None:
        super().__init__(theta)
        if self.k > theta.shape[-1]:
            raise ValueError(f"Subset({self.k}): there are only {theta.shape[-1]} sites to choose from")

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), size.event)]

    @classmethod
    def states(cls, theta: Tensor) -> int:
        return math.comb(theta.shape[-1], cls.k)

    @property
    def marginals(self) -> Tensor:
        """mu_i = P(z_i = 1)."""
        return inclusion(self.theta, self.k)

    @property
    def mean(self) -> Tensor:
        return self.marginals

    def mean_pull(self, g: Tensor) -> Tensor:
        """Cov(z) g, Cov(z)_ij = mu_i (P(z_j = 1 | z_i = 1) - mu_j): given z_i = 1, the others are a subset of k - 1."""
        mu, D = self.marginals, self.theta.shape[-1]
        site = torch.arange(D, device=mu.device)
        others = (site[:, None] + site[1:]) % D
        rest = inclusion(self.theta[..., others], self.k - 1)
        given = torch.ones_like(mu)[..., None].repeat(*[1] * mu.ndim, D).scatter(-1, others.expand_as(rest), rest)
        return mu * ((given - mu[..., None, :]) @ g[..., None])[..., 0]

    def sample(self, noise: Tensor) -> Tensor:
        """z_i = 1[u_i < P(z_i = 1 | z_1 ... z_{i-1})], a site after the other, in double precision."""
        u, theta = noise.double().clamp(max=1 - 2.0**-33), self.theta.double()
        after = [e.expand(*u.shape[:-1], -1) for e in log_elementary(theta.flip(-1), self.k).flip(0)]
        left, z = torch.full_like(u[..., :1], self.k).long(), torch.empty_like(noise)
        for i, theta_i in enumerate(theta.unbind(-1)):
            fewer = after[i + 1].gather(-1, (left - 1).clamp(min=0))
            log_p = theta_i[..., None] + fewer - after[i].gather(-1, left)
            chosen = (left > 0) & (u[..., i : i + 1] < log_p.exp())
            left = left - chosen.long()
            z[..., i] = chosen[..., 0]
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        """theta . z - log e_k(exp theta)."""
        return (x * self.theta).sum(-1) - log_elementary(self.theta, self.k)[-1, ..., self.k]

    def local(self, x: Tensor) -> Tensor:
        """z - mu."""
        return x - self.marginals

    def support(self) -> Tensor:
        D = self.theta.shape[-1]
        chosen = torch.tensor(list(combinations(range(D), self.k)), device=self.theta.device)
        return torch.zeros(len(chosen), D).to(self.theta).scatter(1, chosen, 1)


@cache
def Subset(size: int) -> type[SubsetFamily]:
    """The family of subsets of so many sites, k: `Subset(5)(theta)`."""
    if size < 1:
        raise ValueError(f"Subset({size}): a subset has at least 1 site")

    class Bound(SubsetFamily):
        k = size

    return Bound
