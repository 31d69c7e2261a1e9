"""Backpropagation through time, over whole sequences and truncated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

Window = TypeVar("Window")
Loss = Callable[[Window, Any], tuple[Tensor, Any]]
"""From a window and the state before it to the loss of the window and the state after it."""


def detach(state: Any) -> Any:
    """The same state as a constant: no gradient flows through it into the past."""
    if isinstance(state, Tensor):
        return state.detach()
    return None if state is None else type(state)(detach(part) for part in state)


class BPTT:
    """Backpropagation through time (Werbos, 1990).

    ∂L/∂U = Σ_t Σ_{k ≤ t} δ_{t,k} h_{k−1}ᵀ, with δ_{t,k} = ∂L_t/∂z_k = diag(f'(z_k)) Uᵀ δ_{t,k+1}.

    Each window is a whole sequence: it starts from the network's own start.

    Args:
        loss: from a window and the state before it to its loss, a scalar, and the state after it.
        backward: runs the backward pass of a scalar; ``Tensor.backward`` if not given.
    """

    def __init__(self, loss: Loss[Any], backward: Callable[[Tensor], Any] = Tensor.backward):
        self.loss, self.backward = loss, backward
        self.state: Any = None

    def gradients(self, window: Any) -> Tensor:
        """Add the gradient of this window's loss to every ``.grad``; return the loss."""
        loss, state = self.loss(window, self.state)
        self.backward(loss)
        self.state = self.carried(state)
        return loss.detach()

    def carried(self, state: Any) -> Any:
        """What the next window starts from."""
        return None


class TruncatedBPTT(BPTT):
    """Truncated backpropagation through time (Williams & Peng, 1990).

    The windows of a stream follow one another: the state is carried from each to the next, but as
    a constant, so that the sums over k above reach back to the start of the window and no further.
    Set ``state`` to None where a new stream begins.
    """

    def carried(self, state: Any) -> Any:
        """The state after the window, detached from how it came about."""
        return detach(state)
