"""What the tests of problems share: derivatives of an objective computed by another route."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def differences() -> Callable[..., Tensor]:
    """`differences(L, at)`: the gradient `[P]` of L, a function of a list of floats, by central differences.

    Truncation is step^2 of the third derivative and rounding 1e-16 / step of L: about 1e-9 for the L of these tests.
    """

    def gradient(L: Callable[[list[float]], float], at: Sequence[float], step: float = 1e-5) -> Tensor:
        found = []
        for i in range(len(at)):
            up, down = list(at), list(at)
            up[i] += step
            down[i] -= step
            found.append((L(up) - L(down)) / (2 * step))
        return torch.tensor(found, dtype=torch.float64)

    return gradient
