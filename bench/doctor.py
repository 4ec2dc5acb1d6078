"""What this machine is and how well it keeps time: what to look at first when two runs disagree."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace

from bench import environment


@dataclass(frozen=True)
class Machine:
    """Versions and hardware. noise_floor: half-width of the 95% interval of the log ratio of a computation's time to itself."""

    system: str
    processor: str
    cores: int
    memory_bytes: int
    torch_threads: int
    simd: str
    gpu: str
    versions: dict[str, str]
    noise_floor: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def machine() -> Machine:
    """This machine, without timing anything."""
    import torch

    known = environment.machine()
    return Machine(
        system=known["system"],
        processor=known["processor"],
        cores=known["cores"],
        memory_bytes=_memory(),
        torch_threads=torch.get_num_threads(),
        simd=torch.backends.cpu.get_cpu_capability(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        versions=environment.versions(),
    )


def examine(rounds: int = 31) -> Machine:
    """This machine, and the noise floor of its clock: the yardstick of a toy problem timed against itself."""
    from bench.measure import pinned
    from bench.timing import time_together
    from estimators.score_function import reinforce
    from problems.bernoulli_toy import bernoulli_toy

    with pinned(1):
        timing = time_together([(reinforce(), bernoulli_toy())], rounds=rounds)[0]
    return replace(machine(), noise_floor=timing.noise_floor())


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
