"""Networks whose transition depends on the input: a product of the two stands before U."""

from __future__ import annotations

from torch import Tensor, sigmoid, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Affine, Linear


class MultiplicativeRNN(Cell):
    """Multiplicative recurrent network (Sutskever et al., 2011).

    m = (A x) ⊙ (B h)    h' = tanh(W x + U m + b)

    Parameters: H·(M + H + 1) + H·(M + H).
    """

    state = ("h",)
    net = Affine()
    read = Linear(of="x")
    recall = Linear(of="h")

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        m = self.read(x) * self.recall(h)
        return tanh(self.net(x, m))


class MultiplicativeLSTM(Cell):
    """Multiplicative LSTM: every gate sees m in place of h (Krause et al., 2016).

    m = (A x) ⊙ (B h)
    i, f, o = σ(W x + U m + b)    c' = f ⊙ c + i ⊙ tanh(W x + U m + b)    h' = o ⊙ tanh(c')

    Parameters: 4·H·(M + H + 1) + H·(M + H).
    """

    state = ("h", "c")
    gates = Affine("i f g o")
    read = Linear(of="x")
    recall = Linear(of="h")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m = self.read(x) * self.recall(h)
        z = self.gates(x, m)
        i, f, o = sigmoid(z.i), sigmoid(z.f), sigmoid(z.o)
        c = f * c + i * tanh(z.g)
        return o * tanh(c), c
