"""How the states of a stack are handed over: as ``torch.nn`` lays them out, for any cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman import nested
from elman.cells.contract import Cell
from elman.errors import InputError


class States:
    """Between one tuple of states a cell and the user's (h, c), stacked over the cells.

    A cell with one state hands over a tensor, others a tuple with a tensor for each state. Each
    is (cells, B, S); where the cells of a stack differ in S it is a tuple (B, S) over the cells.
    """

    def __init__(self, cells: Sequence[Cell]):
        self.names = cells[0].state
        self.sizes = [cell.state_sizes for cell in cells]

    def join(self, states: Sequence[Any]) -> Any:
        """From the states of each cell, ((T,) B, S), to what the user holds."""
        joined = []
        for k, column in enumerate(zip(*states, strict=True)):
            # By what the cells say: where a program is recorded, shapes are tensors.
            alike = len({sizes[k] for sizes in self.sizes}) == 1
            # Copied, where nothing is stacked, too: a state shares no memory with the output.
            joined.append(
                torch.stack(column, dim=-3) if alike else tuple(s.clone() for s in column)
            )
        return joined[0] if len(joined) == 1 else tuple(joined)

    def split(self, state: Any, batch: int | None) -> list[tuple[Tensor, ...]]:
        """From what the user holds to the states (B, S) of each cell, with every shape checked.

        Where ``batch`` is None, what the user holds is one sequence's and has no batch axis.
        """
        states = (state,) if len(self.names) == 1 else state
        if not isinstance(states, (tuple, list)) or len(states) != len(self.names):
            raise InputError(
                f"the state must be the {len(self.names)} tensors ({', '.join(self.names)}), "
                f"received {_describe(state)}."
            )
        columns = []
        for k, (name, given) in enumerate(zip(self.names, states, strict=True)):
            rows = () if batch is None else (batch,)
            expected = [(*rows, sizes[k]) for sizes in self.sizes]
            parts = _parts(given)
            received = [tuple(s.shape) for s in parts]
            if received != expected:
                want = (len(expected), *expected[0]) if len(set(expected)) == 1 else expected
                raise InputError(
                    f"the state {name} must have the shape {want}, received {_describe(given)}."
                )
            columns.append([s.unsqueeze(0) for s in parts] if batch is None else parts)
        return list(zip(*columns, strict=True))


def _parts(given: Any) -> list[Tensor]:
    """The state of each cell out of a tensor stacked over them, or out of a tuple over them."""
    if isinstance(given, Tensor):
        return list(given) if given.dim() else []
    parts = list(given) if isinstance(given, (tuple, list)) else []
    return parts if all(isinstance(part, Tensor) for part in parts) else []


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{len(value)} values ({', '.join(map(_describe, value))})"
    return repr(value)


def ordinary(value: Any) -> Any:
    """``value`` with copies of the tensors made in inference mode, which autograd cannot save."""
    return nested.map(lambda t: t.clone() if t.is_inference() else t, value)
