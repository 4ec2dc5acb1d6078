"""Chain: a family whose sites come in layers (or steps), the parameters of each given by the layers before it.

To intervene on a site, edit its noise and sample again: everything downstream is re-run with the noise it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch

from problems.calling import call
from problems.families.base import Family, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

Encoder = Callable[..., "Tensor"]


def Chain(
    layer: type[Family], encoders: Sequence[Encoder], sizes: Sequence[int], *, categories: int = 0, data: bool = False
) -> type[Family]:
    """A family of `len(encoders)` layers of `layer` variables, `sizes[l]` of them in layer l.

    `encoders[l](theta, earlier, ...)` gives the parameters of layer l, `[..., sizes[l]]` (`[..., sizes[l], C]` where `layer` is
    categorical with `categories` = C), from the weights theta [P] and the list of the earlier layers' points; it may also name
    `data`, whose rows lie in the axis before the event. The parameters that estimators differentiate are the weights.
    """
    if not layer.factorised:
        raise ValueError(f"Chain of {layer.name} variables: the sites of a layer must not depend on each other")
    cuts = [0, *accumulate(sizes)]
    site_axes = layer.event_axes - 1
    event_shape = (cuts[-1], *([categories] if categories else []))

    class LayeredFamily(Family):
        name = f"chain of {layer.name}"
        finite = layer.finite
        event_axes = layer.event_axes
        layers = tuple(torch.arange(first, last) for first, last in pairwise(cuts))

        def __init__(self, theta: Tensor, data: Tensor | None = None) -> None:
            super().__init__(theta)
            self.data = data
            self._last: tuple[Tensor, Tensor] | None = None

        @staticmethod
        def event(theta: Tensor) -> tuple[int, ...]:
            return event_shape

        @classmethod
        def noise(cls, size: Size) -> list[Noise]:
            return [n._replace(event=event_shape) for n in layer.noise(size)]

        @classmethod
        def states(cls, theta: Tensor) -> int | None:
            return layer.states(torch.empty(event_shape))

        def at(self, theta: Tensor) -> Family:
            return type(self)(theta, self.data)

        def _layer(self, index: int, theta: Tensor, earlier: list[Tensor], data: Any) -> Tensor:
            return call(encoders[index], {"data": data}, theta, earlier)

        def _params(self, theta: Tensor, x: Tensor, data: Any) -> Tensor:
            axis = -1 - site_axes
            points = [x.narrow(axis, first, last - first) for first, last in pairwise(cuts)]
            found = [self._layer(index, theta, points[:index], data) for index in range(len(encoders))]
            lead = torch.broadcast_shapes(*[p.shape[:axis] for p in found], x.shape[:axis])
            return torch.cat([p.expand(*lead, *p.shape[axis:]) for p in found], axis)

        def params(self, x: Tensor) -> Tensor:
            """Site parameters given the sites before: `[K, R, (B,) *event]`. Those of the last x are remembered."""
            if self._last is None or self._last[0] is not x:
                self._last = (x, self._params(self.theta, x, self.data))
            return self._last[1]

        def sample(self, noise: Tensor) -> Tensor:
            axis = -1 - site_axes
            earlier: list[Tensor] = []
            for index, (first, last) in enumerate(pairwise(cuts)):
                bound = layer(self._layer(index, self.theta, earlier, self.data))
                earlier.append(bound.sample(noise.narrow(axis, first, last - first)))
            return torch.cat(earlier, axis)

        def log_prob(self, x: Tensor) -> Tensor:
            return layer(self.params(x)).log_prob(x)

        def local(self, x: Tensor) -> Tensor:
            return layer(self.params(x)).local(x)

        def pull(self, x: Tensor, g: Tensor) -> Tensor:
            """Gradients of the weights: x and g are `[K, R, (B,) *event]`, the result `[R, P]`."""
            rows = None if self.data is None or self.data.ndim == 2 else 0

            def weights(point: Tensor, cotangent: Tensor, data: Tensor | None) -> Tensor:
                back = torch.func.vjp(lambda w: self._params(w, point, data), self.theta.detach())[1]
                return back(cotangent)[0]

            return torch.func.vmap(weights, in_dims=(1, 1, rows))(x, g, self.data)

        def support(self) -> Tensor:
            return layer(torch.zeros(event_shape, dtype=self.theta.dtype, device=self.theta.device)).support()

    LayeredFamily.layer = layer  # type: ignore[attr-defined]
    LayeredFamily.takes_data = data  # type: ignore[attr-defined]
    return LayeredFamily
