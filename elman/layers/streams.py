"""Which stacks stream through one call of the native engine a step."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from elman.cells.contract import Cell
from elman.cells.options import Reading
from elman.compiler import engine, native
from elman.compiler.stream import Stream, Unsupported

if TYPE_CHECKING:
    from elman.layers.recurrent import Recurrent

_Made = tuple[Stream | None, list[tuple[Reading, Cell]]]
_streams: weakref.WeakKeyDictionary[Recurrent, dict[torch.dtype, _Made]]
_streams = weakref.WeakKeyDictionary()
"""The streams of a network by type of number, and what its cells' steps read when each was made."""


def of(network: Recurrent, real: torch.dtype | None = None) -> Stream | None:
    """The stream of a network, made on the first step; None where it cannot have one.

    It is for numbers of one type, that of the weights by default.

    Networks in both directions, with links past a layer, or with layers of different widths take
    their steps cell by cell.
    """
    real = real or next(network.parameters()).dtype
    try:
        stream, readings = _streams[network][real]
    except KeyError:
        stream, readings = _made(network, real)
    for reading, cell in readings:
        if not reading.holds(cell):
            stream, _ = _made(network, real)
            break
    return stream if stream is not None and engine.forced() in (None, "native") else None


def _made(network: Recurrent, real: torch.dtype) -> _Made:
    # Before the steps are traced: a change in the meantime will be seen.
    readings = [(Reading(cell, Cell), cell) for cell in network._rested]
    made = _new(network, real), readings
    _streams.setdefault(network, {})[real] = made
    return made


def _new(network: Recurrent, real: torch.dtype) -> Stream | None:
    cells = network._rested
    alike = len({cell.state_sizes for cell in cells}) == 1
    if network.bidirectional or any(network._linked) or not alike:
        return None
    if not all(native.runs(cell, real) for cell in cells):
        return None
    try:
        return Stream(cells, [network.weight_names(k) for k in range(len(cells))], real)
    except Unsupported:
        return None  # forward, which also runs, warns and says why


def forget(network: Recurrent) -> None:
    """The network takes its steps cell by cell from now on: its stream cannot be built here."""
    made = _streams[network]
    made.update({real: (None, readings) for real, (_, readings) in made.items()})
