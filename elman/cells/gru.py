"""The gated recurrent unit, in both its conventions."""

from __future__ import annotations

from torch import Tensor, sigmoid, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Affine


class GRU(Cell):
    """Gated recurrent unit, reset applied after the product (as in cuDNN, ``torch.nn``, Keras).

    r, z = σ(W x + U h + b)    n = tanh(W x + b + r ⊙ (U h + b'))    h' = (1 − z) ⊙ n + z ⊙ h

    The second bias b' stands inside the reset only in a cell with two biases.
    """

    state = ("h",)
    gates = Affine("r z n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        w, u = self.gates.input(x), self.gates.hidden(h)
        r, z = sigmoid(w.r + u.r), sigmoid(w.z + u.z)
        n = tanh(w.n + r * u.n)
        return (1 - z) * n + z * h


class GRUResetBefore(Cell):
    """Gated recurrent unit, reset applied before the product (Cho et al., 2014).

    r, z = σ(W x + U h + b)    n = tanh(W x + U (r ⊙ h) + b)    h' = (1 − z) ⊙ n + z ⊙ h
    """

    state = ("h",)
    gates = Affine("r z")
    candidate = Affine()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        gates = self.gates(x, h)
        r, z = sigmoid(gates.r), sigmoid(gates.z)
        n = tanh(self.candidate(x, r * h))
        return (1 - z) * n + z * h
