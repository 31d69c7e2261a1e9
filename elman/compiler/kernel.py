"""One run of a compiled program on tensors, whichever target the program is compiled for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from elman.compiler.ir import Buffer

FIXED, BEFORE, AFTER = 0, 1, 2
"""Where a buffer lies: in memory of its own, or in a state before or after the step."""

Where = Callable[[Buffer], Tensor | tuple[int, int]]
"""For each buffer its tensor, (T, B, width), (B, width) or (width,), or (BEFORE or AFTER, the
number of the state), or (FIXED, 0) for one that nobody else reads."""


@dataclass
class State:
    """A state of a program; ``struct State`` in cpu/runtime/program.hpp describes its tensors."""

    first: Tensor
    history: Tensor
    last: Tensor | None = None
    again: Tensor | None = None
    added: Tensor | None = None
    again_out: Tensor | None = None
    past: bool = False


@dataclass(frozen=True)
class Shape:
    """How a program runs: steps, batch, direction, and where sequences end or start anew.

    ``operand`` is the type that products round what they multiply to: ``float64``, ``float32``,
    ``tf32``, ``bf16`` or ``fp16``. Sums, states and functions stay in the type of the numbers.
    """

    steps: int
    batch: int
    reverse: bool
    backward: bool
    resets: Tensor | None
    lengths: Tensor | None
    operand: str = ""


class Kernel(Protocol):
    """One program for one type of number. It runs on whichever device its tensors lie."""

    @property
    def buffers(self) -> Sequence[Buffer]:
        """Those that :meth:`run` asks the places of."""

    def run(
        self,
        shape: Shape,
        where: Where,
        states: Sequence[State],
        weights: Sequence[Tensor],
        zeroed: Collection[Buffer] = (),
    ) -> None:
        """Run the program over all steps.

        Args:
            shape: how it runs.
            where: where each buffer lies.
            states: what goes from step to step.
            weights: the matrices, by number.
            zeroed: the buffers whose rows past their end become zero.
        """


def place(
    buffer: Buffer, sequences: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Tensor | tuple[int, int]:
    """Where a buffer of the forward pass lies, as :meth:`Kernel.run` asks for it."""
    if buffer.kind == "sequence":
        return sequences[buffer.index]
    if buffer.kind == "vector":
        return parameters[buffer.index].reshape(-1)
    if buffer.kind == "state":
        return BEFORE, buffer.index
    if buffer.kind == "after":
        return AFTER, buffer.index
    return FIXED, 0
