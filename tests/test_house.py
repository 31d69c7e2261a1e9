"""The rooms of the house: who may import whom, and that nothing goes round in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import elman

PACKAGE = Path(elman.__file__).parent

ORDER = """
version errors
files folders seeds allocation nested
plots
cells
compiler
compiler.cpu
compiler.cuda
engines
layers
learning
lens
data decoding
training
networks
tasks
studies
export serve
bench
cli
"""
"""A room imports its own modules and those of the lines above it: none below it, none beside it.

``elman`` itself, which users import, hands out names of any room and stands above none.
"""

BY_CONTRACT = {"export", "serve", "cli"}
"""Rooms that know a job by its contract alone: of ``elman.tasks`` they import no file."""


TYPES_ALONE = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
IMPORTING = r"\b(import_module|__import__)$"


def modules() -> dict[str, Path]:
    """The files of the package by the name that imports them."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("elman", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """What a file imports, in functions, too: a module, or a name in one. Not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in TYPES_ALONE:
            yield from imported(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            if isinstance(node, ast.Call) and re.search(IMPORTING, ast.unparse(node.func)):
                given = (*node.args, *(keyword.value for keyword in node.keywords))
                texts = (
                    part for a in given for part in ast.walk(a) if isinstance(part, ast.Constant)
                )
                yield from (t.value.rstrip(".") for t in texts if isinstance(t.value, str))
            yield from imported(node)


@cache
def graph() -> dict[str, set[str]]:
    """By module, the modules of the package that it imports, itself aside."""
    known, found = modules(), {}
    for name, path in known.items():
        edges = set()
        for target in imported(ast.parse(path.read_text(encoding="utf-8"))):
            while target not in known and "." in target:
                target = target.rpartition(".")[0]  # a name in a module
            if target in known:
                edges.add(target)
        found[name] = edges - {name}
    return found


LINES = {room: k for k, line in enumerate(ORDER.strip().splitlines()) for room in line.split()}


def room(module: str) -> str:
    """The innermost room that a module stands in; of ``elman`` itself, none."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
    return next((name for name in names if name in LINES), parts[0] if parts else "")


def is_out_of_order(importer: str, target: str) -> bool:
    here, there = room(importer), room(target)
    if here in ("", "__main__") or here == there:
        return False
    if there == "" or LINES[there] >= LINES[here]:
        return True
    return here in BY_CONTRACT and there == "tasks" and target != "elman.tasks"


def circles() -> list[list[str]]:
    """Modules that reach each other, in groups (Tarjan, 1972)."""
    order, low, stack, found = {}, {}, [], []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in sorted(graph()[module]):
            if target not in order:
                visit(target)
            if target in stack:
                low[module] = min(low[module], low[target])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph():
        if module not in order:
            visit(module)
    return found


IMPORTS = """
if TYPE_CHECKING:
    import elman.tasks
else:
    import elman.serve
if not TYPE_CHECKING:
    import elman.cells
def later():
    from elman import data
    importlib.import_module(name="elman.layers")
    import_module(f"elman.cli.{name}")
    __import__("elman.lens")
"""


def test_imports_are_seen_however_they_are_written():
    seen = [f"elman.{name}" for name in ("serve", "cells", "data", "layers", "cli", "lens")]
    assert list(imported(ast.parse(IMPORTS))) == seen


def test_every_room_has_its_place():
    rooms = {room(module) for module in graph()} - {"", "__main__"}
    assert sorted(rooms - LINES.keys()) == []


def test_imports_point_one_way():
    imports = {(importer, target) for importer, found in graph().items() for target in found}
    assert sorted(edge for edge in imports if is_out_of_order(*edge)) == []


def test_nothing_imports_in_a_circle():
    assert circles() == []
