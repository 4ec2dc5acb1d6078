"""Where a pair runs: a device that is not there is refused in a sentence, and so is a back end of another device."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from bench.evaluate import Mismatch, prepare
from bench.kernels import why_no_kernel
from bench.measure import observe
from estimators import ESTIMATORS
from estimators.kernels.cuda import why_unusable
from problems import PROBLEMS

no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


@no_device
def test_a_run_on_a_device_that_is_not_there_is_refused() -> None:
    command = [sys.executable, "-m", "bench", "run", "smoke", "--device", "cuda"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.strip() == "error: --device cuda: torch sees no CUDA devices here"


@no_device
def test_kernels_say_what_is_missing_on_a_cuda_device() -> None:
    trial = prepare(ESTIMATORS["reinforce"](), PROBLEMS["bernoulli_toy"]())
    why = why_no_kernel(replace(trial, device=torch.device("cuda")))
    assert (
        why
        == why_unusable()
        in (
            "numba-cuda is not installed: pip install -e '.[cuda]'",
            "numba sees no CUDA device",
        )
    )


def test_a_back_end_of_another_device_is_refused() -> None:
    with pytest.raises(Mismatch, match="cuda kernels run on device cuda, not on cpu"):
        observe(ESTIMATORS["reinforce"](), PROBLEMS["bernoulli_toy"](), backend="cuda")
