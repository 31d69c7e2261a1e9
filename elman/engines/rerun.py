"""The cell once more, for gradients that need more of its run than was saved."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.trace import Hoisted
from elman.engines import reference
from elman.engines.call import Call


def grouped(tensors: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    """``tensors`` in groups of these sizes."""
    given = iter(tensors)
    return [list(itertools.islice(given, size)) for size in sizes]


def _named(
    hoisted: Hoisted, origin: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """The input, the noise and the weights that a loop was computed from."""
    names = list(hoisted.weights)
    weights = dict(zip(names, origin[len(origin) - len(names) :], strict=True))
    return origin[0], None if hoisted.noise is None else origin[1], weights


def sequences_of(
    hoisted: Hoisted, origin: Sequence[Tensor], shapes: Sequence[torch.Size]
) -> list[Tensor]:
    """What the loop read at every step, of these shapes, from what it is computed from."""
    x, noise, weights = _named(hoisted, origin)
    flat, _ = hoisted.run(x, weights, noise)
    return [s.view(shape) for s, shape in zip(flat, shapes, strict=True)]


def differentiable_backward(
    hoisted: Hoisted,
    cell: Cell,
    gradients: Sequence[Tensor | None],
    origin: Sequence[Tensor],
    shape: Sequence[int],
    histories: int,
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> list[list[Tensor | None]]:
    """The gradient as a function that has a gradient: the reference engine runs the cell again.

    The gradient goes straight to input and weights, past the loop's sequences and parameters.

    Args:
        hoisted: how the loop was computed from its origin.
        cell: what the kernels were made for.
        gradients: those of its outputs: histories of this many states, and last states.
        origin: what the loop was computed from.
        shape: steps and batch.
        histories: of how many states there are histories.
        states, starts, resets, lengths, reverse: as ``elman::loop`` was given them.

    Returns:
        The gradients of origin, states and starts.
    """
    with torch.enable_grad(), torch.autocast(states[0].device.type, enabled=False):
        # In the graph of what the loop was given, but apart from its other uses.
        origin, states, starts = ([_apart(t) for t in p] for p in (origin, states, starts))
        x, noise, named = _named(hoisted, origin)
        if resets is not None and reverse:  # as they were given, see native.steps_of
            resets = torch.cat([torch.zeros_like(resets[:1]), resets[:-1]])
        call = Call(
            x.view(*shape, -1), tuple(states), tuple(starts), reverse, lengths, resets, True,
            None if noise is None else noise.view(*shape, -1),
        )  # fmt: skip
        _, last, every = reference.run(cell, named, call)
        outputs = [*(every or ())[:histories], *last]
        pairs = [
            (o, g)
            for o, g in zip(outputs, gradients, strict=True)
            if g is not None and o.requires_grad
        ]
        inputs = [*origin, *states, *starts]
        wanted = [t for t in inputs if t.requires_grad]
        found: Any = [None] * len(wanted)
        if pairs:
            found = torch.autograd.grad(
                [o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True,
                allow_unused=True,
            )  # fmt: skip
    given = iter(found)
    each = [next(given) if t.requires_grad else None for t in inputs]
    return grouped(each, [len(origin), len(states), len(starts)])


def _apart(tensor: Tensor) -> Tensor:
    return tensor.view_as(tensor) if tensor.is_floating_point() else tensor
