"""The support of a finite family laid out beside the noise, and points drawn of it without replacement.

Shared by the estimators that enumerate the joint states: `exact`, `sum_and_sample`, `unordered_set` and the like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from estimators.base import Ask, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def spread(support: Tensor, axes: int) -> Tensor:
    """The S points of the support, with `axes` axes for replicates and data: `[S, 1, ..., *event]`."""
    return support.reshape(len(support), *[1] * axes, *support.shape[1:])


def listed(q: Family, axes: int) -> tuple[Tensor, Tensor]:
    """The support, and log q of its S points in the last axis: `[S, *event]`, `[(R,) (B,) S]` of `axes` axes before S."""
    support = q.support()
    return support, q.log_prob(spread(support, axes)).movedim(0, -1)


def first(log_q: Tensor, gumbels: Tensor, k: int) -> Tensor:
    """The Gumbel-top-k trick: places in the support of k points drawn without replacement, `[..., k]`, the first drawn first."""
    return (log_q + gumbels).topk(k, -1).indices


def log_rest(log_q: Tensor, places: Tensor) -> Tensor:
    """log of the mass that is left when the points at `places` are gone; -inf where nothing is. `[..., S], [..., k] -> [...]`."""
    return log_q.scatter(-1, places, -float("inf")).logsumexp(-1)


def gumbels(size: Size) -> list[Noise]:
    """A Gumbel variable for each state."""
    assert size.states is not None
    return [Noise("gumbel", (), (size.states,))]


def different(name: str, samples: int) -> Callable[[Size], list[Ask]]:
    """f at `samples` points that all differ. Raises ValueError where there are not so many."""

    def points(size: Size) -> list[Ask]:
        if size.states is not None and size.states < samples:
            raise ValueError(f"{name} draws {samples} different states; there are {size.states}")
        return [Ask.VALUE] * samples

    return points


def check_states(name: str, samples: int, states: int) -> None:
    """Raises ValueError where the largest support to enumerate holds fewer points than are drawn of it."""
    if states < samples:
        raise ValueError(f"{name}[states={states}]: fewer states than the {samples} samples to be drawn of them")
