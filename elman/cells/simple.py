"""The simple recurrent network, and the network without recurrence beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Affine, Cell, Linear
from elman.errors import InputError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class Elman(Cell):
    """The simple recurrent network (Elman, 1990).

    h' = φ(W x + U h + b), with φ = tanh, relu or the logistic sigmoid.

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    state = ("h",)
    nonlinearity: str
    net = Affine()

    def __init__(
        self, input_size: int, hidden_size: int, nonlinearity: str = "tanh", **options: Any
    ):
        if nonlinearity not in NONLINEARITIES:
            raise InputError(
                f"nonlinearity must be one of {', '.join(NONLINEARITIES)}, "
                f"received {nonlinearity!r}."
            )
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, **options)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        """One step."""
        return NONLINEARITIES[self.nonlinearity](z)


class Perceptron(Cell):
    """The multilayer perceptron: no memory, the baseline for every recurrence.

    h' = φ(W x + b): its one state is its output, which the next step does not read.

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    state = ("h",)
    nonlinearity: str
    net = Linear(of="x", bias=True)

    __init__ = Elman.__init__

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        return NONLINEARITIES[self.nonlinearity](self.net(x))
