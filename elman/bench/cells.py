"""The cells that are compared: the library's, and two that stand for a cell of one's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn, sigmoid, tanh

from elman.cells import Affine, Blocks, Cell, Linear, PeepholeLSTM
from elman.cells.registry import make


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
        z: Blocks = self.gates(x, y)
        c = c + sigmoid(z.fast) * (tanh(z.c) - c)
        return y + sigmoid(z.slow) * (tanh(self.drive(x) + self.recall(c)) - y), c


BUILT_IN: dict[str, Callable[[int, int, int], nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}
"""The cells that ``torch.nn`` has too: it computes the same with the same weights."""

OWN: dict[str, Callable[[int, int], Cell]] = {
    "peephole": PeepholeLSTM,
    "lem": LongExpressiveMemory,
}
"""Cells that a user would write; who has ``torch.nn`` alone takes its LSTM in their place."""

CELLS: dict[str, Callable[[int, int], Cell]] = {
    **{name: partial(make, name, biases=2) for name in BUILT_IN},
    **OWN,
}
"""From the name of a cell to what makes it from its input and hidden sizes."""
