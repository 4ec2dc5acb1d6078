"""What this machine is and how well it keeps time: what to look at first when two runs disagree."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata

LIBRARIES = ("torch", "numba", "numpy", "scipy", "pandas", "pyarrow", "seaborn", "matplotlib", "msgspec")


@dataclass(frozen=True)
class Machine:
    """Versions and hardware. noise_floor: half-width of the 95% interval of the log ratio of a computation's time to itself."""

    version: str
    python: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    torch_threads: int
    simd: str
    gpu: str
    libraries: dict[str, str]
    noise_floor: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def machine() -> Machine:
    """This machine, without timing anything."""
    import torch

    return Machine(
        version=_version("gradient-estimator-bench"),
        python=sys.version.split()[0],
        system=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory(),
        torch_threads=torch.get_num_threads(),
        simd=torch.backends.cpu.get_cpu_capability(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        libraries={name: _version(name) for name in LIBRARIES},
    )


def examine(rounds: int = 31) -> Machine:
    """This machine, and the noise floor of its clock: the yardstick of a toy problem timed against itself."""
    from dataclasses import replace

    from bench.measure import pinned
    from bench.timing import time_together
    from estimators.score_function import reinforce
    from problems.bernoulli_toy import bernoulli_toy

    with pinned(1):
        timing = time_together([(reinforce(), bernoulli_toy())], rounds=rounds)[0]
    return replace(machine(), noise_floor=timing.noise_floor())


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
