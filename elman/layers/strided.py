"""Recurrences whose time grows coarser upwards: each block hands on every s-th step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from torch import Tensor, nn, sigmoid

from elman.cells import Cell
from elman.errors import InputError
from elman.layers.recurrent import Recurrent


class StridedBlock(nn.Module):
    """A recurrence as stacks of linear recurrent units have it (after Orvieto et al., 2023).

    h = recurrence(LN(x))    y = x_s + dropout(h_s ⊙ σ(W h_s + b))

    x_s and h_s are each s-th step of x and h: with s = 4 steps 4, 8, 12, …, which have heard those
    between. The blocks above take fewer steps, so that they cost less and remember further (El
    Hihi & Bengio, 1996; Chan et al., 2016). Where y is not as wide as x, there is no x_s in it; an
    input of one number is not normalised, because nothing would be left of it.

    Args:
        cell: of the recurrence.
        stride: s.
        dropout: the probability, while training, to drop a number of what is added.
    """

    def __init__(self, cell: Cell, stride: int = 1, dropout: float = 0.0):
        super().__init__()
        self.recurrent, self.stride = Recurrent(cell), stride
        before, self.size = cell.input_size, self.recurrent.output_size
        self.norm = nn.LayerNorm(before) if before > 1 else nn.Identity()
        self.gate = nn.Linear(self.size, self.size)
        self.dropout = nn.Dropout(dropout)
        self.linked = before == self.size

    def forward(self, x: Tensor) -> Tensor:
        """y (T / s, B, H) from x (T, B, M)."""
        kept = slice(self.stride - 1, None, self.stride)
        h = self.recurrent(self.norm(x))[0][kept]
        y = self.dropout(h * sigmoid(self.gate(h)))
        return x[kept] + y if self.linked else y


class Pyramid(nn.Module):
    """Blocks on top of each other, time growing coarser, read as a whole: V LN(mean_t x_t) + b.

    Args:
        make: a cell of M inputs and H units, from M and H.
        inputs, outputs: of the whole.
        hidden_sizes: the width of each block.
        strides: s of each block; 1 for those for which there is none.
        dropout: of each block.

    Raises:
        InputError: there are more strides than blocks.
    """

    def __init__(
        self,
        make: Callable[[int, int], Cell],
        inputs: int,
        outputs: int,
        hidden_sizes: Sequence[int],
        strides: Sequence[int] = (),
        dropout: float = 0.0,
    ):
        super().__init__()
        if len(strides) > len(hidden_sizes):
            raise InputError(
                f"strides must be at most {len(hidden_sizes)}, one a layer, received {strides}."
            )
        size, self.blocks = inputs, nn.ModuleList()
        for width, stride in zip_longest(hidden_sizes, strides, fillvalue=1):
            block = StridedBlock(make(size, width), stride, dropout)
            self.blocks.append(block)
            size = block.size
        self.norm = nn.LayerNorm(size)
        self.readout = nn.Linear(size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """y (B, O) from x (T, B, M)."""
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x.mean(0)))
