"""What is asked of an engine, and what it answers: one cell, one direction, one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.step_checks import checked_step
from elman.compiler.modes import is_recorded
from elman.errors import InputError


def first_step(
    cell: Cell, weights: Mapping[str, Tensor], x: Tensor, states: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """One step of ``cell`` with these weights, of which it is told what is wrong, if anything is.

    Raises:
        InputError: the cell does not keep to its contract, or was given what does not fit it.
    """
    bound = cell.bind(weights)
    if torch.compiler.is_compiling():
        return bound(x, *states)
    try:
        return checked_step(bound, x, *states)
    except InputError as error:
        if is_recorded() and error.__cause__ is not None:  # what recording cannot do
            raise error.__cause__ from None
        if why := _mismatch(weights, x, states):
            raise InputError(why) from None
        raise


def _mismatch(weights: Mapping[str, Tensor], x: Tensor, states: tuple[Tensor, ...]) -> str | None:
    """Which of these is of another type than the rest or lies elsewhere, if one does."""
    (first, like), *others = weights.items()
    given = [*others, ("x", x), *(("the state", state) for state in states)]
    for name, tensor in given:
        real = tensor.is_floating_point() or name == "x"  # a constant may hold integers
        if tensor.device != like.device or (real and tensor.dtype != like.dtype):
            return (
                f"{name} is {tensor.dtype} on {tensor.device}, but {first} is {like.dtype} on "
                f"{like.device}: they must be alike, so call .to(…) on one."
            )
    return None


class Call(NamedTuple):
    """A padded batch of sequences to run one cell over.

    Attributes:
        x: the input (T, B, M).
        state: the state before the first step, a tensor (B, size) for each.
        start: the state that a reset returns to, likewise.
        reverse: run from the last step to the first.
        lengths: the length of each sequence (B), or None where all have T steps. Steps at and
            past a length leave the state as it is and output zeros.
        resets: (T, B) bool; true where a sequence starts anew at that step, false at and past its
            length. None: nowhere.
        every_state: also give the states of every step.
        noise: what the cell reads beside its input (T, B, noise_size), or None; nobody asks for
            its gradient.
    """

    x: Tensor
    state: tuple[Tensor, ...]
    start: tuple[Tensor, ...]
    reverse: bool = False
    lengths: Tensor | None = None
    resets: Tensor | None = None
    every_state: bool = False
    noise: Tensor | None = None

    def cast(self, real: torch.dtype) -> Call:
        """This call with numbers of that type."""
        state, start = (tuple(s.to(real) for s in part) for part in (self.state, self.start))
        return self._replace(x=self.x.to(real), state=state, start=start)

    def check_types(self, real: torch.dtype) -> None:
        """Raise where the input or a state is of another type than the weights."""
        for what, tensor in (("x", self.x), *(("the state", s) for s in self.state)):
            if tensor.dtype != real:
                raise InputError(
                    f"{what} must have the weights' dtype {real}, received {tensor.dtype}."
                )


class Result(NamedTuple):
    """What a run gives.

    Attributes:
        y: the output (T, B, S), the first state of every step; zero past a sequence's end.
        state: the state after the last step, (B, size) for each.
        states: the states of every step, (T, B, size) for each, where asked for; past a sequence's
            end the state stays as it is.
    """

    y: Tensor
    state: tuple[Tensor, ...]
    states: tuple[Tensor, ...] | None = None
