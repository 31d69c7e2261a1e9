"""Cells by name, as the setting ``cell`` has them, and a user's own in a file."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
import inspect
import os
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from elman.allocation import is_out_of_memory
from elman.cells.checks import check_made
from elman.cells.clockwork import Clockwork
from elman.cells.contract import Cell
from elman.cells.delay import NARX, TDNN
from elman.cells.gru import GRU, MGU, GRUResetBefore
from elman.cells.highway import RecurrentHighway
from elman.cells.linear import LRU, QRNN, SRU, MinGRU, MinLSTM, PeepholeSRU
from elman.cells.lines import at, line_in, reason
from elman.cells.lstm import (
    LSTM,
    CoupledLSTM,
    LSTMWithoutForgetGate,
    PeepholeLSTM,
    PreviousPeepholeLSTM,
    ProjectedLSTM,
)
from elman.cells.multiplicative import MultiplicativeLSTM, MultiplicativeRNN
from elman.cells.simple import (
    IRNN,
    Elman,
    IdentityRNN,
    IndRNN,
    Jordan,
    Perceptron,
    ResidualRNN,
)
from elman.cells.transforms import LayerNormLSTM
from elman.errors import ElmanError, InputError


@dataclass(frozen=True)
class Entry:
    """A cell under the name that the command line knows it by."""

    name: str
    make: Callable[..., Cell]
    cell: type[Cell]
    family: str

    @property
    def summary(self) -> str:
        """The first line of the cell's description: what it is and its source."""
        options = self.make.keywords.values() if isinstance(self.make, partial) else ()
        line = self._paragraphs[0][0].replace("``", "").rstrip(".")
        return f"{line}, {', '.join(map(str, options))}" if options else line

    @property
    def source(self) -> str:
        """The paper that the cell is from, by its authors and year, where its summary names it."""
        named = re.search(r"\(([^()]*\d{4})\)", self._paragraphs[0][0])
        return named[1] if named else ""

    @property
    def equations(self) -> list[str]:
        """The cell's equations, as its description gives them."""
        return self._paragraphs[1] if len(self._paragraphs) > 1 else []

    @property
    def count(self) -> str:
        """The number of parameters with one bias, as a formula in M, H and the cell's options."""
        lines = (p[0] for p in self._paragraphs if p[0].startswith("Parameters: "))
        return next(lines, "").removeprefix("Parameters: ").rstrip(".")

    @property
    def _paragraphs(self) -> list[list[str]]:
        """The cell's own docstring, or its name where it has none, in lines."""
        text = inspect.cleandoc(str(self.cell.__doc__ or self.cell.__name__))
        return [[line.strip() for line in part.splitlines()] for part in text.split("\n\n")]


def _family(name: str, cells: Mapping[str, type[Cell] | partial[Any]]) -> list[Entry]:
    """An entry for each cell: its class, or its class with options."""
    return [
        Entry(label, cell, cell.func if isinstance(cell, partial) else cell, name)  # type: ignore[arg-type]
        for label, cell in cells.items()
    ]


_FAMILIES = (
    _family("without recurrence", {"mlp": Perceptron}),
    _family("memory before recurrence", {"tdnn": TDNN, "narx": NARX}),
    _family(
        "simple",
        {
            "rnn": Elman,
            "rnn-relu": partial(Elman, nonlinearity="relu"),
            "rnn-sigmoid": partial(Elman, nonlinearity="sigmoid"),
            "jordan": Jordan,
            "identity": IdentityRNN,
            "residual": ResidualRNN,
            "irnn": IRNN,
            "indrnn": IndRNN,
            "clockwork": Clockwork,
        },
    ),
    _family(
        "gated",
        {
            "gru": GRU,
            "gru-reset-before": GRUResetBefore,
            "mgu": MGU,
            "lstm": LSTM,
            "lstm-no-forget": LSTMWithoutForgetGate,
            "lstm-coupled": CoupledLSTM,
            "lstm-peephole": PeepholeLSTM,
            "lstm-peephole-previous": PreviousPeepholeLSTM,
            "lstm-projected": ProjectedLSTM,
            "lstm-layer-norm": LayerNormLSTM,
            "mrnn": MultiplicativeRNN,
            "mlstm": MultiplicativeLSTM,
            "rhn": RecurrentHighway,
        },
    ),
    _family(
        "made for parallel time",
        {
            "sru": SRU,
            "sru-peephole": PeepholeSRU,
            "qrnn": QRNN,
            "mingru": MinGRU,
            "minlstm": MinLSTM,
            "lru": LRU,
        },
    ),
)

