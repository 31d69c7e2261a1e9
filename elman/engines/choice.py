"""Which engine runs a cell: chosen automatically, never silently, or forced by the user."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.step_checks import under_autocast
from elman.compiler.modes import constant_while_compiling
from elman.engines import cuda, native, newton, pytorch, reference, scan
from elman.engines.call import Call, Result
from elman.errors import EngineWarning, InputError, callers_level

ENGINES: dict[str, ModuleType] = {
    "scan": scan,
    "native": native,
    "cuda": cuda,
    "torch": pytorch,
    "reference": reference,
    "newton": newton,  # never chosen automatically
}
"""By name. Each module has ``unsupported(cell, call)`` and ``run``."""


class _Choice(NamedTuple):
    """An engine that was forced, and what was before it."""

    name: str | None
    by: engine | None
    entered: bool
    below: _Choice | None


# A chain, so that each thread has its own, whichever thread the object was made in.
_forced: ContextVar[_Choice | None] = ContextVar("elman_engine", default=None)
_warned: set[tuple[str, str]] = set()


class engine:
    """Force an engine: ``elman.engine("reference")``, from here on or for a ``with`` block.

    Args:
        name: ``"native"`` (any cell, compiled for this processor), ``"cuda"`` (any cell, compiled
            for the GPU that it lies on), ``"scan"`` (all steps at once, for cells whose memory is
            a linear recurrence), ``"newton"`` (Newton's method for all steps at once, never
            chosen by itself), ``"torch"`` (PyTorch's fused kernels, for its own LSTM, GRU and
            RNN), ``"reference"`` (the eager loop, the definition), or ``"auto"`` (the fastest
            that can).

    A block ends with the engine that was forced before it: before the object was made, where
    nothing was forced in between. One object may be used for any number of blocks, one in the
    other, too. Forcing an engine that cannot run a call raises an error at that call. Each thread
    has its own choice; a new thread begins with ``"auto"``.

    Raises:
        InputError: there is no engine of that name.
    """

    def __init__(self, name: str):
        if name != "auto" and name not in ENGINES:
            raise InputError(
                f"unknown engine {name!r}: expected auto or one of {', '.join(ENGINES)}."
            )
        self._name = None if name == "auto" else name
        _forced.set(_Choice(self._name, self, False, _pruned(_forced.get())))

    def __enter__(self) -> None:
        now = _forced.get()
        # The first block begins where the object was made.
        made_here = now is not None and now.by is self and not now.entered
        below = now.below if now is not None and made_here else now
        _forced.set(_Choice(self._name, self, True, below))

    def __exit__(self, *_: object) -> None:
        choice = _forced.get()
        # What was forced within the block ends with it.
        while choice is not None and not (choice.by is self and choice.entered):
            choice = choice.below
        if choice is not None:
            _forced.set(choice.below)


def _pruned(choice: _Choice | None) -> _Choice | None:
    """A choice without those below it that nothing can come back to.

    So a program that forces an engine a million times, without a block, remembers the last ones.
    """
    below = None if choice is None else choice.below
    if choice is None or choice.entered or below is None or below.entered:
        return choice
    return choice._replace(by=None, below=below.below)


def usual(cell: Cell, real: torch.dtype, device: str) -> str:
    """The engine that runs ``cell`` where nothing stands in its way.

    It depends on the type of the numbers and on that of their device.
    """
    name = _name()
    if name is not None:
        return name
    if scan.knows(cell):
        return "scan"
    if device != "cpu" and pytorch.knows(cell) and (device != "cuda" or real != torch.float32):
        return "torch"
    if native.knows(cell, real, device):
        return "cuda" if device == "cuda" else "native"
    return "torch" if pytorch.knows(cell) else "reference"


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
    for name in [wanted] if wanted else _preferred(cell, call):
        reason = ENGINES[name].unsupported(cell, call)
        if reason is None:
            result = ENGINES[name].run(cell, weights, call)
            if why:
                _warn(type(cell).__name__, name, why)
            return result
        why = why or reason
    raise InputError(
        f"the {wanted} engine cannot run {type(cell).__name__}: {why}; use elman.engine('auto')."
    )


def _preferred(cell: Cell, call: Call) -> list[str]:
    """The engines for this call, the fastest first."""
    # Of a cell that is no linear recurrence nobody expects a scan.
    scans = ["scan"] if scan.knows(cell) else []
    if call.x.device.type == "cpu":
        return [*scans, "native", "torch", "reference"]
    # PyTorch's kernels are what usually runs its own cells on other devices.
    own = ["torch"] if pytorch.unsupported(cell, call) is None else []
    compiled = "cuda" if call.x.is_cuda else "native"
    both = [*own, compiled] if pytorch.is_faster(call.x) else [compiled, *own]
    return [*scans, *both, "reference"]


@constant_while_compiling
def forced() -> str | None:
    """The name of the engine that is forced, if any."""
    return _name()


def _name() -> str | None:
    choice = _forced.get()
    return None if choice is None else choice.name


@constant_while_compiling
def _warn(label: str, name: str, why: str) -> None:
    if (label, why) not in _warned:
        _warned.add((label, why))
        warnings.warn(
            f"{label} runs on the {name} engine, which is slower: {why}.",
            EngineWarning,
            stacklevel=callers_level(),
        )
