"""Backpropagation through time, over whole sequences and truncated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from elman.errors import InputError
from elman.layers import Recurrent
from elman.learning.rule import Lengths, LossFunction, Rule, detach


class BPTT(Rule):
    """Backpropagation through time (Werbos, 1990).

    ∂L/∂U = Σ_t Σ_{k ≤ t} δ_{t,k} h_{k−1}ᵀ, with δ_{t,k} = ∂L_t/∂z_k = diag(f'(z_k)) Uᵀ δ_{t,k+1}.

    Each window is a whole sequence: it starts from the network's own start. Memory O(n T).
    """

    @override
    def gradients(
        self, x: Tensor, target: Any, *, resets: Tensor | None = None, lengths: Lengths = None
    ) -> Tensor:
        y, state = self.network(x, resets=resets, lengths=lengths)
        loss = self._back(y, target)
        self.state = detach(state)
        return loss


class TruncatedBPTT(Rule):
    """Truncated backpropagation through time, BPTT(k2; k1) (Williams & Peng, 1990).

    After every window of k1 steps, the losses of these steps are propagated back to at most k2
    steps before the window's end: in the sums of :class:`BPTT`, t runs over the window and k over
    the last k2 steps. The state from before is a constant. The inputs of the k2 − k1 steps before
    the window are kept and run again with the present weights. With k2 < k1, the first k1 − k2
    outputs of a window count in its loss and leave no gradient in the network.

    Memory O(n k2); time O(k2 / k1) passes forward and back for each step.

    Args:
        network, loss: see :class:`Rule`.
        reach: k2, in steps; k1 is the length of the windows. None: k2 = k1.
    """

    def __init__(self, network: Recurrent, loss: LossFunction, reach: int | None = None):
        super().__init__(network, loss)
        self._one_direction()
        if reach is not None and (not isinstance(reach, int) or reach < 1):
            raise InputError(f"reach must be a positive number of steps, received {reach!r}.")
        self.reach = reach
        self.reset()

    @override
    def reset(self) -> None:
        super().reset()
        # The inputs of the steps before the window, and their resets.
        self._past: tuple[Tensor, Tensor | None] | None = None
        self._before: Any = None  # the state before them

    @property
    def memory(self) -> Any:
        """The state, and the inputs that the next window reaches back to."""
        return None if self.state is None else (self.state, self._before, self._past)

    @memory.setter
    def memory(self, kept: Any) -> None:
        self.reset()
        if kept is not None:
            self.state, self._before, self._past = kept

    @override
    def gradients(
        self, x: Tensor, target: Any, *, resets: Tensor | None = None, lengths: Lengths = None
    ) -> Tensor:
        resets = self._goes_on(x, resets, lengths)
        steps = len(x)
        reach = steps if self.reach is None else self.reach
        run, anew = x, resets
        if self._past is not None:
            past, before = self._past
            run = torch.cat([past, x])
            if before is not None or resets is not None:
                anew = torch.cat([_marks(before, past), _marks(resets, x)])
        cut = max(0, len(run) - reach)
        kept = min(max(0, reach - steps), len(run))
        rest = len(run) - kept
        outputs: list[Tensor] = []

        def read(begin: int, end: int, state: Any) -> Any:
            marks = None if anew is None else anew[begin:end]
            y, state = self.network(run[begin:end], state, resets=marks)
            outputs.append(y)
            return state

        state = self._before
        if cut:
            with torch.no_grad():
                state = read(0, cut, state)
        state = read(cut, rest, state)
        # Where the window after this one begins to reach back to.
        self._before, self._past = None, None
        if kept:
            self._before = detach(state)
            self._past = run[rest:], None if anew is None else anew[rest:]
            state = read(rest, len(run), state)
        loss = self._back(torch.cat(outputs)[-steps:], target)
        self.state = detach(state)
        if not kept:
            self._before = self.state
        return loss


def _marks(resets: Tensor | None, x: Tensor) -> Tensor:
    """The resets of the steps x, where there are none as where there are some."""
    return x.new_zeros(x.shape[:-1], dtype=torch.bool) if resets is None else resets
