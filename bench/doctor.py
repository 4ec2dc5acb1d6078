"""What this machine is, how well it keeps time, and how near the kernels come to what it can do at most.

It is what to look at first when two runs disagree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import environment

if TYPE_CHECKING:
    from rich.table import Table

    from bench.ceilings import Ceilings

VECTORS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"), ("sve", "SVE"), ("neon", "NEON"), ("sse2", "SSE2"))
KERNELS: tuple[tuple[str, dict[str, Any], str, dict[str, Any]], ...] = (
    ("reinforce", {}, "bernoulli_toy", {"dim": 200}),
    ("rloo", {"samples": 4}, "bernoulli_toy", {"dim": 200}),
    ("disarm", {}, "bernoulli_toy", {"dim": 200}),
    ("reinforce", {}, "gaussian_cost", {}),
)
NUMBERS_AT_ONCE = 2**20  # in one timed call of a kernel, about: milliseconds, so that some round is not interrupted
ROUNDS = 30


@dataclass(frozen=True)
class Rate:
    """A kernel on one thread: millions of replicates a second, and as a share of what its random numbers alone would allow."""

    pair: str
    rate: float
    share: float


@dataclass(frozen=True)
class Cache:
    """The folder of compiled kernels; it is kept below `limit` bytes."""

    folder: str
    kernels: int
    bytes: int
    limit: int


@dataclass(frozen=True)
class Machine:
    """Versions and hardware. noise_floor: half-width of the 95% interval of the log ratio of a computation's time to itself.

    simd: of torch. vectors: of the kernels, with the processor that they are compiled for. ceilings: millions of random numbers a
    second on one thread.
    """

    system: str
    processor: str
    cores: int
    memory_bytes: int
    torch_threads: int
    simd: str
    vectors: str
    gpu: str
    versions: dict[str, str]
    cache: Cache
    noise_floor: float | None = None
    ceilings: Ceilings | None = None
    kernels: tuple[Rate, ...] = ()

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
        vectors=_vectors(),
        gpu=_gpu(),
        versions=environment.versions(),
        cache=_cache(),
    )


def examine(rounds: int = 31) -> Machine:
    """This machine, the noise floor of its clock (the yardstick of a toy problem timed against itself), and its rates."""
    from bench.ceilings import ceilings
    from bench.measure import pinned
    from bench.timing import time_together
    from estimators.score_function import reinforce
    from problems.bernoulli_toy import bernoulli_toy

    with pinned(1):
        timing = time_together([(reinforce(), bernoulli_toy())], rounds=rounds)[0]
        most = ceilings()
        rates = tuple(kernel_rates(most))
    return replace(machine(), noise_floor=timing.noise_floor(), ceilings=most, kernels=rates)


def kernel_rates(most: Ceilings) -> Iterator[Rate]:
    """Of KERNELS, sums and all, in float64; of the fastest round, as the ceilings are."""
    import numpy as np

    from bench.ceilings import numbers_read
    from bench.evaluate import prepare
    from bench.kernels import block_sums_by_kernel, kernel_for
    from estimators import ESTIMATORS
    from estimators.kernels.cpu import CHUNK
    from problems import PROBLEMS

    for estimator, e_settings, problem, p_settings in KERNELS:
        trial = prepare(ESTIMATORS[estimator](**e_settings), PROBLEMS[problem](**p_settings))
        kernel, read = kernel_for(trial), numbers_read(trial)
        if kernel is None:
            continue
        chunks = max(1, NUMBERS_AT_ONCE // ((read.words + read.normals + trial.dim) * CHUNK))
        replicates, nothing = range(chunks * CHUNK), np.zeros(trial.dim)
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            block_sums_by_kernel(kernel, nothing, nothing, 1.0, replicates)
            seconds.append(time.perf_counter() - started)
        rate = len(replicates) / min(seconds) / 1e6
        settings = ",".join(f"{k}={v}" for k, v in {**e_settings, **p_settings}.items())
        name = f"{estimator} on {problem}" + (f" [{settings}]" if settings else "")
        yield Rate(name, rate, rate / most.replicates(read, "float64"))


def table(found: Machine) -> Table:
    """What `bench doctor` prints."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, show_header=False, padding=(0, 2, 0, 0))
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, text in _rows(found):
        shown.add_row(Text(name), Text(text))
    return shown


def _rows(found: Machine) -> Iterator[tuple[str, str]]:
    """Names and texts, units with every number."""
    yield "system", found.system
    yield "processor", f"{found.processor}, {found.cores} cores, {found.memory_bytes / 2**30:.1f} GiB"
    yield "vectors", f"kernels: {found.vectors}; torch: {found.simd}, {found.torch_threads} threads"
    yield "GPU", found.gpu
    yield "versions", ", ".join(f"{name} {version}" for name, version in found.versions.items())
    if found.noise_floor is not None:
        yield "noise floor", f"{found.noise_floor:.2%}: two times nearer to each other than that are the same"
    if found.ceilings is not None:
        yield "Philox", f"{found.ceilings.words:.0f} M words/s on one thread"
        normals = ", ".join(f"{rate:.0f} M/s in {dtype}" for dtype, rate in found.ceilings.normals.items())
        yield "Box-Muller", f"normals: {normals}, on one thread"
    for kernel in found.kernels:
        yield (
            f"  {kernel.pair}",
            f"{kernel.rate:.3g} M replicates/s, {kernel.share:.0%} of what its random numbers allow",
        )
    cache = found.cache
    size = f"{cache.kernels} kernels, {cache.bytes / 2**20:.1f} of at most {cache.limit / 2**20:.0f} MiB"
    yield "kernel cache", f"{cache.folder}: {size}"


def _vectors() -> str:
    """The widest vectors that the processor has, and its name, as LLVM sees them."""
    from llvmlite import binding

    features: Mapping[str, bool] = binding.get_host_cpu_features()
    widest = next((name for feature, name in VECTORS if features.get(feature)), "none known")
    return f"{widest} ({binding.get_host_cpu_name()})"


def _gpu() -> str:
    """The name of the GPU, by torch or else by numba; or none."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    try:
        from numba import cuda

        if cuda.is_available():  # type: ignore[no-untyped-call]
            name = cuda.get_current_device().name  # type: ignore[no-untyped-call]
            return name.decode() if isinstance(name, bytes) else str(name)
    except Exception:  # a driver that is there and does not work: whatever it raises, there is no GPU to compute on
        return "none that works"
    return "none"


def _cache() -> Cache:
    from estimators.kernels.cache import LIMIT, directory

    home = directory()
    folders = list(home.glob("kernel_*"))
    used = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    return Cache(str(home), len(folders), used, LIMIT)


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
