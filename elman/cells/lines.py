"""Which line of a cell's step something happens at, for messages to name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def codes(cell: object) -> frozenset[CodeType]:
    """The code of a cell's step, and of those of the classes that it is made from."""
    steps: list[Any] = [vars(kind).get("step") for kind in type(cell).__mro__]
    return frozenset(step.__code__ for step in steps if hasattr(step, "__code__"))


def at(line: str) -> str:
    """``line`` in parentheses after a phrase, or nothing where it is not known."""
    return f" ({line})" if line else ""


def step_at(cell: object, method: str = "step") -> str:
    """``file:line`` at which the cell's step, or another method, begins, or nothing."""
    code = getattr(getattr(type(cell), method, None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def running_line(of: frozenset[CodeType]) -> str:
    """``file:line`` of the innermost of these codes that is running, or nothing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in of:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def step_line(cell: object, error: BaseException) -> str:
    """``file:line`` of the cell's step at which ``error`` was raised, or nothing."""
    of, line = codes(cell), ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in of:
            line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def returned_at(cell: Callable[..., Any], x: Tensor, states: Sequence[Tensor]) -> str:
    """``file:line`` of the statement with which the cell's step returns: it is run once more."""
    code, line = type(cell).step.__code__, ""  # type: ignore[attr-defined]

    def watch(frame: FrameType, event: str, value: Any) -> None:
        nonlocal line
        if event == "return" and frame.f_code is code:
            line = f"{code.co_filename}:{frame.f_lineno}"

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        cell(x, *states)
    finally:
        sys.setprofile(before)
    return line


def changed_at(cell: Callable[..., Any], x: Tensor, states: Sequence[Tensor]) -> str:
    """``file:line`` at which the cell's step changes a tensor in place: it is run once more."""

    class Watch(TorchDispatchMode):
        line = ""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func._schema.is_mutable and not self.line:
                self.line = running_line(of)
            return func(*args, **(kwargs or {}))

    of = codes(cell)
    with Watch() as watch:
        cell(x.clone(), *(s.clone() for s in states))
    return watch.line


def attribute_set_at(
    cell: Callable[..., Any], name: str, x: Tensor, states: Sequence[Tensor]
) -> str:
    """``file:line`` at which the cell's step sets its attribute: it is run once more."""
    of, line = codes(cell), ""
    present = vars(cell).get(name)

    def watch(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal line
        if frame.f_code not in of:
            return None
        if not line and vars(cell).get(name) is not present:
            line = f"{frame.f_code.co_filename}:{last}"
        remember(frame.f_lineno)
        return watch

    last = 0

    def remember(number: int) -> None:
        nonlocal last
        last = number

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        cell(x, *states)
    finally:
        sys.settrace(before)
    return line
