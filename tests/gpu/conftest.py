"""What needs a CUDA device: skipped, with the reason, where there is none. `tests/gpu/run` runs it and fails instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from estimators.kernels.cuda import why_unusable

    why = why_unusable() if torch.cuda.is_available() else "no CUDA device"
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))
