"""What a step reads beside tensors: options of its cell and of its classes, and global names.

A compiled step has their values in it. :class:`Reading` holds them as they are, tells whether they
still are, and gives a key that two cells share whose steps read the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping
from types import FunctionType
from typing import Any

from torch import nn

from elman.cells.names import IMPLICIT, Members, Parts, found_by, functions_of, is_ours, reachable
from elman.cells.values import (
    INTERNAL,
    Same,
    Unkeyable,
    classes,
    copied,
    frozen,
    is_simple,
    observed,
)


class Memos(dict[Any, Any]):
    """What engines know of a cell, by mode and types; a new one where an option was set."""

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__  # type: ignore[assignment]


class Reading:
    """What the step of a cell reads beside its tensors, as it is at this moment.

    Attributes:
        key: what decides how the step computes, or None where that cannot be told.
    """

    def __init__(self, cell: nn.Module, until: type):
        own = vars(cell)
        own.setdefault("_memo", Memos())
        self._own = {name: copied(value) for name, value in own.items()}
        self._alike: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
        self._deep: list[tuple[Mapping[str, Any], str, Hashable]] = []
        self._found: list[tuple[Mapping[str, Any], str, Any]] = []
        self._keyable, self._seen = True, set[int]()
        self._read: list[Hashable] = []  # what functions read outside, for the key
        parts: list[Hashable] = []
        for name, value in sorted(own.items()):
            if name not in INTERNAL:
                parts.append((name, self._part(own, name, value)))
        if own["_modules"]:
            parts.append(self._part(own, "_modules", own["_modules"]))
        kinds = list(itertools.takewhile(lambda kind: kind is not until, type(cell).__mro__))
        kinds = [kind for kind in kinds if not is_ours(kind.__module__)]
        reached = reachable(kinds)
        for kind in kinds:
            parts += self._of_class(kind, reached)
        self._follow_objects(reached)
        parts += self._read
        self.key: Hashable | None = tuple(parts) if self._keyable else None

    def _of_class(self, kind: type, reached: set[str]) -> Iterator[Hashable]:
        members = vars(kind)
        self._alike.append((members, {name: copied(value) for name, value in members.items()}))
        for name, value in members.items():
            functions = functions_of(value)
            for function in functions if name in reached else ():
                yield name, self._part(None, name, function)
                self._follow(function)
            if not functions and name[:2] != "__" and not hasattr(value, "__set_name__"):
                yield name, self._part(members, name, value)

    def _follow_objects(self, names: set[str]) -> None:
        """Watch the methods of these names of the objects that are read, and what they read."""
        seen, done = set[int](), 0
        while done < len(self._deep):
            place, name, _ = self._deep[done]
            done += 1
            for kind in classes(place[name], seen):
                members = Members(kind)
                for method in members:
                    function = members[method]
                    if isinstance(function, FunctionType) and method in names | IMPLICIT:
                        self._read.append((method, self._part(None, method, function)))
                        self._found.append((members, method, function))
                        self._follow(function)

    def _follow(self, function: FunctionType) -> None:
        """Watch what a function reads outside, and what the functions that it finds there read."""
        if id(function.__code__) in self._seen or is_ours(function.__module__):
            return
        self._seen.add(id(function.__code__))
        own = Parts(function)
        self._found.append((own, "__code__", own["__code__"]))
        for place, name, value in found_by(function):
            self._read.append((name, self._part(place, name, value)))
            simple = is_simple(value)
            self._found.append((place, name, copied(value) if simple else value))

    def _part(self, place: Mapping[str, Any] | None, name: str, value: Any) -> Hashable:
        """The value as a part of the key; one that may change within is watched."""
        part: Hashable = None
        try:
            part = frozen(value)
        except Unkeyable:
            self._keyable = False
        if place is None or is_simple(value):
            return part
        if isinstance(value, FunctionType):
            self._follow(value)
        elif not isinstance(seen := observed(value), Same):
            self._deep.append((place, name, seen))
        return part

    def holds(self, cell: nn.Module) -> bool:
        """Whether it still is what ``cell`` reads."""
        own = vars(cell)
        try:
            if own != self._own:
                return False
            for members, before in self._alike:
                if members != before:
                    return False
            for place, name, value in self._found:
                if place[name] is not value and place[name] != value:
                    return False
            if self._deep:
                return all(observed(place[name]) == part for place, name, part in self._deep)
        except (Unkeyable, KeyError, ValueError, TypeError, RuntimeError):
            return False  # gone, or without an answer to whether it is the same
        return True


def is_mutable(name: str, value: Any) -> bool:
    """Whether an attribute is an option that may change in place, made of plain values."""
    return name not in INTERNAL and type(value) in (list, dict) and is_simple(value)
