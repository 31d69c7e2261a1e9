"""What a step reads beside tensors: options of its cell and of its classes, and global names.

A compiled step has their values in it. :class:`Reading` holds them as they are, tells whether they
still are, and gives a key that two cells share whose steps read the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import itertools
import pickle
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

PLAIN = (int, float, complex, str, bytes, NoneType, torch.dtype, torch.device, torch.Size)
"""What cannot change in place and compares by value."""

INTERNAL = frozenset(vars(nn.Module())) | {
    "_options", "_made", "_bound", "_memo", "_mode_read", "tag", "_mutable"
}  # fmt: skip
"""Attributes that are a module's or elman's own business."""

_OF_MODULES = ("training", "_modules", "_forward_hooks", "_forward_pre_hooks")
_OURS = ("torch", "elman", "numpy", "math", "builtins")


class Unkeyable(Exception):
    """A value that cannot be told from another by what it is made of."""


@dataclasses.dataclass(frozen=True)
class _Same:
    """Equal to another of the very same object."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def frozen(value: Any, within: tuple[int, ...] = ()) -> Hashable:
    """``value`` as something hashable: two are equal where a step would compute the same with them.

    Raises:
        Unkeyable: that cannot be told.
    """
    return _frozen(value, within, True)


def observed(value: Any, within: tuple[int, ...] = ()) -> Hashable:
    """As :func:`frozen`, for one object as it changes: of any, and no longer-lived than itself.

    What shows nothing of what it is made of is equal to itself.
    """
    try:
        return _frozen(value, within, False)
    except Unkeyable:
        pass
    if type(value).__module__ in ("array", "builtins", "collections"):
        # What is in it may refuse in a way of its own; then it is known by itself alone.
        with suppress(Exception):
            return type(value), pickle.dumps(value)
    return _Same(value)


def _frozen(value: Any, within: tuple[int, ...], key: bool) -> Hashable:
    kind, inner = type(value), frozen if key else observed
    if kind is float:
        return float, value.hex()  # tells −0 from 0, and NaN is itself
    if kind is complex:
        return complex, value.real.hex(), value.imag.hex()
    if (isinstance(value, PLAIN) and kind in PLAIN) or kind is bool:
        return kind, value
    if isinstance(value, enum.Enum) or value is ...:
        return kind, str(value)
    if isinstance(value, (BuiltinFunctionType, ModuleType)) or _is_importable(value):
        return kind, value
    if isinstance(value, type):
        raise Unkeyable(f"the class {value.__name__}, which lives no longer than who made it")
    if id(value) in within:
        return "itself", within.index(id(value))
    within = (*within, id(value))
    if isinstance(value, (tuple, list)):
        return kind, tuple(inner(v, within) for v in value)
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(inner(v, within) for v in value)
    if isinstance(value, Mapping):
        return kind, tuple((inner(k, within), inner(v, within)) for k, v in value.items())
    if isinstance(value, FunctionType):
        return _function(value, within, key)
    if isinstance(value, MethodType):
        return kind, inner(value.__func__, within), inner(value.__self__, within)
    if isinstance(value, functools.partial):
        return kind, inner((value.func, value.args, value.keywords), within)
    if isinstance(value, ContextVar):
        return kind, _Same(value), inner(value.get(...), within)
    if isinstance(value, (np.ndarray, np.generic)) and not np.asarray(value).dtype.hasobject:
        array = np.asarray(value)
        _check_size(array.size, key)
        return kind, str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, Tensor):
        return _tensor(value, key)
    if key and not _is_importable(kind):
        raise Unkeyable(f"a {kind.__name__}")
    if not key and _is_standard(kind.__module__) and kind is not SimpleNamespace:
        return _frozen(value, within[:-1], True)  # not all that a logger, for one, is tied to
    return kind, inner(_attributes(value), within)


