"""Compile every pair's CUDA kernel to PTX, without a GPU: `python tests/gpu/ptx.py`; needs the extra `cuda`.

Every estimator that has a kernel form, on one problem of each kind that it runs on, in float64; in float32 each once. Fails where
one does not compile, or calls a function that was not inlined, other than what libdevice calls itself (pow, a large sine).
Registers, spills and stack are ptxas's, where it is found.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pairs import trials

from estimators.kernels import cuda
from estimators.kernels.tables import pair_and_tables

CAPABILITY = (9, 0)
DTYPES = ("float64", "float32")


class Line(NamedTuple):
    """size: of the PTX, in kB. local: bytes of a thread's own memory. ptxas: what it says; empty without."""

    name: str
    dtype: str
    size: float
    seconds: float
    calls: int
    local: int
    ptxas: str
    trouble: str = ""


def ptxas() -> str | None:
    """The assembler of the wheel nvidia-cuda-nvcc, or another on the path."""
    beside = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/ptxas"))
    return str(beside[0]) if beside else shutil.which("ptxas", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")


def assembled(text: str) -> str:
    """Registers, stack and spills, of the machine code for the capability."""
    program = ptxas()
    if program is None:
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        arch = f"-arch=sm_{CAPABILITY[0]}{CAPABILITY[1]}"
        found = subprocess.run([program, arch, "-v", file.name, "-o", "/dev/null"], capture_output=True, text=True)
    if found.returncode:
        return f"REFUSED {found.stderr.strip()[-200:]}"
    number = {
        what: int(re.search(rf"(\d+) {pattern}", found.stderr)[1])  # type: ignore[index]
        for what, pattern in (("registers", "registers"), ("stack", "bytes stack"), ("spilled", "bytes spill stores"))
    }
    return ", ".join(f"{n} {what}" for what, n in number.items())


def line(name: str, dtype: str, text: str, seconds: float) -> Line:
    called = re.findall(r"^\s*(?:@\S+\s+)?call[.\w]*\s+(?:\([^)]*\),\s*)?([\w$]+)", text, re.MULTILINE)
    slow = sum(name.startswith("__internal_") for name in called)
    local = sum(int(n) for n in re.findall(r"\.local .*?__local_depot\d+\[(\d+)\]", text))
    said = assembled(text) + (f", {slow} calls of libdevice's own" if slow else "")
    return Line(name, dtype, len(text) / 1024, seconds, len(called) - slow, local, said)


def compiled(job: tuple[str, str]) -> Line:
    """One pair, by its name and dtype."""
    name, dtype = job
    started = time.perf_counter()
    try:
        pair, tables = pair_and_tables(*known(dtype)[name], dtype)
        return line(name, dtype, cuda.ptx_of_pair(pair, tables, CAPABILITY), time.perf_counter() - started)
    except Exception as error:  # whatever goes wrong with one is a line of the table
        seconds = time.perf_counter() - started
        said = " ".join(str(error).split())
        return Line(name, dtype, 0.0, seconds, 0, 0, "", f"{type(error).__name__}: {said[:300]}")


_known: dict[str, dict[str, tuple]] = {}


def known(dtype: str) -> dict[str, tuple]:
    """Estimator, problem and no state, of every name; found once a process."""
    if dtype not in _known:
        _known[dtype] = {name: (trial.estimator, trial.problem, None) for name, trial in trials(dtype)}
    return _known[dtype]


def jobs() -> Iterator[tuple[str, str]]:
    estimators = set()
    for name in known("float64"):
        yield name, "float64"
        if name.partition("-")[0] not in estimators:
            estimators.add(name.partition("-")[0])
            yield name, "float32"


def main() -> int:
    wanted, only = list(jobs()), sys.argv[1:]
    wanted = [job for job in wanted if not only or any(text in job[0] for text in only)]
    started, bad = time.perf_counter(), []
    alone = [line(name, dtype, text, 0.0) for dtype in DTYPES for name, text in cuda.ptx_of_all(dtype).items()]
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:  # a fork would share LLVM's locks
        print(f"{'pair':<54} {'dtype':<8} {'PTX kB':>6} {'s':>5} {'local B':>7} {'calls':>5}  ptxas")
        for one in chain(alone, pool.map(compiled, wanted)):
            where = f"{one.name:<54} {one.dtype:<8} {one.size:6.0f} {one.seconds:5.1f} {one.local:7} {one.calls:5}"
            print(f"{where}  {one.trouble or one.ptxas}", flush=True)
            if one.trouble or one.calls or one.ptxas.startswith("REFUSED"):
                bad.append(f"{one.name} {one.dtype}")
    print(f"{len(alone) + len(wanted)} kernels in {time.perf_counter() - started:.0f} s; {len(bad)} bad {bad or ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
