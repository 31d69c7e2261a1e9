"""One step at a time: cell by cell, or all layers at once, in one call or one replay."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman import nested
from elman.cells.contract import Cell
from elman.cells.options import Reading
from elman.compiler.cpu.stack import CompiledStack
from elman.compiler.modes import is_recorded, is_traced
from elman.compiler.record import Unsupported
from elman.compiler.targets import BuildError
from elman.engines import choice, native
from elman.engines.call import first_step
from elman.errors import InputError
from elman.layers import links, replay, weights
from elman.layers.dropout import between_layers
from elman.layers.recording import recording
from elman.layers.sequences import Sequences, check_resets, check_row, check_types

if TYPE_CHECKING:
    from elman.layers.recurrent import Recurrent

_Made = tuple[CompiledStack | None, list[tuple[Reading, Cell]]]
_streams: weakref.WeakKeyDictionary[Recurrent, dict[torch.dtype, _Made]]
_streams = weakref.WeakKeyDictionary()
"""The streams of a network by type of number, and what its cells' steps read when each was made."""


def step(network: Recurrent, x: Tensor, state: Any, resets: Tensor | None) -> tuple[Tensor, Any]:
    """One step of a network: see :meth:`Recurrent.step`."""
    if network._forward_pre_hooks:
        weights.compute(network)
    if resets is not None:
        state = _restarted(network, x, state, resets)
    for way in (replay.step, _in_one_call):
        made = way(network, x, state)
        if made is not None:
            return made
    if is_recorded():
        with recording(network._noiseless, network._like()):
            return _by_cells(network, x, state)
    return _by_cells(network, x, state)


def _in_one_call(network: Recurrent, x: Tensor, state: Any) -> tuple[Tensor, Any] | None:
    """A step in one call of the native engine, where no gradient is wanted and it can."""
    if state is None or torch.is_grad_enabled() or is_traced((x,)) or not x.is_cpu:
        return None
    if network.training and network.dropout:
        return None
    stream = of(network, x.dtype)
    if stream is None:
        return None
    states = [state] if isinstance(state, Tensor) else state
    if not stream.fits(x, states):
        return None
    try:
        made = stream.run(network, x, states)
    except BuildError:  # which forward warns of, and says why
        forget(network)
        return None
    if made is None:
        return None
    y, new = made
    return y, new[0] if len(new) == 1 else tuple(new)


def _by_cells(network: Recurrent, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A step cell by cell."""
    if network.bidirectional:
        raise InputError(
            "a bidirectional network cannot run step by step, because it reads the future: "
            "use forward, or a network in one direction."
        )
    check_row(x, network.input_size)
    batch = Sequences.of(x.unsqueeze(0), None, None, network.input_size, False)
    before = network._start(batch.size) if state is None else network._before(state, batch)
    check_types(network._like(), x, () if state is None else before)
    y, new = batch.x[0], []
    for layer, cell in enumerate(network._noiseless):
        states = first_step(cell, network.weights(layer), y, before[layer])
        y = links.join(network, layer, y, states[0])
        if layer + 1 < network.num_layers:
            y = between_layers(y.unsqueeze(0), network.dropout, False, network.training)[0]
        new.append(states)
    return batch.out(y.unsqueeze(0))[0], batch.state_out(network._states.join(new))


def _restarted(network: Recurrent, x: Tensor, state: Any, resets: Tensor) -> Any:
    """``state`` with those rows back at their start that ``resets`` names."""
    check_row(x, network.input_size)
    check_resets(resets, tuple(x.shape[:-1]))
    if state is None:
        return None
    rows = x.shape[0] if x.dim() == 2 else None
    again = resets.to(x.device).unsqueeze(-1)
    states = state if type(state) is tuple else (state,)
    if not network.learn_initial_state and all(
        isinstance(s, Tensor) and s.shape[1:-1] == resets.shape for s in states
    ):  # the rest of their shapes is checked where they are read
        filled = tuple([s.masked_fill(again, 0) for s in states])
        return filled if state is states else filled[0]
    network._states.split(state, rows)
    start = network.initial_state(rows)
    return nested.map(lambda s, first: torch.where(again, first, s), state, start)


def of(network: Recurrent, real: torch.dtype | None = None) -> CompiledStack | None:
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
    return stream if stream is not None and choice.forced() in (None, "native") else None


def _made(network: Recurrent, real: torch.dtype) -> _Made:
    # Before the steps are traced: a change in the meantime will be seen.
    readings = [(Reading(cell, Cell), cell) for cell in network._noiseless]
    made = _new(network, real), readings
    _streams.setdefault(network, {})[real] = made
    return made


def _new(network: Recurrent, real: torch.dtype) -> CompiledStack | None:
    cells = network._noiseless
    alike = len({cell.state_sizes for cell in cells}) == 1
    if network.bidirectional or any(network._linked) or not alike:
        return None
    if not all(native.runs(cell, real) for cell in cells):
        return None
    try:
        return CompiledStack(cells, [network.weight_names(k) for k in range(len(cells))], real)
    except Unsupported:
        return None  # forward, which also runs, warns and says why


def forget(network: Recurrent) -> None:
    """The network takes its steps cell by cell from now on: its stream cannot be built here."""
    made = _streams[network]
    made.update({real: (None, readings) for real, (_, readings) in made.items()})
