"""Generated modules on disk, numba's cache beside each, in folders named by a hash of all that the machine code depends on.

The folder is the user's own cache folder, or the one named by GRADIENT_BENCH_CACHE. It is kept below LIMIT bytes: the folders used
longest ago go first, but none that was used within KEPT seconds, which another process may be loading.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "GRADIENT_BENCH_CACHE"
LIMIT = 256 * 2**20
KEPT = 3600.0

_loaded: dict[str, ModuleType] = {}
_loading = threading.RLock()
_unnamed = itertools.count()


def directory() -> Path:
    """Where generated modules are kept."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "gradient-estimator-bench" / "kernels"


def module(text: str, identity: str | None, known: Callable[[], Mapping[str, Any]]) -> ModuleType:
    """The module of source `text`, in which `known()` is defined before it runs.

    identity: all that `known` stands for; None: nothing says it, so the module is compiled anew and kept by its caller alone.
    """
    if identity is None:
        return _run(text.replace("cache=True, ", ""), "<kernel>", f"kernel_{next(_unnamed)}", known())
    name = "kernel_" + _hash(text, identity)
    with _loading:
        if name not in _loaded:
            _loaded[name] = _from_disk(text, name, known())
        return _loaded[name]


def _hash(text: str, identity: str) -> str:
    parts = [text, identity, platform.python_version(), *(version(p) for p in ("numba", "llvmlite", "numpy"))]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


def _from_disk(text: str, name: str, known: Mapping[str, Any]) -> ModuleType:
    try:
        file = _written(text, directory() / name, name)
    except OSError:  # nowhere to write: compiled for this process alone
        return _run(text.replace("cache=True, ", ""), "<kernel>", name, known)
    return _run(text, str(file), name, known)


def _written(text: str, folder: Path, name: str) -> Path:
    """The file of the text; whole at any time, and the same bytes and date whoever of several processes wrote it last."""
    file = folder / f"{name}.py"
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.utime(draft, (0, 0))
        os.replace(draft, file)
        trim(folder.parent)
    os.utime(folder)
    return file


def _run(text: str, file: str, name: str, known: Mapping[str, Any]) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(known, __file__=file)
    sys.modules[name] = made  # numba finds a function's globals by the name of its module
    exec(compile(text, file, "exec"), made.__dict__)
    return made


def trim(home: Path, limit: int = LIMIT, kept: float = KEPT) -> None:
    """Remove the folders used longest ago until the rest is within the limit."""
    used = []
    for folder in home.glob("kernel_*"):
        try:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            used.append((folder.stat().st_mtime, size, folder))
        except OSError:  # another process removed it meanwhile
            continue
    total = sum(size for _, size, _ in used)
    for last, size, folder in sorted(used):
        if total <= limit or last > time.time() - kept:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
