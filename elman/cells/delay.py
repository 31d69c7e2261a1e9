"""Memory before recurrence: cells that see a window of what was there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Linear
from elman.cells.sizes import positive


def shifted(window: Tensor, x: Tensor) -> Tensor:
    """A window of values side by side, the oldest first, one step later: x has joined it."""
    size = x.shape[-1]
    return x if window.shape[-1] == size else torch.cat([window[..., size:], x], -1)


class TDNN(Cell):
    """A layer of a time-delay network (Waibel et al., 1989): a causal convolution.

    h' = tanh(W_0 x_t + W_1 x_{t−1} + … + W_K x_{t−K} + b)

    The weights are shared over time; the second state is the window of the K inputs before, the
    oldest first. In a stack, every layer has its delays.

    Parameters: H·((K + 1)·M + 1).

    Args:
        delays: K; 2 by default.
    """

    state = ("h", "past")
    bookkeeping = ("past",)
    now = Linear(of="x", bias=True)
    delayed = Linear(of="past")

    def __init__(self, input_size: int, hidden_size: int, delays: int = 2, **options: Any):
        self.delays = positive("delays", delays)
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The output, and the inputs before."""
        return self.hidden_size, self.delays * self.input_size

    def step(self, x: Tensor, h: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        return tanh(self.now(x) + self.delayed(past)), shifted(past, x)


class NARX(Cell):
    """Non-linear autoregression with external input, running freely (Lin et al., 1996).

    h = tanh(W_0 x_t + … + W_Kx x_{t−Kx} + U_1 y_{t−1} + … + U_Ky y_{t−Ky} + b)    y' = V h + b_o

    The states beside y are the windows of the inputs and of the outputs before, the oldest first.
    :class:`elman.NARX` trains it on the true outputs.

    Parameters: H·((Kx + 1)·M + Ky·O + 1) + O·(H + 1).

    Args:
        output_size: O, the width of y; the hidden size if not given.
        input_delays: Kx; 2 by default.
        output_delays: Ky; 2 by default.
    """

    state = ("y", "inputs", "outputs")
    bookkeeping = ("inputs", "outputs")
    now = Linear(of="x", bias=True)
    delayed = Linear(of="inputs")
    feedback = Linear(of="outputs")
    out = Linear(to="y", bias=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        input_delays: int = 2,
        output_delays: int = 2,
        **options: Any,
    ):
        if output_size is None:
            output_size = positive("hidden_size", hidden_size)
        self.output_size = positive("output_size", output_size)
        self.input_delays = positive("input_delays", input_delays)
        self.output_delays = positive("output_delays", output_delays)
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The output, the inputs before and the outputs before."""
        return (
            self.output_size,
            self.input_delays * self.input_size,
            self.output_delays * self.output_size,
        )

    def step(self, x: Tensor, y: Tensor, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, ...]:
        h = tanh(self.now(x) + self.delayed(inputs) + self.feedback(outputs))
        y = self.out(h)
        return y, shifted(inputs, x), shifted(outputs, y)
