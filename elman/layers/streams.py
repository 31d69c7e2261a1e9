"""Which stacks stream through one call of the native engine a step."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from elman.compiler import engine, native
from elman.compiler.build import REALS
from elman.compiler.stream import Stream, Unsupported

if TYPE_CHECKING:
    from elman.layers.recurrent import Recurrent

_streams: weakref.WeakKeyDictionary[Recurrent, dict[torch.dtype, Stream | None]]
_streams = weakref.WeakKeyDictionary()


def of(network: Recurrent, real: torch.dtype | None = None) -> Stream | None:
    """The stream of a network, made on the first step; None where it cannot have one.

    It is for numbers of one type, that of the weights by default.

    Networks in both directions, with links past a layer, or with layers of different widths take
    their steps cell by cell.
    """
    real = real or next(network.parameters()).dtype
    try:
        stream = _streams[network][real]
    except KeyError:
        stream = _streams.setdefault(network, {})[real] = _made(network, real)
    return stream if stream is not None and engine.forced() in (None, "native") else None


def _made(network: Recurrent, real: torch.dtype) -> Stream | None:
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
    _streams[network] = dict.fromkeys(REALS)