_PREFIX = "elman_cell_"
"""What the names of users' own modules begin with."""

CELLS: dict[str, Entry] = {entry.name: entry for family in _FAMILIES for entry in family}


def find(name: str) -> Entry:
    """The cell called ``name``, or the class of ``path/to/file.py:ClassName``.

    Raises:
        InputError: there is no cell of that name, or the file has no such class.
        ElmanError: the file cannot be read.
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
    """A new cell by name, as :func:`find` knows it; a projection takes half of its units.

    Raises:
        InputError: it cannot be made with the options that every cell has.
    """
    entry = find(name)
    if name not in CELLS:
        try:
            inspect.signature(entry.make).bind(input_size, hidden_size, **options)
        except TypeError as why:
            raise InputError(
                f"{name} cannot be made with two sizes and {', '.join(options) or 'no option'} "
                f"({why}): expected def __init__(self, input_size, hidden_size, **options), which "
                "hands the options on to super().__init__, and defaults for options of its own."
            ) from None
    if entry.cell is ProjectedLSTM:
        options.setdefault("proj_size", max(1, hidden_size // 2))
    if name in CELLS:
        return entry.make(input_size, hidden_size, **options)
    try:
        cell = entry.make(input_size, hidden_size, **options)
    except ElmanError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{name} could not be made with {input_size} inputs and {hidden_size} units"
            f"{at(own_line(error))} ({reason(error)}): mend that line."
        ) from error
    if not isinstance(cell, Cell):
        raise InputError(f"{name} gives {type(cell).__name__}, expected a cell: mend its __new__.")
    check_made(cell)
    return cell


def own_line(error: BaseException) -> str:
    """``file:line`` of a user's own cell at which ``error`` was raised, or nothing.

    It is the innermost of all lines of files that were named as ``path/to/file.py:ClassName``.
    """
    return line_in(_PREFIX, error)


def _from_file(name: str) -> Entry:
    path, _, label = name.rpartition(":")
    if not Path(path).is_file():
        raise ElmanError(f"no file {path!r} for the cell {name!r}: name an existing Python file.")
    module = _execute(path, os.stat(path).st_mtime_ns)
    cell = getattr(module, label, None)
    if not (isinstance(cell, type) and issubclass(cell, Cell)):
        has = [k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, Cell)]
        raise InputError(
            f"{path} has no cell {label!r}: expected a subclass of elman.Cell; "
            f"the file has {', '.join(k for k in has if k != 'Cell') or 'none'}."
        )
    return Entry(name, cell, cell, "your own")


@functools.cache
def _execute(path: str, changed: int) -> ModuleType:
    """The module of a file, executed once for each time that it was changed."""
    # A name of its own: a cell in random.py must not become everyone's random.
    own = f"{_PREFIX}{zlib.crc32(str(Path(path).resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(own, path)
    assert spec is not None and spec.loader is not None  # a .py file always has both
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by name.
    sys.modules[spec.name] = module
    try:
        # Standard output is for what the command has to say, in JSON perhaps; and a model may first
        # be made without memory, which is not what the file's own lines expect.
        with contextlib.redirect_stdout(sys.stderr), torch.device("cpu"):
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        del sys.modules[spec.name]
        raise
    except BaseException as error:
        del sys.modules[spec.name]
        line = own_line(error)
        if isinstance(error, SyntaxError) and error.filename and error.lineno:
            line = f"{error.filename}:{error.lineno}"
        kind = InputError if isinstance(error, InputError) else ElmanError
        raise kind(
            f"{path} could not be imported{at(line)} ({reason(error)}): mend it first."
        ) from error
    return module
