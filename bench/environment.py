"""What a number was made on, found without importing anything heavy: machine, versions, and the commit of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTION = "gradient-estimator-bench"
LIBRARIES = ("torch", "numba", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "msgspec")


@lru_cache(maxsize=1)
def machine() -> dict[str, Any]:
    """What times depend on: they are compared within one machine only."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of this program, Python, and the libraries that compute."""
    return {
        "bench": _version(DISTRIBUTION),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }


def commit() -> tuple[str | None, bool | None]:
    """Commit of the source that runs, and whether it was changed since; None where it is in no repository of its own."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    found = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20)
    return found.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
