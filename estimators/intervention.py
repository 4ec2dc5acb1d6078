"""A site of a draw set to another value; in a Chain what follows it is run again, with the noise that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.replaced import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def sites(q: Family, z: Tensor) -> Family:
    """The distribution of each site of z given those before it: independent variables at the parameters of z."""
    layer: type[Family] | None = getattr(q, "layer", None)
    return q if layer is None else layer(q.params(z))


def forcing(q: Family, v: Tensor) -> Tensor:
    """Noise that gives v whatever the parameters: uniforms outside (0, 1) for bits, a Gumbel of +inf for the category."""
    return torch.where(v > 0, -1.0, 2.0).to(v) if q.event_axes == 1 else torch.where(v > 0, torch.inf, 0.0).to(v)


def each_set(q: Family, z: Tensor, noise: Tensor, values: Tensor) -> Tensor:
    """Point i D + d is z, drawn by `noise`, with site d at `values[i]`; values [n, ..., *event] -> [n D, ..., *event]."""
    if not q.layers:
        return replaced(z, values, -q.event_axes)
    return q.sample(replaced(noise, forcing(q, values), -q.event_axes))


def some_set(q: Family, z: Tensor, noise: Tensor, here: Tensor, values: Tensor) -> Tensor:
    """z, drawn by `noise`, with the sites `here` `[..., D]` at `values`; values and the result are shaped as z."""
    there = here if q.event_axes == 1 else here[..., None]
    if not q.layers:
        return torch.where(there, values, z)
    return q.sample(torch.where(there, forcing(q, values), noise))
