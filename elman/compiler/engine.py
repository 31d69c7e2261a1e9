"""Which engine runs a cell: chosen automatically, never silently, or forced by the user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from types import ModuleType, TracebackType

from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler import reference, torch_kernels
from elman.compiler.call import Call, Result
from elman.errors import InputError

ENGINES: dict[str, ModuleType] = {"torch": torch_kernels, "reference": reference}
"""By name, the preferred first. Each module has ``unsupported(cell, call)`` and ``run``."""

_forced: ContextVar[str | None] = ContextVar("elman_engine", default=None)
_warned: set[tuple[str, str]] = set()


class EngineWarning(UserWarning):
    """A slower engine ran than the one that usually runs this cell; the message says why."""


class engine:
    """Force an engine: ``elman.engine("reference")``, from here on or for a ``with`` block.

    Args:
        name: ``"reference"`` (the eager loop, the definition), ``"torch"`` (PyTorch's fused
            kernels, for its own LSTM, GRU and RNN), or ``"auto"`` (the fastest that can).

    Forcing an engine that cannot run a call raises an error at that call.

    Raises:
        InputError: there is no engine of that name.
    """

    def __init__(self, name: str):
        if name != "auto" and name not in ENGINES:
            raise InputError(
                f"unknown engine {name!r}: expected auto or one of {', '.join(ENGINES)}."
            )
        self._before = _forced.get()
        _forced.set(None if name == "auto" else name)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _forced.set(self._before)


def usual(cell: Cell) -> str:
    """The engine that runs ``cell`` where nothing stands in its way."""
    return _forced.get() or ("torch" if torch_kernels.knows(cell) else "reference")


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` with ``weights`` on the engine that is forced, or else on the best one.

    Raises:
        InputError: the forced engine cannot run this call.
    """
    wanted = usual(cell)
    why = ENGINES[wanted].unsupported(cell, call)
    if why is None:
        return ENGINES[wanted].run(cell, weights, call)
    label = type(cell).__name__
    if call.x.shape[0] == 0:
        return reference.run(cell, weights, call)  # nothing to compute, so nothing is slower
    if _forced.get():
        raise InputError(
            f"the {wanted} engine cannot run {label}: {why}; use elman.engine('auto')."
        )
    if (label, why) not in _warned:
        _warned.add((label, why))
        warnings.warn(
            f"{label} runs on the reference engine, which is slower: {why}.",
            EngineWarning,
            stacklevel=_callers_level(),
        )
    return reference.run(cell, weights, call)


def _callers_level() -> int:
    """How far up the stack the code stands that called elman's layers, for a warning to name."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("elman.", "torch.")):
        frame, level = frame.f_back, level + 1
    return level
