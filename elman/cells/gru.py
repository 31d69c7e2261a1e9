"""The gated recurrent unit, in both its conventions, and its smaller kin."""

from __future__ import annotations

from torch import Tensor, sigmoid, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Affine


class GRU(Cell):
    """Gated recurrent unit, reset after the product, as in ``torch.nn`` (Cho et al., 2014).

    r, z = σ(W x + U h + b)    n = tanh(W x + b + r ⊙ (U h + b'))    h' = (1 − z) ⊙ n + z ⊙ h

    So do cuDNN and Keras. The second bias b' is there only in a cell with two biases.

    Parameters: 3·H·(M + H + 1).
    """

    state = ("h",)
    gates = Affine("r z n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        w, u = self.gates.input(x), self.gates.hidden(h)
        r, z = sigmoid(w.r + u.r), sigmoid(w.z + u.z)
        n = tanh(w.n + r * u.n)
        return (1 - z) * n + z * h


class GRUResetBefore(Cell):
    """Gated recurrent unit, reset before the product, as in its paper (Cho et al., 2014).

    r, z = σ(W x + U h + b)    n = tanh(W x + U (r ⊙ h) + b)    h' = (1 − z) ⊙ n + z ⊙ h

    Parameters: 3·H·(M + H + 1).
    """

    state = ("h",)
    gates = Affine("r z")
    candidate = Affine()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        gates = self.gates(x, h)
        r, z = sigmoid(gates.r), sigmoid(gates.z)
        n = tanh(self.candidate(x, r * h))
        return (1 - z) * n + z * h


class MGU(Cell):
    """Minimal gated unit: the GRU with one gate (Zhou et al., 2016).

    u = σ(W x + U h + b)    n = tanh(W x + U (u ⊙ h) + b)    h' = (1 − u) ⊙ h + u ⊙ n

    The paper calls the gate f, for forget; but a large one erases, where an LSTM's f keeps.

    Parameters: 2·H·(M + H + 1).
    """

    state = ("h",)
    gate = Affine("u")
    candidate = Affine()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        u = sigmoid(self.gate(x, h).u)
        n = tanh(self.candidate(x, u * h))
        return (1 - u) * h + u * n
