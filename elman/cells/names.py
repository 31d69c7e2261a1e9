"""Which names the code of a function finds outside itself, and where."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_OURS = ("torch", "elman", "numpy", "math", "builtins")

IMPLICIT = frozenset({"__init__", "__call__", "forward", "backward", "setup_context"})
"""The methods that nobody need name: those of an ``autograd.Function``, for one."""

STEPS = frozenset({"step", "forward", "coefficients", "output", "product"})
"""The methods that an engine calls."""


def found_by(function: FunctionType) -> Iterator[tuple[Mapping[str, Any], str, Any]]:
    """Where, under which name and what a function reads that is neither given nor a library's."""
    names = sorted(_names(function.__code__))
    places: list[tuple[Mapping[str, Any], list[str]]] = [(function.__globals__, names)]
    if function.__closure__:
        closure = _Closure(function)
        places.append((closure, sorted(closure)))
    if function.__defaults__ or function.__kwdefaults__:
        own = Parts(function)
        yield from ((own, name, own[name]) for name in own if name != "__code__")
    for place, read in places:
        for name in read:
            if name not in place:
                continue
            value = place[name]
            if isinstance(value, ModuleType):
                if not is_ours(value.__name__):
                    places.append((vars(value), names))
            elif isinstance(value, type):
                yield from _members_found(value, names)
            elif not isinstance(value, BuiltinFunctionType) and not (
                isinstance(value, FunctionType) and is_ours(value.__module__)
            ):
                yield place, name, value


def _members_found(kind: type, names: Iterable[str]) -> Iterator[tuple[Members, str, Any]]:
    """What a function that speaks of a class, and has these names in it, may come to there."""
    kinds = [k for k in kind.__mro__ if not is_library(k.__module__)]
    reached = reachable(kinds, IMPLICIT.union(names))
    for each in kinds:
        members = Members(each)
        for name in members:
            if name in reached and not hasattr(members[name], "__set_name__"):
                yield members, name, members[name]


def reachable(kinds: list[type], begin: Iterable[str] = STEPS) -> set[str]:
    """The names of the members that those called ``begin`` may come to, by the names in code."""
    codes = [
        (name, function.__code__)
        for kind in kinds
        for name, member in vars(kind).items()
        for function in functions_of(member)
    ]
    reached, size = set(begin), 0
    while len(reached) > size:
        size = len(reached)
        reached.update(*(_names(code) for name, code in codes if name in reached))
    return reached


def functions_of(member: Any) -> list[FunctionType]:
    """The functions that a member of a class is made of."""
    if isinstance(member, property):
        parts: list[Any] = [member.fget]
    elif isinstance(member, functools.cached_property):
        parts = [member.func]
    else:
        parts = [getattr(member, "__func__", member)]
    return [p for p in parts if isinstance(p, FunctionType)]


def _names(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))


class Parts(Mapping[str, Any]):
    """What a function has of its own, which can be exchanged: by name."""

    def __init__(self, function: FunctionType):
        self._function = function

    def __getitem__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __iter__(self) -> Iterator[str]:
        return iter(("__code__", "__defaults__", "__kwdefaults__"))

    def __len__(self) -> int:
        return 3


class Members(Mapping[str, Any]):
    """The members of a class by name, the functions of methods of every kind as they are."""

    def __init__(self, kind: type):
        self._members = vars(kind)

    def __getitem__(self, name: str) -> Any:
        member = self._members[name]
        return next(iter(functions_of(member)), member)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


class _Closure(Mapping[str, Any]):
    """The variables of a function's closure, by name."""

    def __init__(self, function: FunctionType):
        self._cells = dict(
            zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        )
        self._cells.pop("__class__", None)

    def __getitem__(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def is_ours(module: str | None) -> bool:
    """Whether a module is elman's or one that a step's functions come from, such as torch."""
    return (module or "").partition(".")[0] in _OURS


def is_standard(module: str | None) -> bool:
    """Whether a module is of Python's standard library."""
    return (module or "").partition(".")[0] in sys.stdlib_module_names


def is_library(module: str | None) -> bool:
    """Whether a module is no user's."""
    return is_ours(module) or is_standard(module)
