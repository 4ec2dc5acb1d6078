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
from problems.families.normal import Normal

if TYPE_CHECKING:
    from torch import Tensor

Encoder = Callable[..., "Tensor"]
PAIRED = ("normal", "gamma", "beta", "von_mises")  # of two parameters a site, [2, D]


def Chain(
    layer: type[Family], encoders: Sequence[Encoder], sizes: Sequence[int], *, categories: int = 0, data: bool = False
) -> type[Family]:
    """A family of `len(encoders)` layers of `layer` variables, `sizes[l]` of them in layer l.

    `encoders[l](theta, earlier, ...)` gives the parameters of layer l, `[..., sizes[l]]` (`[..., sizes[l], C]` where `layer` is
    categorical with `categories` = C, `[..., 2, sizes[l]]` where it is Normal), from the weights theta [P] and the list of the
    earlier layers' points; it may also name `data`, whose rows lie in the axis before the event. The parameters that estimators
    differentiate are the weights.
    """
    if not layer.factorised:
        raise ValueError(f"Chain of {layer.name} variables: the sites of a layer must not depend on each other")
    cuts = [0, *accumulate(sizes)]
    axis = -layer.event_axes  # of the sites, in points and in parameters
    start = axis - (layer.name in PAIRED)  # of a datum's parameters
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
            points = [x.narrow(axis, first, last - first) for first, last in pairwise(cuts)]
            found = [self._layer(index, theta, points[:index], data) for index in range(len(encoders))]
            lead = torch.broadcast_shapes(*[p.shape[:start] for p in found], x.shape[:axis])
            return torch.cat([p.expand(*lead, *p.shape[start:]) for p in found], axis)

        def params(self, x: Tensor) -> Tensor:
            """Site parameters given the sites before: `[K, R, (B,) *event]`. Those of the last x are remembered."""
            if self._last is None or self._last[0] is not x:
                self._last = (x, self._params(self.theta, x, self.data))
            return self._last[1]

        def _sample(self, theta: Tensor, noise: Tensor, data: Any) -> Tensor:
            earlier: list[Tensor] = []
            for index, (first, last) in enumerate(pairwise(cuts)):
                bound = layer(self._layer(index, theta, earlier, data))
                earlier.append(bound.sample(noise.narrow(axis, first, last - first)))
            return torch.cat(earlier, axis)

        def sample(self, noise: Tensor) -> Tensor:
            return self._sample(self.theta, noise, self.data)

        def log_prob(self, x: Tensor) -> Tensor:
            return layer(self.params(x)).log_prob(x)

        def local(self, x: Tensor) -> Tensor:
            return layer(self.params(x)).local(x)

        def _weights(self, along: Callable[[Tensor, Tensor, Any], Tensor], at: Tensor, cotangent: Tensor) -> Tensor:
            """(d along(theta, at, data) / d theta)' cotangent of each replicate, `[R, P]`; at and cotangent are `[K, R, ...]`."""
            rows = None if self.data is None or self.data.ndim == 2 else 0

            def weights(there: Tensor, back: Tensor, data: Tensor | None) -> Tensor:
                return torch.func.vjp(lambda w: along(w, there, data), self.theta.detach())[1](back)[0]

            return torch.func.vmap(weights, in_dims=(1, 1, rows))(at, cotangent, self.data)

        def pull(self, x: Tensor, g: Tensor) -> Tensor:
            """Gradients of the weights: x is `[K, R, (B,) *event]`, g shaped as the parameters there, the result `[R, P]`."""
            return self._weights(self._params, x, g)

        def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
            """The layers run again from the noise that gave x, through which every later layer hangs on the earlier: `[R, P]`."""
            if not issubclass(layer, Normal):
                return super().path(x, cotangent)
            return self._weights(self._sample, layer(self.params(x)).noise_at(x), cotangent)

        def support(self) -> Tensor:
            return layer(torch.zeros(event_shape, dtype=self.theta.dtype, device=self.theta.device)).support()

    LayeredFamily.layer = layer  # type: ignore[attr-defined]
    LayeredFamily.takes_data = data  # type: ignore[attr-defined]
    return LayeredFamily
