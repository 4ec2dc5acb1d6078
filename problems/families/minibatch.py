"""The index of a datum, uniform, beside the parameters themselves; theta [P]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch

from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor


class MinibatchFamily(Family):
    """x = (i, w): i uniform on 0 ... N - 1, w = theta with certainty; x: `[..., 1 + P]`. `Minibatch(N)` makes the class.

    A sum over N data is the expectation of N times an addend, f((i, w)) = N f_i(w), whose gradient is carried to theta by w: the
    path is the identity. A point mass has no score, so that `score` and `local` are not offered. An estimator that is to see f
    elsewhere, at an anchor say, puts other parameters beside the index: `at(anchor).place(i)`.
    rows: N. norms: `[N]`, to which |grad f_i| is roughly proportional, where that is known of the data in advance.
    """

    name = "minibatch"
    scored = False
    rows: ClassVar[int]
    norms: ClassVar[Tensor | None]

    @staticmethod
    def event(theta: Tensor) -> tuple[int, ...]:
        """The index and P parameters."""
        return (1 + theta.shape[-1],)

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        return [Noise("uniform", (), (1,))]

    def at(self, theta: Tensor) -> MinibatchFamily:
        """The same data beside other parameters."""
        return type(self)(theta)

    def place(self, index: Tensor) -> Tensor:
        """(i, theta) for given indices: `[...] -> [..., 1 + P]`."""
        i = index.to(self.theta)[..., None]
        shape = torch.broadcast_shapes(i.shape[:-1], self.theta.shape[:-1])
        return torch.cat([i.expand(*shape, 1), self.theta.expand(*shape, -1)], -1)

    def sample(self, noise: Tensor) -> Tensor:
        """i = floor(u N)."""
        return self.place((noise[..., 0] * self.rows).floor().clamp(max=self.rows - 1))

    def log_prob(self, x: Tensor) -> Tensor:
        """log 1/N of the index; w is certain."""
        return torch.full_like(x[..., 0], -math.log(self.rows))

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """dw/dtheta = 1; the index does not move."""
        return cotangent[..., 1:].sum(0)


def Minibatch(rows: int, norms: Tensor | None = None) -> type[MinibatchFamily]:
    """The family of indices of so many data. norms: see MinibatchFamily. Raises ValueError where they do not fit."""
    if rows < 1:
        raise ValueError(f"Minibatch({rows}): there must be at least 1 datum to draw")
    if norms is not None and (tuple(norms.shape) != (rows,) or not bool((norms > 0).all())):
        raise ValueError(f"Minibatch({rows}): norms must be {rows} positive numbers, one for each datum")
    return type("Minibatch", (MinibatchFamily,), {"rows": rows, "norms": norms})
