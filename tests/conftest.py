"""Kernels compiled by the tests, and by what they start, are kept in a folder of the session's own, all processes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from estimators.kernels import cache


@pytest.fixture(scope="session", autouse=True)
def kernel_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Path]:
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "kernels"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.VARIABLE, str(folder))
        yield folder
