"""Which of our files a number depends on, and their digests: found by reading imports, nothing imported.

The closure starts at the file of a factory and follows imports, also those inside functions and those written as a text
`module:name`, among our packages and a plug-in's own folder. The three packages' `__init__` files only register members: a name
imported from one stands for the module that it comes from. Imports for type checkers only are left out.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("problems", "estimators", "bench")
HARNESS = (
    "bench.evaluate",
    "bench.moments",
    "bench.outcome",
    "bench.subsampling",
    "estimators.noise",
    "problems.truth",
)
KERNELS, RUNS_KERNELS = "estimators/kernels/", "bench.kernels"
ALONE = ("bench.measure",)  # it measures and it reads statistics; only the file itself touches the sums

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def harness() -> dict[str, Path]:
    """The files that make the numbers of every cell."""
    found = closure(HARNESS)
    for module in ALONE:
        file = locate(module, None)
        assert file is not None
        found[_title(file, None)] = file
    return found


def closure(starts: Iterable[str | Path], home: Path | None = None) -> dict[str, Path]:
    """Every file that these modules or files import, themselves included: title -> path. home: see `bench.plugins.Entry`."""
    waiting: list[Path] = []
    for start in starts:
        file = start if isinstance(start, Path) else locate(start, home)
        if file is not None:
            waiting.append(file)
    found: dict[str, Path] = {}
    while waiting:
        file = waiting.pop()
        title = _title(file, home)
        if title in found:
            continue
        found[title] = file
        for module in imported(file, _package_of(file, home)):
            further = locate(module, home)
            if further is not None and not _registers(further):
                waiting.append(further)
    return found


def member(start: str | Path, home: Path | None) -> dict[str, Path]:
    """The closure of a member's file; with who runs kernels, where it has one."""
    found = closure([start], home)
    return found | closure([RUNS_KERNELS]) if any(title.startswith(KERNELS) for title in found) else found


def data_files(problem: str) -> dict[str, Path]:
    """Points and references stored for a built-in problem."""
    root = _root("problems")
    files = [root / folder / f"{problem}.json" for folder in ("points", "references")]
    return {_title(file, None): file for file in files if file.exists()}


def digests(files: dict[str, Path]) -> dict[str, str]:
    """Title -> digest of the content, sorted."""
    return {title: digest(files[title]) for title in sorted(files)}


def digest(file: Path) -> str:
    """Digest of a file's content, read again only where size or time have changed."""
    stat = file.stat()
    return _digest(file, stat.st_mtime_ns, stat.st_size)


@cache
def _digest(file: Path, _changed: int, _size: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@cache
def _root(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _registers(file: Path) -> bool:
    return file.name == "__init__.py" and file.parent in {_root(package) for package in PACKAGES}


def locate(module: str, home: Path | None) -> Path | None:
    """The file of a module of ours, or of one in the home folder; None for everybody else's."""
    top, *rest = module.split(".")
    if top in PACKAGES:
        base = _root(top).joinpath(*rest)
    elif home is not None:
        base = home.joinpath(top, *rest)
    else:
        return None
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _title(file: Path, home: Path | None) -> str:
    """How a file is named in a cell's identity: from the package's name on, or from the plug-in's folder on."""
    for package in PACKAGES:
        root = _root(package)
        if file.is_relative_to(root):
            return f"{package}/{file.relative_to(root).as_posix()}"
    return file.relative_to(home).as_posix() if home is not None and file.is_relative_to(home) else file.name


def _package_of(file: Path, home: Path | None) -> str:
    """Dotted name of the package that a file is in, for its relative imports."""
    title = Path(_title(file, home))
    return ".".join(title.parent.parts)


def imported(file: Path, package: str) -> list[str]:
    """Modules that a file imports, wherever in it; `from package import name` gives `package.name` where that is a module."""
    stat = file.stat()
    return _imported(file, package, stat.st_mtime_ns, stat.st_size)


@cache
def _imported(file: Path, package: str, _changed: int, _size: int) -> list[str]:
    try:
        tree = ast.parse(file.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    found: list[str] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                found += _named(base, alias.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _PLACE.fullmatch(node.value):
            found.append(node.value.partition(":")[0])
    return found


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from _statements(other)
            continue
        yield node
        yield from _statements(node)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _named(base: str, name: str) -> list[str]:
    """The modules behind `from base import name`."""
    if base in PACKAGES:
        homes = _homes(base)
        if name == "*":
            return sorted(set(homes.values()))
        return [homes.get(name, f"{base}.{name}")]
    return [base, f"{base}.{name}"]


@cache
def _homes(package: str) -> dict[str, str]:
    """Name -> module that it comes from, as the package's `__init__` declares in `_HOMES`; read as text."""
    for node in ast.parse((_root(package) / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOMES":
            homes: dict[str, list[str]] = ast.literal_eval(node.value)
            return {name: module for module, names in homes.items() for name in names}
    return {}
