"""One coordinate of a point replaced at a time, by estimators that compare f there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def replaced(base: Tensor, values: Tensor, axis: int = -1) -> Tensor:
    """Point i D + d is `base` with coordinate d taken from `values[i]`; base [..., D], values [n, ..., D] -> [n D, ..., D].

    axis: that of the coordinates, counted from the end; -2 where a coordinate is one-hot.
    """
    D = base.shape[axis]
    shape = [D] + [1] * base.ndim
    shape[axis] = D
    here = torch.eye(D, dtype=torch.bool, device=base.device).reshape(shape)
    return torch.where(here, values[:, None], base).flatten(0, 1)
