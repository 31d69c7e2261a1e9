"""Cells by name: what ``--cell`` and ``elman cells`` know, and a user's own in a file."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from elman.cells.contract import Cell
from elman.cells.gru import GRU, GRUResetBefore
from elman.cells.lstm import LSTM, ProjectedLSTM
from elman.cells.simple import Elman, Perceptron
from elman.errors import ElmanError, InputError


@dataclass(frozen=True)
class Entry:
    """A cell under the name that the command line knows it by."""

    name: str
    make: Callable[..., Cell]
    cell: type[Cell]

    @property
    def summary(self) -> str:
        """The first line of the cell's description: what it is and its source."""
        options = self.make.keywords.values() if isinstance(self.make, partial) else ()
        line = _description(self.cell).splitlines()[0].replace("``", "").rstrip(".")
        return f"{line}, {', '.join(map(str, options))}" if options else line

    @property
    def equations(self) -> list[str]:
        """The cell's equations, as its description gives them."""
        paragraphs = _description(self.cell).split("\n\n")
        return [line.strip() for line in paragraphs[1].splitlines()] if len(paragraphs) > 1 else []


def _description(cell: type[Cell]) -> str:
    """A cell's own docstring, or its name where it has none."""
    return inspect.cleandoc(cell.__doc__ or cell.__name__)


def _entry(name: str, cell: type[Cell], **options: Any) -> Entry:
    return Entry(name, partial(cell, **options) if options else cell, cell)


CELLS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        _entry("mlp", Perceptron),
        _entry("rnn", Elman),
        _entry("rnn-relu", Elman, nonlinearity="relu"),
        _entry("rnn-sigmoid", Elman, nonlinearity="sigmoid"),
        _entry("gru", GRU),
        _entry("gru-reset-before", GRUResetBefore),
        _entry("lstm", LSTM),
        _entry("lstm-projected", ProjectedLSTM),
    )
}


def find(name: str) -> Entry:
    """The cell called ``name``, or the class of ``path/to/file.py:ClassName``.

    Raises:
        InputError: there is no cell of that name.
        ElmanError: the file cannot be read or has no such cell.
    """
    if name in CELLS:
        return CELLS[name]
    if ".py:" in name:
        return _from_file(name)
    near = difflib.get_close_matches(name, CELLS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"unknown cell {name!r}: {hint}expected one of {', '.join(CELLS)}, "
        "or your own as path/to/file.py:ClassName."
    )


def make(name: str, input_size: int, hidden_size: int, **options: Any) -> Cell:
    """A new cell by name, as :func:`find` knows it; a projection takes half of its units."""
    entry = find(name)
    if entry.cell is ProjectedLSTM:
        options.setdefault("proj_size", max(1, hidden_size // 2))
    return entry.make(input_size, hidden_size, **options)


def _from_file(name: str) -> Entry:
    path, _, label = name.rpartition(":")
    if not Path(path).is_file():
        raise ElmanError(f"no file {path!r} for the cell {name!r}: name an existing Python file.")
    module = _execute(path, os.stat(path).st_mtime_ns)
    cell = getattr(module, label, None)
    if not (isinstance(cell, type) and issubclass(cell, Cell)):
        has = [k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, Cell)]
        raise ElmanError(
            f"{path} has no cell {label!r}: expected a subclass of elman.Cell; "
            f"the file has {', '.join(k for k in has if k != 'Cell') or 'none'}."
        )
    return Entry(name, cell, cell)


@functools.cache
def _execute(path: str, changed: int) -> ModuleType:
    """The module of a file, executed once for each time that it was changed."""
    # A name of its own: a cell in random.py must not become everyone's random.
    own = f"elman_cell_{zlib.crc32(str(Path(path).resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(own, path)
    assert spec is not None and spec.loader is not None  # a .py file always has both
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise ElmanError(
            f"{path} could not be imported ({type(error).__name__}: {error}): mend it first."
        ) from error
    return module
