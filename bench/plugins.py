"""Who can be named: the registries, the entry points of installed packages, and the dicts of plug-in files.

A member is found again by where it comes from (`Entry.origin`), so that a worker process can build what the client planned.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

from bench.errors import Broken, Refusal, one_line
from bench.selector import Value, written

KINDS = {"problem": "PROBLEMS", "estimator": "ESTIMATORS"}


@dataclass(frozen=True)
class Entry:
    """One name of the catalogue.

    origin: `built in`, the path of a plug-in file, or an entry point as `package.module:factory`.
    group: the one it is listed in, of those that are built in. lacks: the library that it needs and that is not installed.
    start: where its source begins, a module's name or a file. home: the folder that the file's own imports are looked up in.
    """

    name: str
    kind: str
    origin: str
    start: str | Path
    home: Path | None
    load: Callable[[], Callable[..., Any]]
    describe: Callable[[], tuple[str, dict[str, Value]]]
    group: str = ""
    lacks: str = ""

    def summary(self) -> str:
        """First line of the factory's docstring."""
        return self.describe()[0]

    def settings(self) -> dict[str, Value]:
        """Names of its settings, with their defaults."""
        return self.describe()[1]

    def build(self, settings: Mapping[str, Value]) -> Any:
        """The Problem or Estimator with these settings. Raises Refusal where the factory refuses them or breaks."""
        from estimators.base import Estimator
        from problems.base import Problem

        what = f"the {self.kind} {written(self.name, settings)}"
        try:
            built = self.load()(**settings)
        except Refusal:
            raise
        except ValueError as error:
            raise Refusal(one_line(error)) from error
        except Exception as error:
            raise Broken(f"{what} cannot be built: {sentence(error)}") from error
        wanted = Problem if self.kind == "problem" else Estimator
        if not isinstance(built, wanted):
            raise Broken(f"{what} cannot be built: its factory gave {type(built).__name__}, not {wanted.__name__}")
        return built


@dataclass(frozen=True)
class Catalogue:
    """Every problem and estimator that can be named."""

    problems: dict[str, Entry]
    estimators: dict[str, Entry]

    def of(self, kind: str) -> dict[str, Entry]:
        """The entries of one kind: problem or estimator."""
        return self.problems if kind == "problem" else self.estimators


def catalogue(plugins: Sequence[str] = ()) -> Catalogue:
    """The registries, then installed entry points, then plug-in files in the order given. Raises Refusal."""
    from estimators import ESTIMATORS
    from estimators.peers import PEERS, library
    from problems import PROBLEMS

    found = Catalogue({}, {})
    for kind, registry in (("problem", PROBLEMS), ("estimator", ESTIMATORS)):
        for name in registry:
            module, _ = registry.place(name)
            _add(found, _registered(name, kind, "built in", module, None, registry))
        for name in PEERS if kind == "estimator" else ():
            lacks = "" if _is_installed(library(name)) else library(name)
            peer = _registered(name, kind, "built in", PEERS.place(name)[0], None, PEERS)
            _add(found, replace(peer, lacks=lacks))
        for name, place in _entry_points(kind):
            _add(found, _installed(name, kind, place))
    for path in plugins:
        for entry in _of_file(path):
            _add(found, entry)
    return found


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _add(found: Catalogue, entry: Entry) -> None:
    entries = found.of(entry.kind)
    if entry.name in entries:
        raise Refusal(
            f"{entry.origin}: the {entry.kind} {entry.name!r} has a name that is taken ({entries[entry.name].origin});"
            " give it another"
        )
    entries[entry.name] = entry


def _registered(name: str, kind: str, origin: str, module: str, home: Path | None, registry: Any) -> Entry:
    def described() -> tuple[str, dict[str, Value]]:
        return registry.summary(name), registry.settings(name)

    return Entry(name, kind, origin, module, home, lambda: registry[name], described, registry.group(name))


def _entry_points(kind: str) -> list[tuple[str, str]]:
    from importlib.metadata import entry_points

    return sorted((point.name, point.value) for point in entry_points(group=f"bench.{KINDS[kind].lower()}"))


def _installed(name: str, kind: str, place: str) -> Entry:
    """An entry point; unlike those of the registries, its module must be imported to be described."""
    module, _, factory = place.partition(":")

    def load() -> Callable[..., Any]:
        try:
            found: Callable[..., Any] = getattr(import_module(module), factory)
        except Exception as error:
            raise Broken(f"the entry point {name} = {place} cannot be loaded: {sentence(error)}") from error
        return found

    return Entry(name, kind, place, module, _package_home(module), load, lambda: describe(name, load()))


def _package_home(module: str) -> Path | None:
    """The folder that holds the module's top-level package, nothing imported."""
    from importlib.util import find_spec

    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    return file.parent.parent if file.name == "__init__.py" else file.parent


def _of_file(path: str) -> list[Entry]:
    file = Path(path).expanduser().resolve()
    module = plugin_module(file, path)
    entries = []
    for kind, variable in KINDS.items():
        members = getattr(module, variable, {})
        if not isinstance(members, Mapping) or not all(isinstance(n, str) and callable(f) for n, f in members.items()):
            raise Refusal(f"{path}: {variable} must be a dict of names and factories")
        for name, factory in members.items():
            if not name.isidentifier():
                raise Refusal(f"{path}: {name!r} in {variable} is no name; use letters, digits and underscores")
            entries.append(Entry(name, kind, str(file), file, file.parent, _always(factory), _lazily(name, factory)))
    if not entries:
        raise Refusal(
            f"{path}: a plug-in has a dict PROBLEMS or ESTIMATORS (name -> factory), and this one has neither"
        )
    return entries


def _always(factory: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    return lambda: factory


def _lazily(name: str, factory: Callable[..., Any]) -> Callable[[], tuple[str, dict[str, Value]]]:
    return lambda: describe(name, factory)


def describe(name: str, factory: Callable[..., Any]) -> tuple[str, dict[str, Value]]:
    """First line of the docstring, and the settings with their defaults. Raises Refusal where a setting has no plain default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        raise Broken(f"the settings of {name} cannot be read: {one_line(error)}") from error
    settings: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        items = default if isinstance(default, tuple) else (default,)
        if not all(item is None or isinstance(item, bool | int | float | str) for item in items):
            what = "no default" if default is parameter.empty else f"the default {default!r}"
            raise Broken(
                f"the setting {parameter.name} of {name} has {what}; every setting of a factory needs one,"
                " a number, a text, true, false or None"
            )
        settings[parameter.name] = default
    return (inspect.getdoc(factory) or "").split("\n")[0], settings


def plugin_module(file: Path, shown: str) -> ModuleType:
    """The module of a plug-in file, imported once; its folder joins the end of the path for its own imports."""
    from importlib.util import module_from_spec, spec_from_file_location

    name = f"bench_plugin_{file.stem}_{crc32(str(file).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    if not file.is_file():
        raise Refusal(f"--plugin {shown}: there is no such file")
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Refusal(f"--plugin {shown}: a plug-in is a Python file (.py)")
    module = module_from_spec(spec)
    sys.modules[name] = module
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise Refusal(f"--plugin {shown} cannot be imported: {sentence(error, str(file))}") from error
    return module


def sentence(error: BaseException, file: str = "") -> str:
    """Type, message and the line where it was raised, in one line: what a row or a refusal says of somebody's error.

    file: the file whose line is meant; otherwise the deepest one.
    """
    text = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return text
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not file or code.co_filename == file:
            place = f" ({Path(code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return text + place
