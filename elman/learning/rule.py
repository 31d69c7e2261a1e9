"""What a learning rule is: from a network, a loss and the windows of a stream to gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from elman import nested
from elman.errors import InputError
from elman.layers import Recurrent
from elman.layers.sequences import Sequences

LossFunction = Callable[[Tensor, Any], Tensor]
"""From the outputs y (T, B, S) of a window and their targets to the window's loss, a scalar."""

Lengths = Tensor | Sequence[int] | None


def detach(state: Any) -> Any:
    """The same state as a constant: no gradient flows through it into the past."""
    return nested.map(Tensor.detach, state)


class Rule:
    """How a recurrent network gets the gradient of its loss.

    A stream comes in windows, x (T, B, M) with their targets, each going on where the last one
    ended; T may be 1. The rule runs the network over a window and adds the gradient of its loss
    to every ``.grad``: of the network's parameters, and of those that the loss has of its own,
    such as an output layer's. An update may follow every window::

        head = nn.Linear(64, 1)
        rule = RTRL(network, lambda y, target: mse_loss(head(y), target))
        for x, target in stream:
            optimizer.zero_grad()
            loss = rule.gradients(x, target)
            optimizer.step()

    Args:
        network: any cell, any number of layers.
        loss: from the outputs y (T, B, S) of a window and their targets to a scalar.

    Attributes:
        state: the network's state after the last window, as the network hands it over; None
            before the first.

    Raises:
        InputError: the rule cannot be used with this network.
    """

    def __init__(self, network: Recurrent, loss: LossFunction):
        if not isinstance(network, Recurrent):
            raise InputError(
                f"network must be an elman.Recurrent or one of its kin, such as "
                f"elman.LSTM(28, 256), received {type(network).__name__}."
            )
        self.network, self.loss = network, loss
        self.state: Any = None

    def gradients(
        self, x: Tensor, target: Any, *, resets: Tensor | None = None, lengths: Lengths = None
    ) -> Tensor:
        """Add the gradient of this window's loss to every ``.grad``; return the loss.

        Args:
            x: (T, B, M), or (B, T, M) for a network with ``batch_first``.
            target: whatever the loss takes.
            resets: (T, B) bool, laid out as x: true where a new sequence begins with that step.
                Nothing before it is learned from for what comes after it.
            lengths: (B), for :class:`~elman.learning.BPTT` alone: where each sequence ends.

        Raises:
            InputError: the window does not go on from the last one, a shape does not fit, or
                lengths are given to a rule that reads streams.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the past: the next window begins a new stream."""
        self.state = None

    @property
    def memory(self) -> Any:
        """All that is carried from window to window, in tuples; None before the first.

        Given back to a rule of the same network, it goes on where that one stood.
        """
        return self.state

    @memory.setter
    def memory(self, kept: Any) -> None:
        self.reset()
        self.state = kept

    def _back(self, y: Tensor, target: Any) -> Tensor:
        """The loss of the outputs y, propagated back."""
        loss = self.loss(y, target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            received = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(
                f"the loss must be a scalar, received {received}: take its mean or its sum."
            )
        loss.backward()
        return loss.detach()

    def _goes_on(self, x: Tensor, resets: Tensor | None, lengths: Any) -> Tensor | None:
        """Refuse a window that cannot go on from where the last one ended; its resets, by x."""
        if lengths is not None:
            raise InputError(
                f"{type(self).__name__} reads streams, whose rows go on from window to window and "
                "have no lengths: say by resets where a sequence begins, or use BPTT."
            )
        Sequences.of(x, None, resets, self.network.input_size, self.network.batch_first)
        for state in nested.leaves(self.state):
            if x.dim() == 3 and state.shape[-2] != x.shape[1]:
                raise InputError(
                    f"the stream had {state.shape[-2]} rows and this window has {x.shape[1]}: "
                    "call reset() where a new stream begins."
                )
        return None if resets is None else resets.to(x.device)

    def _one_direction(self) -> None:
        """Refuse networks that do not read a stream forward, step after step."""
        name = type(self).__name__
        if self.network.bidirectional:
            raise InputError(
                f"{name} reads a stream as it comes, and a bidirectional network reads the "
                "future: use one direction, or BPTT."
            )
        if self.network.batch_first:
            raise InputError(
                f"{name} takes windows (T, B, M), time first: make the network without "
                "batch_first, or use BPTT."
            )
