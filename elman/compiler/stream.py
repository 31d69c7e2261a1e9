"""One step of a stack at a time, in one call of the engine: what streaming runs on."""

from __future__ import annotations

import ctypes
import operator
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.cells.contract import Cell
from elman.compiler.build import REALS, BuildError, engine
from elman.compiler.ir import Buffer
from elman.compiler.kernels import (
    AFTER,
    BEFORE,
    BUFFER_FIELDS,
    FIRST,
    FIXED,
    HISTORY,
    STATE_FIELDS,
    Compiled,
    Shape,
    State,
)  # fmt: skip
from elman.compiler.lower import decompose
from elman.compiler.record import Unsupported
from elman.compiler.trace import trace

SHARED_FROM = 100_000
"""Multiplications a step from which all threads share it."""


class Stream:
    """A stack of cells whose weights are packed once and kept while they do not change.

    Everything that a cell does, its map of the input included, is one program; the programs of
    all layers run in one call.

    Args:
        cells: the cell of each layer.
        names: for each layer, the owner's name of each weight, by the cell's name.

    Raises:
        Unsupported: a cell has no kernel.
        BuildError: the kernels cannot be built here.
    """

    def __init__(self, cells: Sequence[Cell], names: Sequence[Mapping[str, str]]):
        self._names = names
        self._flat = [name for layer in names for name in layer.values()]
        self._cells = [
            Compiled(*trace(cell, decompose, hoist=False), only_forward=True) for cell in cells
        ]
        self._sizes = [cell.state_sizes for cell in cells]
        self._width = cells[0].input_size
        self._tensors: list[Tensor] = []
        self._versions: list[tuple[int, int]] = []
        self._key: tuple[int, torch.dtype, int] | None = None
        self._lock = threading.Lock()

    def fits(self, x: Tensor, states: Sequence[Tensor]) -> bool:
        """Whether x is (B, M) or (M), and the states are those of all layers, as they should be."""
        shape, real = x.shape, x.dtype
        if len(shape) not in (1, 2) or shape[-1] != self._width or real not in REALS:
            return False
        if len(states) != len(self._sizes[0]) or not x.is_cpu or 0 in shape:
            return False
        between = (len(self._sizes), *shape[:-1])
        for state, size in zip(states, self._sizes[0], strict=True):
            if not isinstance(state, Tensor) or state.dtype != real or not state.is_cpu:
                return False
            if state.shape != (*between, size):
                return False
        return True

    def run(self, owner: nn.Module, x: Tensor, states: Sequence[Tensor]) -> list[Tensor] | None:
        """The states (layers, B, size) after reading x (B, M), from those before.

        None where it cannot be told whether the weights have changed, or they are not as x is.
        """
        held = owner._parameters
        tensors: Any = [held.get(n) if n in held else getattr(owner, n) for n in self._flat]
        # The program has one place for the addresses that it reads and writes.
        with self._lock:
            return self._run(tensors, x, states)

    def _run(
        self, tensors: list[Tensor], x: Tensor, states: Sequence[Tensor]
    ) -> list[Tensor] | None:
        try:
            versions = [(t._version, t.data_ptr()) for t in tensors]
        except RuntimeError:  # tensors made in inference mode count no changes
            return None
        key = (x.shape[0] if x.dim() == 2 else 1, x.dtype, torch.get_num_threads())
        if (
            key != self._key
            or versions != self._versions
            or not all(map(operator.is_, tensors, self._tensors))
        ):
            if any(t.dtype != x.dtype or not t.is_cpu for t in tensors):
                return None
            self._tensors, self._versions, self._key = tensors, versions, key
            self._prepare(x, *key)
        states = [s.contiguous() for s in states]
        x = x.contiguous()
        new = [torch.empty_like(s) for s in states]
        # Each layer reads the rows that the one before it has written.
        at = x.data_ptr()
        before, after = [s.data_ptr() for s in states], [s.data_ptr() for s in new]
        for numbers, buffers, slot, strides in self._layers:
            if slot >= 0:
                buffers[slot] = at
            at = after[0]
            for k, stride in enumerate(strides):
                numbers[k * STATE_FIELDS + FIRST] = before[k]
                numbers[k * STATE_FIELDS + HISTORY] = after[k]
                before[k] += stride
                after[k] += stride
        self._engine.elman_chain(self._programs, len(self._layers), self._threads)
        return new

    def _prepare(self, x: Tensor, batch: int, dtype: torch.dtype, threads: int) -> None:
        """Pack the weights and describe the programs."""
        self._engine = engine(dtype)
        self._alive: list[Any] = []
        self._layers: list[tuple[array[int], array[int], int, list[int]]] = []
        given, work = iter(self._tensors), 0
        addresses = array("q")
        with torch.no_grad():
            for k, cell in enumerate(self._cells):
                weights = {name: next(given) for name in self._names[k]}
                kernel = cell.kernel("forward", dtype)
                source = cell.plan.step.sequences[0]
                rows = x.new_zeros(1, batch, source.width)
                _, parameters = cell.hoisted.run(rows[0], weights)
                parameters = [p.detach().contiguous() for p in parameters]
                dummies = [x.new_zeros(batch, size) for size in self._sizes[k]]
                described = kernel.described(
                    Shape(1, batch, False, False, None, None),
                    lambda b, rows=rows, weights=parameters: _place(b, rows, weights),  # type: ignore[misc]
                    [State(d, d.unsqueeze(0)) for d in dummies],
                    parameters,
                )
                self._alive.append((described, parameters))
                slot = kernel.number(source) * BUFFER_FIELDS if source in kernel.buffers else -1
                strides = [batch * size * x.element_size() for size in self._sizes[k]]
                self._layers.append((described.states, described.buffers, slot, strides))
                addresses.append(described.address.value or 0)
                work += sum(w.numel() for w in parameters)
        self._alive.append(addresses)
        self._programs = ctypes.c_void_p(addresses.buffer_info()[0])
        self._threads = threads if batch * work >= SHARED_FROM else 1


def _place(buffer: Buffer, rows: Tensor, parameters: Sequence[Tensor]) -> Tensor | tuple[int, int]:
    if buffer.kind == "sequence":
        return rows
    if buffer.kind == "vector":
        return parameters[buffer.index].reshape(-1)
    if buffer.kind == "state":
        return BEFORE, buffer.index
    if buffer.kind == "after":
        return AFTER, buffer.index
    return FIXED, 0


__all__ = ["BuildError", "Stream", "Unsupported"]
