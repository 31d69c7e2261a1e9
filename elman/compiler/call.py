"""What is asked of an engine, and what it answers: one cell, one direction, one sequence."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.errors import InputError


def constant_while_compiling(function: Any) -> Any:
    """``torch.compiler.assume_constant_result``, without importing PyTorch's compiler: a second."""
    function._dynamo_marked_constant = True
    return function


def profiled(name: str) -> AbstractContextManager[Any]:
    """A block that PyTorch's profiler shows under ``name``."""
    if torch.autograd._profiler_enabled():
        return torch.profiler.record_function(name)
    return nullcontext()


def under_autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device; some, as ``meta``, have none."""
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


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
