"""The long short-term memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Affine, Blocks, Linear
from elman.errors import InputError


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = σ(W x + U h + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')
    """

    state = ("h", "c")
    gates = Affine("i f g o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        i, f, o = sigmoid(z.i), sigmoid(z.f), sigmoid(z.o)
        c = f * c + i * tanh(z.g)
        return o * tanh(c), c


class ProjectedLSTM(LSTM):
    """LSTM whose output is projected to fewer units (Sak et al., 2014).

    As :class:`LSTM`, but h' = R (o ⊙ tanh(c')), with R of shape (proj_size, H).

    Args:
        proj_size: the width of h, smaller than the hidden size.
    """

    projection = Linear(to="h", weight="weight_hr")

    def __init__(self, input_size: int, hidden_size: int, proj_size: int, **options: Any):
        if not 0 < proj_size < hidden_size:
            raise InputError(
                f"proj_size must lie between 1 and hidden_size − 1 = {hidden_size - 1}, "
                f"received {proj_size}."
            )
        self.proj_size = proj_size
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The projected output and the cell state."""
        return self.proj_size, self.hidden_size

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        h, c = super().step(z, h, c)
        return self.projection(h), c
