"""Which line of a cell something happens at and what went wrong there, for messages to name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from elman.errors import ElmanError


def codes(cell: object) -> frozenset[CodeType]:
    """The code of a cell's step, and of those of the classes that it is made from."""
    steps: list[Any] = [vars(kind).get("step") for kind in type(cell).__mro__]
    steps += [inspect.unwrap(step) for step in steps if callable(step)]  # behind a decorator
    return frozenset(step.__code__ for step in steps if hasattr(step, "__code__"))


def at(line: str) -> str:
    """``line`` in parentheses after a phrase, or nothing where it is not known."""
    return f" ({line})" if line else ""


def step_at(cell: object, method: str = "step") -> str:
    """``file:line`` at which the cell's step, or another method, begins, or nothing."""
    return defined_at(getattr(type(cell), method, None))


def calling_line(method: str) -> str:
    """``file:line`` of what has called this method, beyond methods of that name in subclasses."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name == method:
        frame = frame.f_back
    return _place(frame) if frame is not None else ""


def defined_at(function: object) -> str:
    """``file:line`` of a function's definition, or nothing."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def running_line(of: Collection[CodeType]) -> str:
    """``file:line`` of the innermost of these codes that is running, or nothing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in of:
        frame = frame.f_back
    return _place(frame) if frame is not None else ""


def step_line(cell: object, error: BaseException) -> str:
    """``file:line`` of the cell's own code at which ``error`` was raised, or nothing.

    That is the innermost line of its step, or of what the step calls in the user's same file.
    """
    of = codes(cell)
    files = {
        function.__code__.co_filename
        for kind in type(cell).__mro__
        if not kind.__module__.startswith(("elman.", "torch."))
        for function in vars(kind).values()
        if inspect.isfunction(function)
    }
    line = ""
    for frame, number in _frames(error):
        if frame.f_code in of or frame.f_code.co_filename in files:
            line = f"{frame.f_code.co_filename}:{number}"
    return line


def line_in(module: str, error: BaseException) -> str:
    """``file:line`` of the innermost frame of ``error`` in a module whose name begins so."""
    line = ""
    for frame, number in _frames(error):
        if str(frame.f_globals.get("__name__", "")).startswith(module):
            line = f"{frame.f_code.co_filename}:{number}"
    return line


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_LONGEST = 300


def reason(error: BaseException) -> str:
    """What an error says, after its type, in one line that is not too long to read.

    What elman itself says needs no type, and no full stop within another sentence.
    """
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(first) > _LONGEST:
        first = f"{first[:_LONGEST]}…"
    if isinstance(error, ElmanError):
        return first.rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def cause(error: BaseException) -> BaseException:
    """What a property raised, where ``nn.Module`` says that there is no such attribute instead.

    A module is asked for an attribute of the property's name as soon as the property itself raises
    an AttributeError, of whatever other attribute: so the property is asked once more.
    """
    for _ in range(20):  # one property may read another
        owner = getattr(error, "obj", None)
        if not isinstance(error, AttributeError) or not isinstance(owner, nn.Module):
            break
        found = inspect.getattr_static(type(owner), str(error.name), None)
        if inspect.isroutine(found) or not hasattr(type(found), "__get__"):
            break
        try:
            found.__get__(owner, type(owner))
        except Exception as inner:
            error = inner
        else:
            break
    return error


def returned_at(cell: Callable[..., Any], x: Tensor, states: Sequence[Tensor]) -> str:
    """``file:line`` of the statement with which the cell's step returns: it is run once more."""
    step: Any = inspect.unwrap(type(cell).step)  # type: ignore[attr-defined]
    code, line = getattr(step, "__code__", None), ""

    def watch(frame: FrameType, event: str, value: Any) -> None:
        nonlocal line
        if event == "return" and frame.f_code is code:
            line = _place(frame)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        cell(x, *states)
    finally:
        sys.setprofile(before)
    return line


def changed_at(cell: Callable[..., Any], x: Tensor, states: Sequence[Tensor]) -> str:
    """``file:line`` at which the cell's step changes x or a state: it is run once more, on copies.

    What the step does to tensors of its own is nobody's concern.
    """
    given = [x.clone(), *(s.clone() for s in states)]
    places = {t.untyped_storage().data_ptr() for t in given}

    class Watch(TorchDispatchMode):
        line = ""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            written = _written(func, args, kwargs or {}) if func._schema.is_mutable else ()
            if not self.line and places.intersection(
                t.untyped_storage().data_ptr() for t in written
            ):
                self.line = running_line(of)
            return func(*args, **(kwargs or {}))

    of = codes(cell)
    with Watch() as watch:
        cell(*given)
    return watch.line


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operation writes to."""
    for k, declared in enumerate(func._schema.arguments):
        if declared.alias_info is None or not declared.alias_info.is_write:
            continue
        value = args[k] if k < len(args) else kwargs.get(declared.name)
        for tensor in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(tensor, Tensor):
                yield tensor


def attribute_set_at(
    cell: Callable[..., Any], name: str, x: Tensor, states: Sequence[Tensor]
) -> str:
    """``file:line`` at which the cell's step sets its attribute: it is run once more."""
    of, present, line, last = codes(cell), vars(cell).get(name), "", ""

    def watch(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal line, last
        if frame.f_code not in of:
            return None
        if vars(cell).get(name) is not present:
            line = line or last
        last = _place(frame)
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        cell(x, *states)
    finally:
        sys.settrace(before)
    return line
