"""The network that most studies train, and how its cell starts so that it remembers for long."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from elman import cells
from elman.cells import registry
from elman.cells.contract import Cell
from elman.layers import Recurrent
from elman.studies.batch import Batch


class Reader(nn.Module):
    """A recurrent network with an affine read-out of every step: y_t = V h_t + b.

    Args:
        cell: of the recurrence.
        outputs: O, the width of y.
        layers: of the recurrence.
        options: others of :class:`elman.Recurrent`.
    """

    def __init__(self, cell: Cell, outputs: int, layers: int = 1, **options: Any):
        super().__init__()
        self.recurrent = Recurrent(cell, layers, **options)
        self.readout = nn.Linear(self.recurrent.output_size, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """y (T, B, O) of every step."""
        return self.readout(self._states(batch))

    def last(self, batch: Batch) -> Tensor:
        """y (B, O) of each sequence's last step."""
        h = self._states(batch)
        if batch.lengths is None:
            return self.readout(h[-1])
        ends = (batch.lengths - 1).view(1, -1, 1).expand(1, -1, h.shape[-1]).to(h.device)
        return self.readout(h.gather(0, ends)[0])

    def _states(self, batch: Batch) -> Tensor:
        """h (T, B, H) of every step, in the weights' type."""
        return self.recurrent(batch.x.to(self.readout.weight), lengths=batch.lengths)[0]


def make_cell(
    name: str, inputs: int, hidden: int, memory: int = 0, forget_bias: float | None = None
) -> Cell:
    """A new cell, started so that it remembers for ``memory`` steps where it can.

    With T the memory, gates start at b_f ~ log U(1, T − 1) and b_i = −b_f, a GRU's at b_z as b_f
    (Tallec & Ollivier, 2018), and the eigenvalues of a linear recurrent unit in the ring
    1 − 1/T ≤ |λ| ≤ 1. Cells without such gates have nothing to set.

    Args:
        name: of the cell, as `elman cells` lists it.
        inputs, hidden: M and H.
        memory: T; 0 starts it plainly.
        forget_bias: what b_f, or a GRU's b_z, starts at in place of that.
    """
    ring = {"radius": (1 - 1 / memory, 1.0)} if memory and name == "lru" else {}
    cell = registry.make(name, inputs, hidden, **ring)
    if memory:
        _chrono(cell, memory)
    keeps = _keeping(cell)
    if keeps and forget_bias is not None:
        cell.fill_bias(keeps, forget_bias)
    return cell


def _keeping(cell: Cell) -> str:
    """The block of the gate that multiplies the memory: an LSTM's f, a GRU's z, or nothing."""
    if isinstance(cell, cells.GRU | cells.GRUResetBefore):
        return "z"
    blocks = {block for name, _ in cell.named_parameters() for block in cell.blocks_of(name)}
    return "f" if "c" in cell.state and "f" in blocks else ""


def _chrono(cell: Cell, longest: int) -> None:
    drawn = torch.empty(cell.hidden_size).uniform_(1, max(2, longest - 1)).log()
    starts = {_keeping(cell): drawn, "i": -drawn}
    for name, parameter in cell.named_parameters():
        blocks = cell.blocks_of(name)
        for k, block in enumerate(blocks):
            if name.startswith("bias_") and block in starts:
                second = name.startswith("bias_hh")  # torch.nn's: the sum of both counts
                start = torch.zeros_like(drawn) if second else starts[block]
                parameter.data.view(len(blocks), -1)[k] = start
