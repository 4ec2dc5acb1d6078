"""scikit-learn's digits with their labels: the rows of problems that classify them."""

from __future__ import annotations

import numpy as np
import torch

from problems.belief_network import digits
from problems.settings import rows_drawn

PIXELS = 64
CLASSES = 10
MOST_ROWS = 1797


def labelled_digits(rows: int) -> torch.Tensor:
    """The first `rows` digits as 64 bits, each with its label as a one-hot vector behind them: `[rows, 64 + 10]`."""
    from sklearn.datasets import load_digits

    onehot = torch.from_numpy(np.eye(CLASSES)[load_digits().target[:rows]])
    return torch.cat([digits(rows), onehot], -1)


def check_rows(problem: str, data: int, batch: int) -> None:
    """Raises ValueError where there are not so many digits, or a batch is more than there are data."""
    if not 1 <= data <= MOST_ROWS:
        raise ValueError(f"{problem}[data={data}]: data is the number of digits, 1 to {MOST_ROWS}")
    rows_drawn(problem, batch, data=data)
