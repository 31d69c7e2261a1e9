"""Names of compiled cells, which say what they compute: the same in every process.

A program that PyTorch records, by ``torch.export`` for instance, speaks of a cell's kernels by
their name, and may be opened where other cells, or the same in another order, were compiled.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.loop import Loop
from elman.compiler.record import Operation, Ref
from elman.compiler.trace import Hoisted
from elman.errors import ElmanError, InputError

LIBRARY = "elman.cells."


def name_of(cell: Cell, real: torch.dtype, digest: str) -> str:
    """``module:class[arguments]#dtype-digest`` of a compiled cell."""
    args, kwargs = cell._options
    given = {k: v for k, v in kwargs.items() if k not in ("device", "dtype")}
    try:
        options = json.dumps([args, given], separators=(",", ":"))
    except TypeError:  # of an argument that no text can hold
        options = ""
    kind = type(cell)
    number = str(real).removeprefix("torch.")
    return f"{kind.__module__}:{kind.__qualname__}{options}#{number}-{digest}"


def digest(hoisted: Hoisted, loop: Loop) -> str:
    """Of everything that a traced cell computes, sizes included."""
    # Not where the step stands, nor what it was recorded as, which is written by lines.
    left_out = ("changed", "recording")
    parts = [{k: v for k, v in vars(p).items() if k not in left_out} for p in (hoisted, loop)]
    text = repr(_plain(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cell_of(name: str) -> Cell:
    """A new cell like the one that was compiled under this name in another process.

    Raises:
        InputError: there is no such class here.
    """
    place = re.sub(r"~\d+$", "", name.rpartition("#")[0])  # the number of another of its name
    place, bracket, options = place.partition("[")
    module, _, path = place.partition(":")
    try:
        # Only elman's own are looked for on disk: a program does not say what is imported.
        found: Any = import_module(module) if module.startswith(LIBRARY) else sys.modules[module]
        for part in path.split("."):
            found = getattr(found, part)
        if not (isinstance(found, type) and issubclass(found, Cell)):
            raise TypeError
        args, kwargs = json.loads(bracket + options)
        with torch.random.fork_rng(devices=[]):
            return found(*args, **kwargs)
    except (ImportError, KeyError, AttributeError, ValueError, TypeError, ElmanError) as error:
        raise unknown(name) from error


def unknown(name: str) -> InputError:
    """What is said of a program whose cell there is none like."""
    place = name.partition("#")[0].partition("[")[0].replace(":", ".")
    return InputError(
        f"this program holds the compiled cell {place}, and this process has none that computes "
        "the same: make that cell and run it once before, in the version that it was recorded "
        "with, or record the program under elman.engine('reference')."
    )


def _plain(value: Any) -> Any:
    """``value`` as something that prints alike wherever it is equal."""
    if isinstance(value, Operation):
        given = _plain(value.args), _plain(value.kwargs)
        return str(_plain(value.function)), *given, value.results, value.learns
    if isinstance(value, Ref):
        return "@", value.number
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return [(_plain(k), _plain(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if getattr(value, "sized", False):  # a function with operations of its own
        return type(value).__qualname__, _plain(vars(value))
    if callable(value):
        overload = isinstance(value, torch._ops.OpOverload)
        return str(value) if overload else getattr(value, "__qualname__", type(value).__qualname__)
    return value
