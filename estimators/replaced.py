"""One coordinate of a point replaced at a time, by estimators that compare f there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def replaced(base: Tensor, values: Tensor) -> Tensor:
    """Point i D + d is `base` with coordinate d taken from `values[i]`; base [..., D], values [n, ..., D] -> [n D, ..., D]."""
    D = base.shape[-1]
    here = torch.eye(D, dtype=torch.bool, device=base.device).reshape(D, *[1] * (base.ndim - 1), D)
    return torch.where(here, values[:, None], base).flatten(0, 1)
