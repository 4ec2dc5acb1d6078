"""Binary trees whose leaves are the categories of a site, laid end to end."""

from __future__ import annotations

from typing import NamedTuple


class Node(NamedTuple):
    """The leaves from `first` to `middle` are on its left, those from `middle` to `last` on its right; neither end counts."""

    first: int
    middle: int
    last: int


def stick(C: int) -> list[Node]:
    """Node i parts leaf i from those after it."""
    return [Node(i, i + 1, C) for i in range(C - 1)]


def balanced(C: int) -> list[Node]:
    """Every node halves its leaves; parents come before their children."""
    found, spans = [], [(0, C)]
    for first, last in spans:
        if last - first > 1:
            node = Node(first, (first + last) // 2, last)
            found.append(node)
            spans += [(first, node.middle), (node.middle, last)]
    return found
