"""The reference engine: the eager loop that defines what every other engine must compute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.masks import Living, filled, learned
from elman.compiler.modes import asserted, is_recorded
from elman.engines.call import Call, Result, first_step


def unsupported(cell: Cell, call: Call) -> str | None:
    """Nothing is: any cell, device and dtype, and every order of derivative."""
    return None


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over time, one step after the other.

    A reset at time t puts the state back to its start *before* x_t is read. In the reverse
    direction the boundary between t − 1 and t is crossed the other way, so that step t − 1 is
    the one that starts anew.
    """
    x = call.x if call.noise is None else torch.cat([call.x, call.noise], -1)
    steps = int(x.shape[0]) if is_recorded() else x.shape[0]
    if is_recorded():  # the program will hold this loop's steps one by one
        x = asserted(
            torch._shape_as_tensor(x)[0] == steps,
            f"this program was recorded on elman's reference engine for sequences of {steps} steps "
            "and takes no others: record it on the engine that elman.engine('auto') chooses.",
            x,
        )
    living = None
    if call.lengths is not None and steps and x.shape[1]:
        living = Living(call.lengths, call.reverse)
        x, weights = filled(x, call.lengths), learned(weights, call.lengths)
    bound, inputs = cell.bind(weights), x.unbind(0)
    states = call.state
    outputs: list[Tensor] = [call.state[0]] * steps
    every: list[tuple[Tensor, ...]] = [states] * steps
    for k in range(steps):
        t = steps - 1 - k if call.reverse else k
        if call.resets is not None:
            crossed = t + 1 if call.reverse else t
            if crossed < steps:
                again = call.resets[crossed].unsqueeze(-1)
                states = tuple(
                    torch.where(again, start, state)
                    for start, state in zip(call.start, states, strict=True)
                )
        alive, read = (None, states) if living is None else living.read(t, states)
        new = bound(inputs[t], *read) if k else first_step(cell, weights, inputs[t], tuple(read))
        outputs[t] = new[0]
        if alive is not None:
            outputs[t] = torch.where(alive, new[0], 0)
            new = tuple(
                torch.where(alive, after, before) for after, before in zip(new, states, strict=True)
            )
        states = every[t] = new
    if steps == 0:
        empty = tuple(state.new_empty(0, *state.shape) for state in states)
        return Result(empty[0], states, empty if call.every_state else None)
    history = None
    if call.every_state:
        history = tuple(torch.stack(column) for column in zip(*every, strict=True))
    return Result(torch.stack(outputs), states, history)