def _attributes(value: Any) -> dict[Any, Any]:
    """All that an object of a Python class holds, and what its classes hold for it."""
    of_classes = {
        (k.__qualname__, name): member
        for k in type(value).__mro__
        if not _is_library(k.__module__)
        for name, member in vars(k).items()
        if name[:2] != "__" and not callable(member) and not hasattr(member, "__get__")
    }
    slots = [_mangled(k, s) for k in type(value).__mro__ for s in getattr(k, "__slots__", ())]
    if isinstance(value, nn.Module):  # weights are no options
        own = {name: v for name, v in vars(value).items() if name not in INTERNAL}
        return of_classes | own | {name: vars(value)[name] for name in _OF_MODULES}
    held = of_classes | {name: getattr(value, name) for name in slots if hasattr(value, name)}
    if not hasattr(value, "__dict__") and not (slots or dataclasses.is_dataclass(value)):
        raise Unkeyable(f"a {type(value).__name__}")  # what it is made of is not Python's
    return held | vars(value) if hasattr(value, "__dict__") else held


def _classes(value: Any, seen: set[int]) -> Iterator[type]:
    """The classes of a user's objects that ``value`` is made of."""
    kind = type(value)
    if id(value) in seen or isinstance(value, (type, ModuleType, Tensor, FunctionType)):
        return
    seen.add(id(value))
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif isinstance(value, MethodType):
        parts = [value.__self__]
    elif isinstance(value, nn.Module) or not _is_library(kind.__module__):
        with contextlib.suppress(Unkeyable):
            parts = list(_attributes(value).values())
        yield from (k for k in kind.__mro__ if not _is_ours(k.__module__))
    for part in parts:
        yield from _classes(part, seen)


def _mangled(kind: type, name: str) -> str:
    """The name of an attribute as Python keeps it, of one that is private to its class, too."""
    is_private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if is_private else name


def _tensor(value: Tensor, key: bool) -> Hashable:
    with _disable_current_modes(), torch.no_grad():
        if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided:
            raise Unkeyable(f"a {type(value).__name__}")
        _check_size(value.numel(), key)
        if value.is_meta:
            return Tensor, value.dtype, tuple(value.shape), "meta"
        plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        content = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return Tensor, value.dtype, tuple(value.shape), str(value.device), content


def _check_size(count: int, key: bool) -> None:
    if count > (4096 if key else 1 << 20):
        raise Unkeyable("an array too large to look through at every call")


def _is_importable(value: Any) -> bool:
    """Whether it is a class or a function that lives as long as its module, under its own name."""
    if not isinstance(value, (type, FunctionType)):
        return False
    if isinstance(value, FunctionType) and not _is_ours(value.__module__):
        return False  # what it reads counts
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _OURS


def _is_standard(module: str | None) -> bool:
    return (module or "").partition(".")[0] in sys.stdlib_module_names


def _is_library(module: str | None) -> bool:
    return _is_ours(module) or _is_standard(module)


def _function(function: FunctionType, within: tuple[int, ...], key: bool) -> Hashable:
    """Its code, and the values that the code finds outside."""
    inner = frozen if key else observed
    held = [(name, inner(value, within)) for _, name, value in _found(function)]
    return FunctionType, function.__code__, tuple(held)


class _Parts(Mapping[str, Any]):
    """What a function has of its own, which can be exchanged: by name."""

    def __init__(self, function: FunctionType):
        self._function = function

    def __getitem__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __iter__(self) -> Iterator[str]:
        return iter(("__code__", "__defaults__", "__kwdefaults__"))

    def __len__(self) -> int:
        return 3


class _Members(Mapping[str, Any]):
    """The members of a class by name, the functions of methods of every kind as they are."""

    def __init__(self, kind: type):
        self._members = vars(kind)

    def __getitem__(self, name: str) -> Any:
        member = self._members[name]
        return next(iter(_functions(member)), member)

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


