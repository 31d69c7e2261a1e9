"""The simple recurrent network, and the network without recurrence beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.maps import Affine, Linear
from elman.errors import InputError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class _Simple(Cell):
    """A cell of one non-linearity, φ."""

    def __init__(
        self, input_size: int, hidden_size: int, nonlinearity: str = "tanh", **options: Any
    ):
        if nonlinearity not in NONLINEARITIES:
            raise InputError(
                f"nonlinearity must be one of {', '.join(NONLINEARITIES)}, "
                f"received {nonlinearity!r}."
            )
        self.nonlinearity: str = nonlinearity
        super().__init__(input_size, hidden_size, **options)

    def phi(self, z: Tensor) -> Tensor:
        """φ(z)."""
        return NONLINEARITIES[self.nonlinearity](z)


class Elman(_Simple):
    """The simple recurrent network (Elman, 1990).

    h' = φ(W x + U h + b), with φ = tanh, relu or the logistic sigmoid.

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    state = ("h",)
    net = Affine()

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        """One step."""
        return self.phi(z)


class Perceptron(_Simple):
    """The multilayer perceptron: no memory, the baseline for every recurrence.

    h' = φ(W x + b): its one state is its output, which the next step does not read.

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    state = ("h",)
    net = Linear(of="x", bias=True)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        return self.phi(self.net(x))
