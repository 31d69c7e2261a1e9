"""One step of a cell, and whatever it does wrong, at which line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.allocation import is_out_of_memory
from elman.cells.lines import (
    at,
    attribute_set_at,
    cause,
    changed_at,
    reason,
    returned_at,
    step_line,
)
from elman.cells.values import INTERNAL
from elman.errors import ElmanError, InputError

if TYPE_CHECKING:
    from elman.cells.contract import Cell


def checked_step(cell: Cell, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """As a call of the cell, but whatever its step does wrong is told, and at which line.

    Raises:
        InputError: the step failed, changed what it was given, or returned something else than
            the next states.
    """
    if torch.compiler.is_compiling():
        return cell(x, *states)
    given = dict(zip(("x", *cell.state), (x, *states), strict=True))
    _check_types(cell, given)
    versions = [0 if t.is_inference() else t._version for t in given.values()]
    attributes = dict(vars(cell))
    try:
        new = cell(x, *states)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _failed(cell, error, given) from error
    for (name, tensor), version in zip(given.items(), versions, strict=True):
        if not tensor.is_inference() and tensor._version != version:
            raise InputError(
                f"{type(cell).__name__}.step{at(changed_at(cell, x, states))} changes "
                f"{name} in place; expected a new tensor, such as {name} = {name} + 1 in place "
                f"of {name} += 1."
            )
    check_attributes(cell, attributes, x, states)
    check_step(cell, x, states, new)
    return new


def _check_types(cell: Cell, given: Mapping[str, Tensor]) -> None:
    """That what the caller gives is of the weights' type, which autocast alone may change."""
    like = next((p for p in cell._parameters.values() if p is not None), None)
    if like is None or under_autocast(like.device):
        return
    for name, tensor in given.items():
        if tensor.dtype != like.dtype:
            what = name if name == "x" else f"the state {name}"
            raise InputError(
                f"{what} must have the weights' dtype {like.dtype}, received {tensor.dtype}."
            )


def _failed(cell: Cell, error: Exception, given: Mapping[str, Tensor]) -> InputError:
    why = cause(error)
    line = step_line(cell, why) or step_line(cell, error)
    shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in given.items())
    failed = f"{type(cell).__name__}.step failed{at(line)} for {shapes}"
    if isinstance(why, ElmanError):  # it says itself what is wrong
        return InputError(f"{failed}: {why}")
    if "call numpy()" in str(why):  # PyTorch's advice, to detach, would lose the gradient
        return InputError(
            f"{failed}: NumPy cannot compute what learns; use torch's functions in that line, "
            "such as torch.tanh."
        )
    mend = "mend that line" if line else f"see its class{at(type(cell).__defined_at__)}"
    if isinstance(why, AttributeError) and isinstance(why.obj, Tensor):
        mend += f", or name the blocks of its map, as in Affine('{why.name} …')"
    return InputError(f"{failed} ({reason(why)}): {mend}.")


def check_attributes(
    cell: Cell, before: Mapping[str, Any], x: Tensor, states: Sequence[Tensor]
) -> None:
    """Raise where a step has set an attribute of the cell, which were ``before``."""
    for name, value in vars(cell).items():
        if name not in INTERNAL and (name not in before or before[name] is not value):
            raise InputError(
                f"{type(cell).__name__}.step{at(attribute_set_at(cell, name, x, states))} sets "
                f"self.{name}, which no other step would see; expected a step that changes "
                "nothing: what is kept from step to step is a state."
            )


def check_step(cell: Cell, x: Tensor, states: Sequence[Tensor], new: Sequence[Tensor]) -> None:
    """Raise what is wrong with ``new``, the states that a step made of ``x`` and ``states``."""
    wrong = _wrong_states(cell, states, new)
    if wrong:
        received, expected = wrong
        line = at(returned_at(cell, x, states))
        raise InputError(
            f"{type(cell).__name__}.step returned {received}{line}; expected {expected}."
        )


def _wrong_states(
    cell: Cell, states: Sequence[Tensor], new: Sequence[Tensor]
) -> tuple[str, str] | None:
    """What the step of ``cell`` returned in place of what, if it did."""
    names = ", ".join(cell.state)
    if len(new) == 1 and not isinstance(new[0], Tensor):
        return type(new[0]).__name__, f"a tensor for each state ({names})"
    if len(new) != len(cell.state):
        return f"{len(new)} values", f"{len(cell.state)}, one for each state ({names})"
    for label, before, after in zip(cell.state, states, new, strict=True):
        if not isinstance(after, Tensor):
            return f"{label} as {type(after).__name__}", "a tensor"
        if after.shape != before.shape:
            return (
                f"{label} of shape {tuple(after.shape)}",
                f"{tuple(before.shape)}, the shape it received",
            )
        if after.device != before.device:
            return f"{label} on {after.device}", f"it on {before.device}, where it was received"
        if after.dtype != before.dtype and not _is_cast(before, after):
            return f"{label} as {after.dtype}", (
                f"{before.dtype}, the type it received: a state is of real numbers"
                if after.is_complex()
                else f"{before.dtype}, the type it received: such as {label}.to(z.dtype)"
            )
    return None


def _is_cast(before: Tensor, after: Tensor) -> bool:
    """Whether it is autocast that has changed a state's type."""
    return after.is_floating_point() and under_autocast(before.device)


def under_autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device; some, as ``meta``, have none."""
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
