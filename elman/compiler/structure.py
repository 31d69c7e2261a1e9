"""Which numbers of a cell's states its next states depend on, read off the traced step.

Where no unit reads another one, the Jacobian of a step is a small matrix for each unit and not one
of all states; states that nobody reads have no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from elman.cells.contract import Cell
from elman.compiler.ir import Buffer, Node, is_reduction
from elman.compiler.lower import LoweredStep, Lowering, decompose
from elman.compiler.record import Unsupported
from elman.compiler.trace import trace


class Structure(NamedTuple):
    """The Jacobian ∂s'/∂s of a step, s the states that are read, side by side: n numbers.

    Attributes:
        read: the indices of the states that the step reads.
        width: n.
        units: U, into which n falls: number i reads number j only where i ≡ j (mod U). So it is
            U matrices of k × k, k = n/U: a diagonal where U = n, dense where U = 1.
    """

    read: tuple[int, ...]
    width: int
    units: int

    @property
    def kind(self) -> str:
        """``"diagonal"``, ``"block"`` or ``"dense"``; ``"none"`` where no state is read."""
        if not self.width:
            return "none"
        if self.units == self.width:
            return "diagonal"
        return "dense" if self.units == 1 else "block"


def structure(cell: Cell, real: torch.dtype) -> Structure:
    """The structure of the Jacobian of ``cell``; dense in all states where the step has no graph.

    Args:
        cell: the cell.
        real: the type of its numbers.

    Raises:
        InputError: the cell does not keep to its contract.
    """
    sizes = cell.state_sizes
    try:
        lowered = Lowering(trace(cell, decompose, real)[1]).step()
    except Unsupported:
        return Structure(tuple(range(len(sizes))), sum(sizes), 1)
    edges = list(_edges(lowered))
    read = tuple(sorted({state for state, _, _ in edges}))
    width = sum(sizes[k] for k in read)
    # What is written to a state that nobody reads comes back to none.
    shifts = [shift for _, new, shift in edges if new in read]
    if None in shifts:
        return Structure(read, width, min(1, width))
    units = math.gcd(*(sizes[k] for k in read), *(abs(s) for s in shifts if s))
    return Structure(read, width, units)


def _edges(lowered: LoweredStep) -> Iterator[tuple[int, int, int | None]]:
    """(state that is read, state that is written, distance in the row or None for any distance)."""
    for new, value in enumerate(lowered.new):
        begin = 0
        for node, width in value.pieces:
            yield from ((state, new, shift) for state, shift in _read(node, begin, width))
            begin += width


def _read(node: Node, begin: int, width: int) -> set[tuple[int, int | None]]:
    """The states that ``width`` units from ``begin`` on depend on by ``node``, and how far off."""
    found: set[tuple[int, int | None]] = set()
    seen: set[tuple[int, bool]] = set()
    stack: list[tuple[Node, bool]] = [(node, True)]
    while stack:
        each, own = stack.pop()
        if (id(each), own) in seen:
            continue
        seen.add((id(each), own))
        if each.op == "leaf":
            if each.buffer.kind == "state":
                aligned = own and each.width == width
                found.add((each.buffer.index, each.offset - begin if aligned else None))
            else:
                stack += [(source, False) for source in _sources(each.buffer)]
                found |= {(k, None) for k in _multiplied(each.buffer)}
        stack += [(a, own and not is_reduction(each)) for a in each.args]
    return found


def _sources(buffer: Buffer) -> list[Node]:
    """The nodes that are multiplied by a matrix to fill ``buffer``, or are written to it."""
    if buffer.product is not None:
        return _sources(buffer.product.source)
    return [node for _, node in buffer.stores]


def _multiplied(buffer: Buffer) -> set[int]:
    """The state that is itself multiplied by a matrix to fill ``buffer``."""
    if buffer.product is None:
        return set()
    source = buffer.product.source
    return {source.index} if source.kind == "state" else _multiplied(source)
