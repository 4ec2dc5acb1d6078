"""A torch.nn.Module as a function of one flat vector of weights: how a user's own network becomes a part of a Problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
COUNTING = (nn.modules.batchnorm._BatchNorm,)


def functional(module: nn.Module) -> tuple[Tensor, Callable[..., Any]]:
    """The module's weights `[P]` in float64, and `call(weights, *inputs)`: the module at any other weights.

    The weights are the trainable parameters, in the order of `module.named_parameters()`, one that is shared counted once; what
    does not require a gradient, and buffers, stay what they are. `call` computes in the dtype and on the device of the weights,
    under vmap and grad too, as far as torch can map the module (its GRU and LSTM it cannot). The module is not changed, and no
    later change of its numbers is seen.

        theta, encoder = functional(nn.Linear(64, 8))
        encoder(theta, torch.zeros(5, 64, dtype=theta.dtype))    # [5, 8]

    Raises ValueError where the module has no trainable parameter, or draws or counts as it is called (dropout or batch
    normalisation in training mode): f would not be a function. `module.eval()` sees to that.
    """
    _check(module)
    trained = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    fixed = {name: t.detach().clone() for name, t in _others(module, trained).items()}
    sizes = [p.numel() for p in trained.values()]
    weights = torch.cat([p.reshape(-1) for p in trained.values()]).double().cpu()

    def call(weights: Tensor, *inputs: Any) -> Any:
        pieces = torch.split(weights, sizes, -1)
        state = {name: w.reshape(p.shape) for (name, p), w in zip(trained.items(), pieces, strict=True)}
        state |= {name: _alike(t, weights) for name, t in fixed.items()}
        return torch.func.functional_call(module, state, inputs)

    return weights, call


def _check(module: nn.Module) -> None:
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ValueError(f"{module!r} is no torch.nn.Module")
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError(f"{kind} has no trainable parameter")
    for name, part in module.named_modules():
        if part.training and isinstance(part, (*RANDOM, *COUNTING)):
            does = "draws at random" if isinstance(part, RANDOM) else "counts what it sees"
            raise ValueError(
                f"{name or kind} ({type(part).__name__}) {does} in training mode, so that f would be no function; "
                "call .eval() on the module first"
            )


def _others(module: nn.Module, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Buffers, and the parameters that are not trained."""
    rest = {name: p for name, p in module.named_parameters() if name not in trained}
    return rest | dict(module.named_buffers())


def _alike(t: Tensor, weights: Tensor) -> Tensor:
    return t.to(weights) if t.is_floating_point() else t.to(weights.device)
