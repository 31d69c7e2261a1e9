"""The ``scan`` engine: cells whose memory is a linear recurrence, all their steps at once.

The cell's maps and functions see the whole sequence in place of a step; between its coefficients
and its output stands one scan over time, :func:`elman.compiler.recurrence.scan`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

# Imported for the kernels of the scan that they provide.
import elman.compiler.cpu
import elman.compiler.cuda  # noqa: F401
from elman.cells.contract import Cell
from elman.cells.delay import shifted
from elman.cells.linear import LinearRecurrence
from elman.cells.lines import at, step_at
from elman.cells.step_checks import checked_step, under_autocast
from elman.compiler.affine import affine
from elman.compiler.masks import filled, inside, learned
from elman.compiler.modes import in_onnx, is_transformed, unrecorded
from elman.compiler.record import Unsupported
from elman.compiler.recurrence import Course, has_kernel, previous, scan
from elman.engines import reference
from elman.engines.call import Call, Result
from elman.engines.check import TOLERANCE, difference
from elman.errors import InputError


def knows(cell: Cell) -> bool:
    """Whether the cell's step is that of a :class:`LinearRecurrence`, as no transform leaves it."""
    kind: Any = type(cell)
    return (
        issubclass(kind, LinearRecurrence)
        and kind.step is LinearRecurrence.step
        and kind.product is LinearRecurrence.product
        and kind.forward is Cell.forward
    )


def unsupported(cell: Cell, call: Call) -> str | None:
    """Why this engine cannot take this call, or None where it can."""
    if not knows(cell):
        return "its memory is no linear recurrence"
    if in_onnx():
        return "ONNX has no operator for a scan"
    if not call.x.dtype.is_floating_point:
        return f"a scan is of real numbers, not of {call.x.dtype}"
    if torch.compiler.is_compiling() or is_transformed():
        return None
    return _differs(cell, call.x.dtype if call.x.dtype in TOLERANCE else torch.float32)


def _differs(cell: Cell, real: torch.dtype) -> str | None:
    """Why a scan gives other numbers than the cell's steps do, which is found out once."""
    found = _checked.setdefault(cell, {})
    if real not in found:
        try:
            with unrecorded():
                wrong = difference(cell, partial(run, cell), real)
        except (Unsupported, InputError):
            wrong = None  # the step itself is wrong: it says so when it runs
        found[real] = wrong and (
            f"all steps at once give another {wrong} than one after the other do"
            f"{at(step_at(cell, 'coefficients'))}: its functions must treat every step by itself"
        )
    return found[real]


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over all steps at once.

    Raises:
        InputError: the cell does not keep to its contract.
    """
    if call.x.shape[0] == 0 or call.x.shape[1] == 0:
        return reference.run(cell, weights, call)
    real, kind = next(iter(weights.values())).dtype, call.x.device.type
    cast = under_autocast(call.x.device)
    if cast:  # the cell computes in its weights' type, as on the native engine
        call = call.cast(real)
    call.check_types(real)
    maps = nullcontext() if torch.compiler.is_compiling() or not has_kernel(call.x) else _Maps()
    with torch.autocast(kind, enabled=False) if cast else nullcontext(), maps:
        if call.lengths is not None:
            weights = learned(weights, call.lengths)
        bound = cell.bind(weights)
        if not torch.compiler.is_compiling() and cell not in _stepped:
            with torch.no_grad():
                checked_step(bound, call.x[0], *call.state)
            _stepped.add(cell)
        return _run(bound, call)  # type: ignore[arg-type]


class _Maps(TorchFunctionMode):
    """Under it a map is elman's own product, which has a faster gradient than PyTorch's."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and len(args) == 3 and args[0].dim() == 3:
            x, weight, bias = args
            y = affine(bias, x.flatten(0, 1), weight.t())
            return y.unflatten(0, x.shape[:2])
        return func(*args, **(kwargs or {}))


_checked: weakref.WeakKeyDictionary[Cell, dict[torch.dtype, str | None]]
_checked = weakref.WeakKeyDictionary()
"""By cell and type of numbers, what is wrong with its scans."""

_stepped: weakref.WeakSet[Cell] = weakref.WeakSet()
"""Cells one step of which has been taken, to see that it keeps to the contract."""


