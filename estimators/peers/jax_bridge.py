"""What estimators written in JAX need: the library on one thread in both precisions, and f, which stays where it is counted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from estimators.peers import imported
from estimators.peers.torch_distributions import seeded

if TYPE_CHECKING:
    from torch import Tensor

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@cache
def jax() -> Any:
    """The library, on one thread."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    return imported("jax")


class Crossing:
    """f as JAX sees it: a call back to the f that is counted, and to its derivative where one is taken.

    What is compiled refers to the crossing, so that it is compiled once for each number of replicates, whatever f is.
    """

    def __init__(self) -> None:
        self.f: Any = None

    def value(self, x: Any) -> np.ndarray:
        """f at points `[..., *event]`."""
        return np.asarray(self.f(_to_torch(x)).detach().numpy())

    def value_and_slope(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """f and df/dx."""
        with torch.enable_grad():
            y = _to_torch(x).requires_grad_()
            fy = self.f(y)
            (df,) = torch.autograd.grad(fy.sum(), y)
        return fy.detach().numpy(), df.numpy()

    def differentiable(self, event_axes: int) -> Callable[[Any], Any]:
        """f of points with so many axes, for jax.grad and jax.vmap."""
        library = jax()

        def shapes(x: Any) -> tuple[Any, Any]:
            lead = x.shape[: x.ndim - event_axes]
            return library.ShapeDtypeStruct(lead, x.dtype), library.ShapeDtypeStruct(x.shape, x.dtype)

        def value(x: Any) -> Any:
            return library.pure_callback(self.value, shapes(x)[0], x, vmap_method="broadcast_all")

        def along(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
            (x,), (dx,) = primals, tangents
            fx, df = library.pure_callback(self.value_and_slope, shapes(x), x, vmap_method="broadcast_all")
            return fx, (df * dx).sum(tuple(range(-event_axes, 0)))

        f: Callable[[Any], Any] = library.custom_jvp(value)
        f.defjvp(along)  # type: ignore[attr-defined]
        return f


def _to_torch(x: Any) -> Tensor:
    return torch.from_numpy(np.array(x))


def gradient_by(made: Callable[[str, Callable[[Any], Any], int], Callable[[Any, Any], Any]]) -> Callable[..., Tensor]:
    """Gradients [R, *site] of the compiled `made(family, f, replicates)`, which is called with (key, theta)."""
    crossing = Crossing()

    @cache
    def compiled(family: str, event_axes: int, replicates: int) -> Any:
        return jax().jit(made(family, crossing.differentiable(event_axes), replicates))

    def gradients(theta: Tensor, q: Any, f: Any, generator: Any, replicates: int) -> Tensor:
        library, crossing.f = jax(), f
        library.config.update("jax_enable_x64", theta.dtype == torch.float64)  # globally: f is called on other threads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = library.random.key(seeded(generator))
            found = compiled(q.name, q.event_axes, replicates)(key, theta.numpy())
        return torch.from_numpy(np.array(found)).reshape(replicates, *theta.shape)

    return gradients
