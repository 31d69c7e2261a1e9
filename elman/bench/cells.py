"""The cells that are compared: the library's three, and two that somebody might write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn, sigmoid, tanh

from elman.cells import Affine, Blocks, Cell, Diagonal, Linear
from elman.cells.registry import make


class PeepholeLSTM(Cell):
    """LSTM whose gates see the memory (Gers & Schmidhuber, 2000).

    i, f = σ(W x + U h + v ⊙ c + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)
    o = σ(W x + U h + v ⊙ c' + b)    h' = o ⊙ tanh(c')
    """

    state = ("h", "c")
    gates = Affine("i f g o")
    peephole = Diagonal("i f o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        v = self.peephole
        i, f = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c)
        c = f * c + i * tanh(z.g)
        return sigmoid(z.o + v.o * c) * tanh(c), c


class LongExpressiveMemory(Cell):
    """Long expressive memory: two states with time steps of their own (Rusch et al., 2022).

    δ₁, δ₂ = Δt σ(W x + U y + b)    c' = (1 − δ₁) ⊙ c + δ₁ ⊙ tanh(W x + U y + b)
    y' = (1 − δ₂) ⊙ y + δ₂ ⊙ tanh(W x + V c' + b)    with Δt = 1

    As many weights as an LSTM has, but the last map multiplies what the step has just made.
    """

    state = ("y", "c")
    gates = Affine("fast slow c")
    drive = Linear(of="x", to="hidden", bias=True)
    recall = Linear(of="c", to="hidden")

    def step(self, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        z = self.gates(x, y)
        c = c + sigmoid(z.fast) * (tanh(z.c) - c)
        return y + sigmoid(z.slow) * (tanh(self.drive(x) + self.recall(c)) - y), c


@dataclass(frozen=True)
class Subject:
    """A cell to compare.

    Attributes:
        make: from input and hidden size to the cell.
        torch: what a user of ``torch.nn`` would take instead.
        same: whether that computes the same, with the same weights.
    """

    make: Callable[[int, int], Cell]
    torch: Callable[[int, int, int], nn.RNNBase]
    same: bool = True


CELLS = {
    "lstm": Subject(lambda width, hidden: make("lstm", width, hidden, biases=2), nn.LSTM),
    "gru": Subject(lambda width, hidden: make("gru", width, hidden, biases=2), nn.GRU),
    "rnn": Subject(lambda width, hidden: make("rnn", width, hidden, biases=2), nn.RNN),
    "peephole": Subject(PeepholeLSTM, nn.LSTM, same=False),
    "lem": Subject(LongExpressiveMemory, nn.LSTM, same=False),
}
"""By name. ``peephole`` and ``lem`` (long expressive memory) stand for a cell of one's own."""

OWN = ("peephole", "lem")