def _run(cell: LinearRecurrence, call: Call) -> Result:
    if call.resets is not None and call.reverse:
        # The boundary between two steps belongs, read backwards, to the earlier one.
        resets = torch.cat([call.resets[1:], torch.zeros_like(call.resets[:1])])
        call = call._replace(resets=resets)
    lengths = call.lengths
    if lengths is not None:
        # What a cell's functions give past the end, infinities too, must not reach a gradient.
        call = call._replace(x=filled(call.x, lengths))
    past = [
        _windows(call, before, start)
        for before, start in zip(call.state[2:], call.start[2:], strict=True)
    ]
    if lengths is not None:
        past = [filled(window, lengths) for window in past]
    a, b = cell.coefficients(call.x, *past)
    memory = min(1, len(call.state) - 1)
    first, again = call.state[memory], None if call.resets is None else call.start[memory]
    _check(cell, "coefficients", b, call, first)
    course = Course(call.resets, call.lengths, call.reverse, cell.complex)
    c, last = scan(a, b, first, again, course)
    if len(call.state) == 1:
        return Result(_masked(c, call), (last,), (c,) if call.every_state else None)
    h = cell.output(c if lengths is None else filled(c, lengths), call.x, *past)
    _check(cell, "output", h, call, call.state[0])
    others = [h, *(shifted(window, call.x) for window in past)]
    befores = [call.state[0], *call.state[2:]]
    h_last, *past_last = (_last(v, s, call) for v, s in zip(others, befores, strict=True))
    states = None
    if call.every_state:
        h_all, *past_all = (_held(v, s, call) for v, s in zip(others, befores, strict=True))
        states = (h_all, c, *past_all)
    return Result(_masked(h, call), (h_last, last, *past_last), states)


def _check(cell: Cell, what: str, value: Tensor, call: Call, state: Tensor) -> None:
    expected = (*call.x.shape[:2], state.shape[-1])
    if value.shape != expected:
        raise InputError(
            f"{type(cell).__name__}.{what} gives the shape {tuple(value.shape)} for a sequence of "
            f"shape {tuple(call.x.shape)}, expected {expected}: treat every step by itself, "
            "whatever axes stand before the units."
        )


def _windows(call: Call, before: Tensor, start: Tensor) -> Tensor:
    """The window of the inputs before every step (T, B, K · M), the oldest first."""
    width = call.x.shape[-1]
    value, lagged = call.x, []
    firsts, agains = (v.split(width, -1)[::-1] for v in (before, start))
    for first, again in zip(firsts, agains, strict=True):
        value = previous(value, first, call.reverse)
        if call.reverse and call.lengths is not None:  # a sequence's own end is its beginning
            value = torch.where(_inside(call, 1), value, first)
        if call.resets is not None:
            value = torch.where(call.resets.unsqueeze(-1), again, value)
        lagged.append(value)
    return lagged[0] if len(lagged) == 1 else torch.cat(lagged[::-1], -1)


def _last(values: Tensor, before: Tensor, call: Call) -> Tensor:
    """The state after the last step, of its values after every step of the sequences."""
    if call.lengths is None:
        return values[0 if call.reverse else -1]
    at = torch.zeros_like(call.lengths) if call.reverse else (call.lengths - 1).clamp(min=0)
    last = values.gather(0, at.reshape(1, -1, 1).expand(1, *values.shape[1:]))[0]
    return torch.where(call.lengths.unsqueeze(-1) > 0, last, before)


def _held(values: Tensor, before: Tensor, call: Call) -> Tensor:
    """The state after every step, which stays as it is past a sequence's end."""
    if call.lengths is None:
        return values
    rest = before if call.reverse else _last(values, before, call)
    return torch.where(_inside(call), values, rest)


def _masked(y: Tensor, call: Call) -> Tensor:
    return y if call.lengths is None else torch.where(_inside(call), y, 0)


def _inside(call: Call, ahead: int = 0) -> Tensor:
    """Whether the step that is ``ahead`` of each lies within its sequence (T, B, 1)."""
    assert call.lengths is not None
    return inside(call.x.shape[0], call.lengths, ahead)
