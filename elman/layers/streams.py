"""Which stacks stream through one call of the native engine a step."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from elman.cells.contract import Cell
from elman.cells.options import Reading
from elman.compiler import engine
from elman.compiler.stream import Stream, Unsupported

if TYPE_CHECKING:
    from elman.layers.recurrent import Recurrent

_streams: weakref.WeakKeyDictionary[Recurrent, tuple[Stream | None, list[Reading]]] = (
    weakref.WeakKeyDictionary()
)
"""The stream of a network, and what its cells' steps read when it was made."""


def of(network: Recurrent) -> Stream | None:
    """The stream of a network, made on the first step; None where it cannot have one.

    Networks in both directions, with links past a layer, or with layers of different widths take
    their steps cell by cell.
    """
    try:
        stream, readings = _streams[network]
    except KeyError:
        stream, readings = _made(network)
    for reading, cell in zip(readings, network._rested, strict=True):
        if not reading.holds(cell):
            stream, _ = _made(network)
            break
    return stream if stream is not None and engine.forced() in (None, "native") else None


def _made(network: Recurrent) -> tuple[Stream | None, list[Reading]]:
    readings = [Reading(cell, Cell) for cell in network._rested]
    _streams[network] = _new(network), readings
    return _streams[network]


def _new(network: Recurrent) -> Stream | None:
    cells = network._rested
    alike = len({cell.state_sizes for cell in cells}) == 1
    if network.bidirectional or any(network._linked) or not alike:
        return None
    try:
        return Stream(cells, [network.weight_names(k) for k in range(len(cells))])
    except Unsupported:
        return None  # forward, which also runs, warns and says why


def forget(network: Recurrent) -> None:
    """The network takes its steps cell by cell from now on: its stream cannot be built here."""
    _streams[network] = None, _streams[network][1]
