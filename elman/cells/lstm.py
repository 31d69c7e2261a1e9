"""The long short-term memory and its kin."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Affine, Blocks, Diagonal, Linear
from elman.cells.sizes import positive
from elman.errors import InputError


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = σ(W x + U h + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')

    Parameters: 4·H·(M + H + 1).
    """

    state = ("h", "c")
    gates = Affine("i f g o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o = sigmoid(z.i), sigmoid(z.f), sigmoid(z.o)
        c = f * c + i * tanh(z.g)
        return o * tanh(c), c


class LSTMWithoutForgetGate(Cell):
    """LSTM as it was first, without a forget gate (Hochreiter & Schmidhuber, 1997).

    i, o = σ(W x + U h + b)    c' = c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')

    Nothing empties the memory: over long sequences it grows and saturates.

    Parameters: 3·H·(M + H + 1).
    """

    state = ("h", "c")
    gates = Affine("i g o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, o = sigmoid(z.i), sigmoid(z.o)
        c = c + i * tanh(z.g)
        return o * tanh(c), c


class CoupledLSTM(Cell):
    """LSTM that forgets as much as it writes: coupled gates, CIFG (Greff et al., 2017).

    i, o = σ(W x + U h + b)    c' = (1 − i) ⊙ c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')

    Parameters: 3·H·(M + H + 1).
    """

    state = ("h", "c")
    gates = Affine("i g o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, o = sigmoid(z.i), sigmoid(z.o)
        c = (1 - i) * c + i * tanh(z.g)
        return o * tanh(c), c


class PeepholeLSTM(Cell):
    """LSTM whose gates see the memory through peepholes (Gers & Schmidhuber, 2000).

    i, f = σ(W x + U h + v ⊙ c + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)
    o = σ(W x + U h + v ⊙ c' + b)    h' = o ⊙ tanh(c')

    Parameters: 4·H·(M + H + 1) + 3·H.
    """

    state = ("h", "c")
    gates = Affine("i f g o")
    peephole = Diagonal("i f o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        v = self.peephole
        i, f = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c)
        c = f * c + i * tanh(z.g)
        return sigmoid(z.o + v.o * c) * tanh(c), c


class PreviousPeepholeLSTM(PeepholeLSTM):
    """LSTM whose gates all see the memory before the step (after Gers & Schmidhuber, 2000).

    i, f, o = σ(W x + U h + v ⊙ c + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')

    A variant, simpler than the paper's, in which the output gate sees c'.

    Parameters: 4·H·(M + H + 1) + 3·H.
    """

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        v = self.peephole
        i, f, o = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c), sigmoid(z.o + v.o * c)
        c = f * c + i * tanh(z.g)
        return o * tanh(c), c


class ProjectedLSTM(LSTM):
    """LSTM whose output is projected to fewer units (Sak et al., 2014).

    i, f, o = σ(W x + U h + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)    h' = R (o ⊙ tanh(c'))

    Parameters: 4·H·(M + P + 1) + P·H.

    Args:
        proj_size: P, the width of h, smaller than the hidden size.
    """

    projection = Linear(to="h", weight="weight_hr")

    def __init__(self, input_size: int, hidden_size: int, proj_size: int, **options: Any):
        hidden_size = positive("hidden_size", hidden_size)
        proj_size = positive("proj_size", proj_size)
        if proj_size >= hidden_size:
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
        h, c = super().step(z, h, c)
        return self.projection(h), c
