"""A registry: name -> factory, whose module is imported when the factory is asked for and not before."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Registry(Mapping[str, Callable[..., Any]]):
    """A literal dict of `"module:factory"`; reading an entry imports its module. Listing imports nothing."""

    def __init__(self, places: Mapping[str, str], groups: Mapping[str, str] | None = None) -> None:
        """groups: the group that each name is listed in, where there are groups."""
        self._places = dict(places)
        self._groups = dict(groups or {})

    @classmethod
    def grouped(cls, groups: Mapping[str, Mapping[str, str]]) -> Registry:
        """A registry of `{group: {name: "module:factory"}}`. Raises ValueError where a name stands in two groups."""
        group_of = {name: group for group, places in groups.items() for name in places}
        if len(group_of) != sum(map(len, groups.values())):
            names = [name for places in groups.values() for name in places]
            raise ValueError(f"in two groups: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        return cls({name: place for places in groups.values() for name, place in places.items()}, group_of)

    def group(self, name: str) -> str:
        """The group that a name is listed in; empty where there are none."""
        return self._groups.get(name, "")

    def __getitem__(self, name: str) -> Callable[..., Any]:
        module, factory = self._places[name].split(":")
        found: Callable[..., Any] = getattr(import_module(module), factory)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def place(self, name: str) -> tuple[str, str]:
        """Module and factory of an entry, without importing it."""
        module, factory = self._places[name].split(":")
        return module, factory

    def summary(self, name: str) -> str:
        """First line of the factory's docstring and nothing imported: the file is read as text."""
        module, factory = self.place(name)
        for node in _parsed(module).body:
            if isinstance(node, ast.FunctionDef) and node.name == factory:
                return (ast.get_docstring(node) or "").split("\n")[0]
        raise KeyError(f"{module} has no factory {factory!r}")

    def settings(self, name: str) -> dict[str, Any]:
        """Settings of the factory with their defaults, nothing imported."""
        module, factory = self.place(name)
        for node in _parsed(module).body:
            if isinstance(node, ast.FunctionDef) and node.name == factory:
                given = [*node.args.defaults, *[d for d in node.args.kw_defaults if d is not None]]
                named = [*node.args.args, *node.args.kwonlyargs]
                return {a.arg: ast.literal_eval(d) for a, d in zip(named, given, strict=True)}
        raise KeyError(f"{module} has no factory {factory!r}")


_SEEN: dict[str, ast.Module] = {}


def _parsed(module: str) -> ast.Module:
    if module not in _SEEN:
        package, _, leaf = module.rpartition(".")
        root = find_spec(package)  # of the package only: finding a submodule would import nothing but its parents
        assert root is not None
        assert root.submodule_search_locations
        path = Path(next(iter(root.submodule_search_locations))) / f"{leaf}.py"
        _SEEN[module] = ast.parse(path.read_text("utf-8"))
    return _SEEN[module]
