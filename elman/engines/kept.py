"""Compiled cells by name, each for as long as somebody may run it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from elman.cells.contract import Cell
from elman.compiler.compiled import Compiled


class _Kernels(dict[str, Compiled]):
    """By name; one that a program brings from another process is compiled when it is asked for."""

    def __missing__(self, name: str) -> Compiled:
        if _revive is None:
            raise KeyError(name)
        return _revive(name)


_revive: Callable[[str], Compiled] | None = None


def revive_by(function: Callable[[str], Compiled]) -> None:
    """Ask ``function`` for the kernels of names that are not known: it may have to run them."""
    global _revive
    _revive = function


COMPILED: dict[str, Compiled] = _Kernels()
"""What the operators run, by the name that they are given."""


class Held:
    """Keeps the kernels of that name: when the last holder of it is gone, they go."""

    def __init__(self, name: str):
        self.name = name
        weakref.finalize(self, COMPILED.pop, name, None)


_held: weakref.WeakValueDictionary[str, Held] = weakref.WeakValueDictionary()
_for_good: dict[str, tuple[Held, Cell]] = {}


def hold(name: str, *, for_good: Cell | None = None) -> Held:
    """A holder of the kernels of that name.

    Where a graph of others speaks of them, they are held ``for_good``, with the cell that they
    were made for.
    """
    held = _held.get(name)
    if held is None:
        held = _held[name] = Held(name)
    if for_good is not None:
        _for_good[name] = held, for_good
    return held


_watched: dict[str, list[Callable[[], str | None]]] = {}


def watch(name: str, present: Callable[[], str | None]) -> None:
    """Ask, whenever a compiled graph speaks of ``name``, what the name would be now.

    ``present`` gives it, or None where the cell is gone.
    """
    _watched.setdefault(name, []).append(present)


def watched(name: str) -> Sequence[Callable[[], str | None]]:
    """What was given to :func:`watch` for this name."""
    return _watched.get(name, ())


def made_for(name: str) -> Cell:
    """The cell that the kernels of this name, which are held for good, were made for."""
    return _for_good[name][1]
