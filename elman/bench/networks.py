"""Networks and the calls that are measured: elman's, and those of PyTorch beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from elman.bench.cells import BUILT_IN, CELLS
from elman.bench.measurement import Shape
from elman.cells import Cell
from elman.errors import ElmanError
from elman.layers import Recurrent

STREAMED = 16
"""Steps in one call of ``step``, each from the state that the one before it left."""


class TorchCalls:
    """What is measured of a network that is called as ``torch.nn.LSTM`` is: a method a workload.

    Args:
        network: from the input and a state to the output and the state after it.
        x: the input (T, B, M).
    """

    def __init__(self, network: Any, x: Tensor):
        self.network, self.x = network, x.clone()
        with torch.no_grad():
            y, self.state = network(self.x)
        self.gradient = torch.ones_like(y)

    def train(self) -> Tensor:
        """Forward and backward; the gradient of x."""
        x = self.x.detach().requires_grad_()
        self._update(x)
        assert x.grad is not None
        return x.grad

    def fit(self) -> Tensor:
        """Forward and backward where x is data, whose gradient nobody wants; the output."""
        return self._update(self.x).detach()

    def _update(self, x: Tensor) -> Tensor:
        y, _ = self.network(x)
        y.backward(self.gradient)
        self.network.zero_grad()
        return y

    @torch.no_grad()
    def forward(self) -> Tensor:
        """All steps, without a gradient; the output."""
        return self.network(self.x)[0]

    @torch.no_grad()
    def step(self) -> Tensor:
        """A stream, step by step; the last step's output."""
        x, state = self.x[:1], self.state
        for _ in range(STREAMED):
            y, state = self.network(x, state)
        return y


class ElmanCalls(TorchCalls):
    """The same of an elman network, which has a method for one step of a stream."""

    @torch.no_grad()
    def step(self) -> Tensor:
        """A stream, step by step; the last step's output."""
        x, state = self.x[0], self.state
        for _ in range(STREAMED):
            y, state = self.network.step(x, state)
        return y.unsqueeze(0)


def elman_network(cell: str, shape: Shape) -> Recurrent:
    """elman's network of that cell."""
    return Recurrent(CELLS[cell](shape.input, shape.hidden), shape.layers)


def torch_network(cell: str, shape: Shape, network: Recurrent) -> nn.RNNBase:
    """What ``torch.nn`` has: the same cell with the weights of ``network``, or else an LSTM."""
    other = BUILT_IN.get(cell, nn.LSTM)(shape.input, shape.hidden, shape.layers)
    if cell in BUILT_IN:
        other.load_state_dict(network.state_dict())
    return other


def check_agreement(elman: Callable[[], Tensor], peer: Callable[[], Tensor], what: str) -> None:
    """Raise where two calls do not compute the same.

    Raises:
        ElmanError: they differ by more than 1e-4 of the largest value.
    """
    a, b = elman(), peer()
    worst = float((a - b).abs().max()) / max(1.0, float(a.abs().max()))
    if not worst <= 1e-4:
        raise ElmanError(
            f"the two sides of {what} do not compute the same, so their times mean nothing: they "
            f"differ by {worst:.1g}, expected 1e-4 at most; this is a fault."
        )


def products(network: nn.Module, workload: str = "forward") -> int:
    """The multiplications of one step of one sequence: each matrix is used once.

    The gradient of a product is two more; with ``fit``, nobody wants that of the input.
    """
    once = sum(p.numel() for p in network.parameters() if p.dim() == 2)
    if workload == "train":
        return 3 * once
    if workload == "fit":
        assert isinstance(network, Recurrent)
        return 3 * once - columns(network.cells[0]) * network.cells[0].input_size
    return once


def columns(cell: Cell) -> int:
    """The rows that W and U have together, as many columns as their product with a batch has."""
    return products(cell) // (cell.input_size + cell.hidden_size)
