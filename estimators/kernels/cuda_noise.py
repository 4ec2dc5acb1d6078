"""The noise of `estimators.noise` made on a CUDA device, where it is used: nothing is copied there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from estimators.kernels.cuda import LANES, fill
from estimators.noise import ROWS_INDEX
from problems.families.base import Noise

if TYPE_CHECKING:
    from torch import Tensor


def addressed(
    noise: Noise,
    key: int,
    phase: int,
    index: int,
    replicates: range,
    data: Tensor | Sequence[int] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """`estimators.noise.addressed` made on the device: the same words, and so the same numbers to rounding."""
    assert noise.event is not None
    tag, at = phase << 30 | index << 24, (math.prod(noise.front), math.prod(noise.event))
    with_data = data is not None and noise.per_datum
    rows = torch.as_tensor(data if with_data else [0], device=device)
    if rows.ndim == 2:
        u = torch.empty((at[0], *rows.shape, at[1], 2), dtype=torch.float64, device=device)
        fill(u, replicates.start, rows, tag, key)
        odd = torch.arange(replicates.start, replicates.stop, device=device)[:, None, None] % 2 > 0
        values = _of_pairs(noise.kind, u[..., 0], u[..., 1], odd)
    else:
        first, last = replicates.start // LANES, -(-replicates.stop // LANES)
        u = torch.empty((at[0], last - first, LANES, len(rows), at[1]), dtype=torch.float64, device=device)
        fill(u, first, rows, tag, key)
        skip = replicates.start - LANES * first
        values = _of_blocks(noise.kind, u).flatten(1, 2)[:, skip : skip + len(replicates)]
    shape = (*noise.front, len(replicates), *([rows.shape[-1]] if with_data else []), *noise.event)
    out = values.to(dtype).reshape(shape)
    if noise.kind == "uniform" and dtype != torch.float64:
        out = out.clamp(max=1 - torch.finfo(dtype).eps / 2)
    return out if with_data or data is None else out.unsqueeze(len(noise.front) + 1)


def rows_without_replacement(
    key: int, phase: int, replicates: range, rows: int, batch: int, device: torch.device
) -> Tensor:
    """`estimators.noise.rows_without_replacement`, made on the device."""
    order = Noise("uniform", (), (rows,))
    u = addressed(order, key, phase, ROWS_INDEX, replicates, None, torch.float64, device)
    return u.argsort(dim=-1, stable=True)[..., :batch]


def _of_blocks(kind: str, u: Tensor) -> Tensor:
    """Uniforms `[F, Q, 4, B, E]` to noise; words (0, 1) and (2, 3) of a block make two normals each."""
    if kind != "normal":
        return _mapped(kind, u)
    radius, angle = (-2 * u[:, :, 0::2].log()).sqrt(), 2 * math.pi * u[:, :, 1::2]
    values = u.new_empty(u.shape)
    values[:, :, 0::2], values[:, :, 1::2] = radius * angle.cos(), radius * angle.sin()
    return values


def _of_pairs(kind: str, first: Tensor, second: Tensor, odd: Tensor) -> Tensor:
    """The same of each replicate's own pair of words, of which the second is its own where it is odd."""
    if kind != "normal":
        return _mapped(kind, second.where(odd, first))
    angle = 2 * math.pi * second
    return (-2 * first.log()).sqrt() * angle.sin().where(odd, angle.cos())


def _mapped(kind: str, u: Tensor) -> Tensor:
    if kind == "uniform":
        return u
    if kind == "exponential":
        return -u.log()
    if kind == "gumbel":
        return -(-u.log()).log()
    assert kind == "sign"
    return 1 - 2 * (u >= 0.5).to(u)
