"""What a value is made of, as something hashable: two are equal that a step computes alike with."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import pickle
import sys
from collections.abc import Hashable, Iterator, Mapping
from contextvars import ContextVar
from types import (
    BuiltinFunctionType,
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

from elman.cells.names import found_by, is_library, is_ours, is_standard

PLAIN = (int, float, complex, str, bytes, NoneType, torch.dtype, torch.device, torch.Size)
"""What cannot change in place and compares by value."""

INTERNAL = frozenset(vars(nn.Module())) | {
    "_options", "_made", "_bound", "_memo", "_mode_read", "tag", "_mutable"
}  # fmt: skip
"""Attributes that are a module's or elman's own business."""

_OF_MODULES = ("training", "_modules", "_forward_hooks", "_forward_pre_hooks")


class Unkeyable(Exception):
    """A value that cannot be told from another by what it is made of."""


@dataclasses.dataclass(frozen=True)
class Same:
    """Equal to another of the very same object."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

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
        with contextlib.suppress(Exception):
            return type(value), pickle.dumps(value)
    return Same(value)


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
        return kind, Same(value), inner(value.get(...), within)
    if isinstance(value, (np.ndarray, np.generic)) and not np.asarray(value).dtype.hasobject:
        array = np.asarray(value)
        _check_size(array.size, key)
        return kind, str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, Tensor):
        return _tensor(value, key)
    if key and not _is_importable(kind):
        raise Unkeyable(f"a {kind.__name__}")
    if not key and is_standard(kind.__module__) and kind is not SimpleNamespace:
        return _frozen(value, within[:-1], True)  # not all that a logger, for one, is tied to
    return kind, inner(_attributes(value), within)


def _attributes(value: Any) -> dict[Any, Any]:
    """All that an object of a Python class holds, and what its classes hold for it."""
    of_classes = {
        (k.__qualname__, name): member
        for k in type(value).__mro__
        if not is_library(k.__module__)
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


def classes(value: Any, seen: set[int]) -> Iterator[type]:
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
    elif isinstance(value, nn.Module) or not is_library(kind.__module__):
        with contextlib.suppress(Unkeyable):
            parts = list(_attributes(value).values())
        yield from (k for k in kind.__mro__ if not is_ours(k.__module__))
    for part in parts:
        yield from classes(part, seen)


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
    if isinstance(value, FunctionType) and not is_ours(value.__module__):
        return False  # what it reads counts
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _function(function: FunctionType, within: tuple[int, ...], key: bool) -> Hashable:
    """Its code, and the values that the code finds outside."""
    inner = frozen if key else observed
    held = [(name, inner(value, within)) for _, name, value in found_by(function)]
    return FunctionType, function.__code__, tuple(held)


def is_simple(value: Any) -> bool:
    """Whether its copy tells, by a comparison, that it has changed."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return all(map(is_simple, value))
    if kind is dict:
        return all(map(is_simple, value)) and all(map(is_simple, value.values()))
    return kind in PLAIN or kind is bool


def copied(value: Any) -> Any:
    """A copy of what may change in place, where a comparison with it tells."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset) and is_simple(value):
        return kind(map(copied, value)) if kind in (list, tuple) else kind(value)
    if kind is dict and is_simple(value):
        return {name: copied(v) for name, v in value.items()}
    return value