def _names(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _found(function: FunctionType) -> Iterator[tuple[Mapping[str, Any], str, Any]]:
    """Where, under which name and what a function reads that is neither given nor a library's."""
    names = sorted(_names(function.__code__))
    places: list[tuple[Mapping[str, Any], list[str]]] = [(function.__globals__, names)]
    if function.__closure__:
        closure = _Closure(function)
        places.append((closure, sorted(closure)))
    if function.__defaults__ or function.__kwdefaults__:
        own = _Parts(function)
        yield from ((own, name, own[name]) for name in own if name != "__code__")
    for place, read in places:
        for name in read:
            if name not in place:
                continue
            value = place[name]
            if isinstance(value, ModuleType):
                if not _is_ours(value.__name__):
                    places.append((vars(value), names))
            elif isinstance(value, type):
                yield from _members_found(value, names)
            elif not isinstance(value, BuiltinFunctionType) and not (
                isinstance(value, FunctionType) and _is_ours(value.__module__)
            ):
                yield place, name, value


IMPLICIT = frozenset({"__init__", "__call__", "forward", "backward", "setup_context"})
"""The methods that nobody need name: those of an ``autograd.Function``, for one."""


def _members_found(kind: type, names: Iterable[str]) -> Iterator[tuple[_Members, str, Any]]:
    """What a function that speaks of a class, and has these names in it, may come to there."""
    kinds = [k for k in kind.__mro__ if not _is_library(k.__module__)]
    reached = _reached(kinds, IMPLICIT.union(names))
    for each in kinds:
        members = _Members(each)
        for name in members:
            if name in reached and not hasattr(members[name], "__set_name__"):
                yield members, name, members[name]


def _functions(member: Any) -> list[FunctionType]:
    """The functions that a member of a class is made of."""
    if isinstance(member, property):
        parts: list[Any] = [member.fget]
    elif isinstance(member, functools.cached_property):
        parts = [member.func]
    else:
        parts = [getattr(member, "__func__", member)]
    return [p for p in parts if isinstance(p, FunctionType)]


STEPS = frozenset({"step", "forward", "coefficients", "output", "product"})
"""The methods that an engine calls."""


def _reached(kinds: list[type], begin: Iterable[str] = STEPS) -> set[str]:
    """The names of the members that those called ``begin`` may come to, by the names in code."""
    codes = [
        (name, function.__code__)
        for kind in kinds
        for name, member in vars(kind).items()
        for function in _functions(member)
    ]
    reached, size = set(begin), 0
    while len(reached) > size:
        size = len(reached)
        reached.update(*(_names(code) for name, code in codes if name in reached))
    return reached


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
        self._own = {name: _copied(value) for name, value in own.items()}
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
        kinds = [kind for kind in kinds if not _is_ours(kind.__module__)]
        reached = _reached(kinds)
        for kind in kinds:
            parts += self._of_class(kind, reached)
        self._follow_objects(reached)
        parts += self._read
        self.key: Hashable | None = tuple(parts) if self._keyable else None

    def _of_class(self, kind: type, reached: set[str]) -> Iterator[Hashable]:
        members = vars(kind)
        self._alike.append((members, {name: _copied(value) for name, value in members.items()}))
        for name, value in members.items():
            functions = _functions(value)
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
            for kind in _classes(place[name], seen):
                members = _Members(kind)
                for method in members:
                    function = members[method]
                    if isinstance(function, FunctionType) and method in names | IMPLICIT:
                        self._read.append((method, self._part(None, method, function)))
                        self._found.append((members, method, function))
                        self._follow(function)

    def _follow(self, function: FunctionType) -> None:
        """Watch what a function reads outside, and what the functions that it finds there read."""
        if id(function.__code__) in self._seen or _is_ours(function.__module__):
            return
        self._seen.add(id(function.__code__))
        own = _Parts(function)
        self._found.append((own, "__code__", own["__code__"]))
        for place, name, value in _found(function):
            self._read.append((name, self._part(place, name, value)))
            simple = _is_simple(value)
            self._found.append((place, name, _copied(value) if simple else value))

    def _part(self, place: Mapping[str, Any] | None, name: str, value: Any) -> Hashable:
        """The value as a part of the key; one that may change within is watched."""
        part: Hashable = None
        try:
            part = frozen(value)
        except Unkeyable:
            self._keyable = False
        if place is None or _is_simple(value):
            return part
        if isinstance(value, FunctionType):
            self._follow(value)
        elif not isinstance(seen := observed(value), _Same):
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
    return name not in INTERNAL and type(value) in (list, dict) and _is_simple(value)


def _is_simple(value: Any) -> bool:
    """Whether its copy tells, by a comparison, that it has changed."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return all(map(_is_simple, value))
    if kind is dict:
        return all(map(_is_simple, value)) and all(map(_is_simple, value.values()))
    return kind in PLAIN or kind is bool


def _copied(value: Any) -> Any:
    """A copy of what may change in place, where a comparison with it tells."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset) and _is_simple(value):
        return kind(map(_copied, value)) if kind in (list, tuple) else kind(value)
    if kind is dict and _is_simple(value):
        return {name: _copied(v) for name, v in value.items()}
    return value
