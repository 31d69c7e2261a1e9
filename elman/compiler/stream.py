"""One step of a stack at a time, in one call of the engine: what streaming runs on."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.cells.contract import Cell
from elman.compiler.build import engine
from elman.compiler.kernels import (
    SHARED_FROM,
    Compiled,
    Shape,
    State,
    pointer_to,
)
from elman.compiler.lower import decompose
from elman.compiler.memory import all_plain, streamed
from elman.compiler.operator import place
from elman.compiler.record import Unsupported
from elman.compiler.trace import trace

X, Y, STATES = 5, 6, 7
"""Fields of ``struct Stack`` in engine/program.hpp."""


class Stream:
    """A stack of cells whose weights are packed once and kept while they do not change.

    Everything that a cell does, its map of the input included, is one program; the programs of
    all layers run in one call.

    Args:
        cells: the cell of each layer.
        names: for each layer, the owner's name of each weight, by the cell's name.
        real: the type of the numbers.

    Raises:
        Unsupported: a cell has no kernel.
    """

    def __init__(
        self, cells: Sequence[Cell], names: Sequence[Mapping[str, str]], real: torch.dtype
    ):
        self._names = names
        self._flat = [name for layer in names for name in layer.values()]
        self._cells = [
            Compiled(*trace(cell, decompose, real, hoist=False), only_forward=True)
            for cell in cells
        ]
        self._real = real
        self._sizes = [cell.state_sizes for cell in cells]
        self._width = cells[0].input_size
        self._tensors: list[Tensor] = []
        self._versions: list[tuple[int, int, int]] = []
        self._key: tuple[int, torch.dtype, int] | None = None
        self._lock = threading.Lock()

    def fits(self, x: Tensor, states: Sequence[Tensor]) -> bool:
        """Whether x is (B, M) or (M), and the states are those of all layers, as they should be."""
        shape, real = x.shape, x.dtype
        if len(shape) not in (1, 2) or shape[-1] != self._width or real != self._real:
            return False
        if not x.is_cpu or 0 in shape:
            return False
        if not isinstance(states, (tuple, list)) or len(states) != len(self._sizes[0]):
            return False
        between = (len(self._sizes), *shape[:-1])
        for state, size in zip(states, self._sizes[0], strict=True):
            if not isinstance(state, Tensor) or state.dtype != real or not state.is_cpu:
                return False
            if state.shape != (*between, size):
                return False
        return True

    def run(
        self, owner: nn.Module, x: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """The output (B, S) and the states (layers, B, size) after reading x (B, M).

        None where it cannot be told whether the weights have changed, or they are not as x is.

        Raises:
            BuildError: the kernels cannot be built here.
        """
        held: Any = owner._parameters
        try:
            tensors = [held[name] for name in self._flat]
        except KeyError:  # a weight that is computed from others
            tensors = [getattr(owner, name) for name in self._flat]
        # The program has one place for the addresses that it reads and writes.
        with self._lock:
            return self._run(tensors, x, states)

    def _run(
        self, tensors: list[Tensor], x: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        try:
            versions = [(id(t), t._version, t.data_ptr()) for t in tensors]
        except RuntimeError:  # tensors made in inference mode count no changes
            return None
        key = (x.shape[0] if x.dim() == 2 else 1, x.dtype, torch.get_num_threads())
        if key != self._key or versions != self._versions:
            plain = all(type(t) in (Tensor, nn.Parameter) for t in tensors)
            if not plain or any(t.dtype != x.dtype or not t.is_cpu for t in tensors):
                return None
            self._key = None  # should preparing end half way
            self._prepare(tensors, x, *key)
            self._tensors, self._versions, self._key = tensors, versions, key
        x = streamed(x)
        y = x.new_empty((*x.shape[:-1], self._sizes[-1][0]))
        call = self._call
        call[X], call[Y] = x.data_ptr(), y.data_ptr()
        states, new, at = [streamed(s) for s in states], [], STATES
        for state in states:
            after = torch.empty_like(state)
            new.append(after)
            call[at], call[at + 1] = state.data_ptr(), after.data_ptr()
            at += 2
        self._engine.elman_step(self._address)
        return y, new

    def _prepare(
        self, tensors: list[Tensor], x: Tensor, batch: int, dtype: torch.dtype, threads: int
    ) -> None:
        """Pack the weights and describe the programs."""
        self._engine = engine(dtype)
        alive: list[Any] = []
        given, work = iter(tensors), 0
        layers, inputs = array("q"), array("q")
        with torch.no_grad():
            for k, cell in enumerate(self._cells):
                weights = {name: next(given) for name in self._names[k]}
                kernel = cell.kernel("forward", dtype)
                source = cell.plan.step.sequences[0]
                rows = x.new_zeros(1, batch, source.width)
                _, parameters = cell.hoisted.run(rows[0], weights)
                parameters = all_plain(p.detach() for p in parameters)
                dummies = [x.new_zeros(batch, size) for size in self._sizes[k]]
                described = kernel.described(
                    Shape(1, batch, False, False, None, None),
                    lambda b, rows=rows, weights=parameters: place(b, [rows], weights),  # type: ignore[misc]
                    [State(d, d.unsqueeze(0)) for d in dummies],
                    parameters,
                )
                alive.append((described, parameters))
                inputs.append(kernel.number(source) if source in kernel.buffers else -1)
                layers.append(described.address.value or 0)
                work += sum(w.numel() for w in parameters)
        shared = threads if batch * work >= SHARED_FROM * threads else 1
        states = len(self._sizes[0])
        call = [pointer_to(layers), pointer_to(inputs), len(layers), shared, states]
        self._call = array("q", [*call, 0, 0, *[0] * (2 * states)])
        self._address = ctypes.c_void_p(pointer_to(self._call))
        self._alive = [*alive, layers, inputs]


__all__ = ["Stream", "Unsupported"]
