"""Which engine runs a cell: chosen automatically, never silently, or forced by the user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler import native, parallel, reference, torch_kernels
from elman.compiler.call import Call, Result, constant_while_compiling, under_autocast
from elman.errors import InputError

ENGINES: dict[str, ModuleType] = {
    "scan": parallel,
    "native": native,
    "torch": torch_kernels,
    "reference": reference,
}
"""By name, the preferred first. Each module has ``unsupported(cell, call)`` and ``run``."""

_forced: ContextVar[str | None] = ContextVar("elman_engine", default=None)
_warned: set[tuple[str, str]] = set()


class EngineWarning(UserWarning):
    """A slower engine ran than the one that usually runs this cell; the message says why."""


class engine:
    """Force an engine: ``elman.engine("reference")``, from here on or for a ``with`` block.

    Args:
        name: ``"native"`` (any cell, compiled for this processor), ``"scan"`` (all steps at once,
            for cells whose memory is a linear recurrence), ``"torch"`` (PyTorch's fused kernels,
            for its own LSTM, GRU and RNN), ``"reference"`` (the eager loop, the definition), or
            ``"auto"`` (the fastest that can).

    Forcing an engine that cannot run a call raises an error at that call. Each thread has its own
    choice; a new thread begins with ``"auto"``.

    Raises:
        InputError: there is no engine of that name.
    """

    def __init__(self, name: str):
        if name != "auto" and name not in ENGINES:
            raise InputError(
                f"unknown engine {name!r}: expected auto or one of {', '.join(ENGINES)}."
            )
        self._name = None if name == "auto" else name
        self._before = [_forced.get()]
        _forced.set(self._name)

    def __enter__(self) -> None:
        # The first entry has taken effect when the object was made; a later one does so here.
        if len(self._before) > 1 or _forced.get() != self._name:
            self._before.append(_forced.get())
        _forced.set(self._name)

    def __exit__(self, *_: object) -> None:
        _forced.set(self._before[-1])
        if len(self._before) > 1:
            self._before.pop()


def usual(cell: Cell, real: torch.dtype) -> str:
    """The engine that runs ``cell`` on numbers of a type where nothing stands in its way."""
    if _forced.get():
        return str(_forced.get())
    if parallel.knows(cell):
        return "scan"
    if native.knows(cell, real):
        return "native"
    return "torch" if torch_kernels.knows(cell) else "reference"


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` with ``weights`` on the engine that is forced, or else on the best one.

    Raises:
        InputError: the forced engine cannot run this call.
    """
    if call.x.shape[0] == 0:
        return reference.run(cell, weights, call)  # nothing to compute, so nothing is slower
    if weights and under_autocast(call.x.device):
        # A state may come back in autocast's type; what it is computed with is the weights'.
        call = call.cast(next(iter(weights.values())).dtype)
    wanted = forced()
    why: str | None = None
    for name in [wanted] if wanted else _preferred(cell):
        reason = ENGINES[name].unsupported(cell, call)
        if reason is None:
            result = ENGINES[name].run(cell, weights, call)
            # PyTorch's kernels are what usually runs its own cells on other devices.
            if why and not (name == "torch" and call.x.device.type != "cpu"):
                _warn(type(cell).__name__, name, why)
            return result
        why = why or reason
    raise InputError(
        f"the {wanted} engine cannot run {type(cell).__name__}: {why}; use elman.engine('auto')."
    )


def _preferred(cell: Cell) -> list[str]:
    """The engines for this cell, the fastest first."""
    # Of a cell that is no linear recurrence nobody expects a scan.
    return [name for name in ENGINES if name != "scan" or parallel.knows(cell)]


@constant_while_compiling
def forced() -> str | None:
    """The name of the engine that is forced, if any."""
    return _forced.get()


@constant_while_compiling
def _warn(label: str, name: str, why: str) -> None:
    if (label, why) not in _warned:
        _warned.add((label, why))
        warnings.warn(
            f"{label} runs on the {name} engine, which is slower: {why}.",
            EngineWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """How far up the stack the code stands that called elman's layers, for a warning to name."""
    frame, level = sys._getframe(1), 1
    between = ("elman.", "torch.", "lightning")
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(between):
        frame, level = frame.f_back, level + 1
    return level
