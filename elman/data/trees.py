"""Trees in brackets, a line each: ``(3 (2 It) (4 works))``, as in the Stanford treebank."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from elman.data.place import Place
from elman.data.utf8 import read_lines
from elman.errors import ElmanError, brief

# Only ASCII spaces separate: words such as "2 1/2" hold a no-break space.
_TOKEN = re.compile(r"[()]|[^() \t]+")
# What the Penn Treebank writes for marks that have a meaning in its trees.
_MARKS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


class Node(NamedTuple):
    """A node of a tree.

    Attributes:
        label: what stands at it.
        children: the nodes below it, in order; none at a leaf.
        word: a leaf's; "" elsewhere.
    """

    label: str
    children: tuple[Node, ...] = ()
    word: str = ""

    def nodes(self) -> Iterator[Node]:
        """Yield this node and all below it, each before its children."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)

    def words(self) -> tuple[str, ...]:
        """The words below this node, in order."""
        return tuple(node.word for node in self.nodes() if node.word)


class Tree(NamedTuple):
    """A tree's root and where it was read."""

    root: Node
    place: Place


def read_trees(path: Path, name: str) -> Iterator[Tree]:
    r"""Read a tree a line; ``-LRB-`` becomes ``(`` again, and ``\/`` a slash.

    Raises:
        ElmanError: a line is no tree.
    """
    for number, line in read_lines(path, name):
        if line.strip(" \t"):
            place = Place(name, number)
            yield Tree(_parsed(line, place), place)


def _parsed(line: str, place: Place) -> Node:
    # A stack and no recursion: a tree may be as deep as its sentence is long.
    open_: list[tuple[str, list[Node], list[str]]] = [("", [], [])]
    tokens = iter(_TOKEN.findall(line))
    for token in tokens:
        if token == "(":
            label = next(tokens, "")
            if label in ("", "(", ")"):
                raise _no_tree(line, place, "a bracket opens without a label")
            open_.append((label, [], []))
        elif token == ")":
            label, children, words = open_.pop()
            if not open_:
                raise _no_tree(line, place, "a bracket closes that was not open")
            if len(words) + bool(children) != 1:
                raise _no_tree(line, place, f"{brief(label)} has neither children nor one word")
            word = words[0] if words else ""
            open_[-1][1].append(Node(label, tuple(children), word))
        else:
            open_[-1][2].append(_MARKS.get(token, token.replace("\\/", "/").replace("\\*", "*")))
    label, roots, words = open_[-1]
    if len(open_) > 1:
        raise _no_tree(line, place, f"{len(open_) - 1:,} brackets are not closed")
    if words or len(roots) != 1:
        raise _no_tree(line, place, "there is not one root")
    return roots[0]


def _no_tree(line: str, place: Place, why: str) -> ElmanError:
    return ElmanError(
        f"{place}: received {brief(line)}, expected a tree such as (3 (2 It) (4 works)): {why}."
    )
