"""The two sides of a comparison in PyTorch: elman's network, and what stands against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from elman.bench.cells import CELLS
from elman.bench.rows import Shape
from elman.compiler.engine import engine
from elman.errors import ElmanError
from elman.layers import Recurrent

STREAMED = 16
"""Steps in one call of ``step``, each from the state that the one before it left."""


class Side:
    """A network and what is done with it: each method is one call to measure.

    Args:
        network: called as ``torch.nn.LSTM`` is.
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
        y, _ = self.network(x)
        y.backward(self.gradient)
        self.network.zero_grad()
        assert x.grad is not None
        return x.grad

    def fit(self) -> Tensor:
        """Forward and backward where x is data, whose gradient nobody wants; the output."""
        y, _ = self.network(self.x)
        y.backward(self.gradient)
        self.network.zero_grad()
        return y.detach()

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


class Elman(Side):
    """elman's own side."""

    @torch.no_grad()
    def step(self) -> Tensor:
        """See :meth:`Side.step`."""
        x, state = self.x[0], self.state
        for _ in range(STREAMED):
            y, state = self.network.step(x, state)
        return y.unsqueeze(0)


class Loop(Elman):
    """The step in PyTorch's operators, called in a loop in Python."""

    def __init__(self, network: Any, x: Tensor):
        with engine("reference"):
            super().__init__(network, x)

    def train(self) -> Tensor:
        """See :meth:`Side.train`."""
        with engine("reference"):
            return super().train()

    def fit(self) -> Tensor:
        """See :meth:`Side.fit`."""
        with engine("reference"):
            return super().fit()

    def forward(self) -> Tensor:
        """See :meth:`Side.forward`."""
        with engine("reference"):
            return super().forward()

    def step(self) -> Tensor:
        """See :meth:`Side.step`."""
        with engine("reference"):
            return super().step()


def own(cell: str, shape: Shape) -> Recurrent:
    """elman's network of that cell."""
    return Recurrent(CELLS[cell].make(shape.input, shape.hidden), shape.layers)


def torch_network(cell: str, shape: Shape, network: Recurrent) -> nn.RNNBase:
    """What ``torch.nn`` has instead, with the weights of ``network`` where it is the same cell."""
    other = CELLS[cell].torch(shape.input, shape.hidden, shape.layers)
    if CELLS[cell].same:
        other.load_state_dict(network.state_dict())
    return other


def check_agreement(elman: Callable[[], Tensor], peer: Callable[[], Tensor], what: str) -> None:
    """Raise where the two sides do not compute the same.

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


def products(network: nn.Module, work: str = "forward") -> int:
    """The multiplications of one step of one sequence: each matrix is used once.

    The gradient of a product is two more; with ``fit``, nobody wants that of the input.
    """
    once = sum(p.numel() for p in network.parameters() if p.dim() == 2)
    if work == "train":
        return 3 * once
    if work == "fit":
        assert isinstance(network, Recurrent)
        first = network.cells[0]
        columns = products(first) // (first.input_size + first.hidden_size)
        return 3 * once - columns * first.input_size
    return once
