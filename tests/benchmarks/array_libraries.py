"""What the vectorised forms are written with: the fastest way that numpy, and that torch, has of each, replicates on the last axis.

Found by timing: numpy has raw SFC64 words twice as fast as uniforms, and in float32 a Box-Muller of them twice as fast as normals;
torch fills int32 faster than reals, and in float64 a Box-Muller of its uniforms is up to twice as fast as its normals.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import torch

TURN = 2 * math.pi


class Numpy:
    """numpy, with its fastest generator."""

    xp: ModuleType = np
    LAST = 2**32 - 1  # the largest word

    def __init__(self, dtype: str) -> None:
        self.real: Any = getattr(np, dtype)
        self._bits = np.random.SFC64(0)
        self._rng = np.random.Generator(self._bits)

    def array(self, values: torch.Tensor) -> np.ndarray:
        """In this library and dtype, with an axis for the replicates."""
        return values.detach().numpy().astype(self.real)[..., None]

    def words(self, *shape: int) -> np.ndarray:
        """32 random bits each."""
        size = math.prod(shape)
        return self._bits.random_raw(-(-size // 2)).view(np.uint32)[:size].reshape(shape)

    def cut(self, p: torch.Tensor) -> np.ndarray:
        """The number of words for which u < p."""
        return np.clip(np.ceil(p.double().numpy() * 2.0**32 - 0.5), 0, self.LAST).astype(np.uint32)[..., None]

    def bits(self, condition: np.ndarray) -> np.ndarray:
        """1 or 0."""
        return condition.astype(self.real)

    def uniforms(self, *shape: int) -> np.ndarray:
        """In (0, 1]."""
        if self.real is np.float64:
            return 1 - self._rng.random(shape)
        u = self.words(*shape).astype(self.real)
        u += self.real(0.5)
        u *= self.real(2.0**-32)
        return u

    def normals(self, *shape: int) -> np.ndarray:
        """N(0, 1)."""
        if self.real is np.float64:
            return self._rng.standard_normal(shape)
        size = math.prod(shape)
        half = -(-size // 2)
        u = self.uniforms(2, half)
        radius = np.log(u[0])
        radius *= self.real(-2)
        np.sqrt(radius, out=radius)
        u[1] *= self.real(TURN)
        out = np.empty((2, half), self.real)
        np.cos(u[1], out=out[0])
        np.sin(u[1], out=out[1])
        out *= radius
        return out.reshape(-1)[:size].reshape(shape)

    def softplus(self, z: np.ndarray) -> np.ndarray:
        """log(1 + e^z)."""
        return np.log1p(np.exp(-abs(z))) + np.maximum(z, 0)

    def log_partition(self, z: np.ndarray) -> np.ndarray:
        """sum_i log(1 + e^z_i) over the first axis; the logarithms as that of products of 64, as the kernels take them."""
        factors = np.exp(-abs(z))
        factors += 1
        whole = len(z) // 64 * 64
        total = np.log(factors[:whole].reshape(-1, 64, *z.shape[1:]).prod(1)).sum(0) + np.maximum(z, 0).sum(0)
        return total if whole == len(z) else total + np.log(factors[whole:].prod(0))

    def sigmoid(self, z: np.ndarray) -> np.ndarray:
        """1 / (1 + e^-z)."""
        return 1 / (1 + np.exp(-z))

    def distinct(self, n: int, rows: int, batch: int) -> np.ndarray:
        """So many distinct rows for each of n replicates, `[n, batch]`."""
        return self._rng.random((n, rows), np.float32).argpartition(batch - 1, -1)[:, :batch]

    def power_sums(self, g: np.ndarray, pilot: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sums of (g - pilot)^1..4 over the replicates; g `[P, n]`."""
        d = g - pilot
        d2 = d * d
        return d.sum(-1), np.vecdot(d, d), np.vecdot(d2, d), np.vecdot(d2, d2)


class Torch:
    """torch, with a generator of its own."""

    xp: ModuleType = torch
    LAST = 2**31 - 1

    def __init__(self, dtype: str) -> None:
        self.real = getattr(torch, dtype)
        self._generator = torch.Generator().manual_seed(0)

    def array(self, values: torch.Tensor) -> torch.Tensor:
        """In this library and dtype, with an axis for the replicates."""
        return values.detach().to(self.real)[..., None]

    def words(self, *shape: int) -> torch.Tensor:
        """31 random bits each."""
        return torch.empty(shape, dtype=torch.int32).random_(generator=self._generator)

    def cut(self, p: torch.Tensor) -> torch.Tensor:
        """The number of words for which u < p."""
        return (p.double() * 2.0**31 - 0.5).ceil().clamp(0, self.LAST).int()[..., None]

    def bits(self, condition: torch.Tensor) -> torch.Tensor:
        """1 or 0."""
        return condition.to(self.real)

    def uniforms(self, *shape: int) -> torch.Tensor:
        """In (0, 1]."""
        return 1 - torch.empty(shape, dtype=self.real).uniform_(generator=self._generator)

    def normals(self, *shape: int) -> torch.Tensor:
        """N(0, 1)."""
        if self.real is torch.float32:
            return torch.empty(shape, dtype=self.real).normal_(generator=self._generator)
        size = math.prod(shape)
        half = -(-size // 2)
        u = self.uniforms(2, half)
        radius = u[0].log_().mul_(-2).sqrt_()
        out = torch.empty(2, half, dtype=self.real)
        torch.cos(u[1].mul_(TURN), out=out[0])
        torch.sin(u[1], out=out[1])
        return out.mul_(radius).reshape(-1)[:size].reshape(shape)

    def softplus(self, z: torch.Tensor) -> torch.Tensor:
        """log(1 + e^z)."""
        return torch.nn.functional.softplus(z)

    def log_partition(self, z: torch.Tensor) -> torch.Tensor:
        """sum_i log(1 + e^z_i) over the first axis; the logarithms as that of products of 64, as the kernels take them."""
        factors = z.abs().neg_().exp_()
        factors += 1
        whole = len(z) // 64 * 64
        total = torch.log(factors[:whole].reshape(-1, 64, *z.shape[1:]).prod(1)).sum(0) + z.clamp(min=0).sum(0)
        return total if whole == len(z) else total + torch.log(factors[whole:].prod(0))

    def sigmoid(self, z: torch.Tensor) -> torch.Tensor:
        """1 / (1 + e^-z)."""
        return z.sigmoid()

    def distinct(self, n: int, rows: int, batch: int) -> torch.Tensor:
        """So many distinct rows for each of n replicates, `[n, batch]`."""
        return torch.rand(n, rows, generator=self._generator).topk(batch, sorted=False).indices

    def power_sums(self, g: torch.Tensor, pilot: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Sums of (g - pilot)^1..4 over the replicates; g `[P, n]`."""
        d = g - pilot
        d2 = d * d
        return d.sum(-1), d2.sum(-1), (d2 * d).sum(-1), (d2 * d2).sum(-1)


Library = Numpy | Torch
