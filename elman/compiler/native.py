"""The ``native`` engine: any cell, compiled into fused kernels for this processor."""

from __future__ import annotations

import itertools
import threading
import uuid
import weakref
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from elman.cells.contract import Cell
from elman.cells.lines import at, step_line
from elman.compiler import build, operator, reference
from elman.compiler.build import REALS
from elman.compiler.call import (
    Call,
    Result,
    constant_while_compiling,
    in_onnx,
    is_recorded,
    unrecorded,
)
from elman.compiler.check import check, fingerprint
from elman.compiler.kernels import Compiled
from elman.compiler.lower import decompose
from elman.compiler.naming import cell_of, name_of, unknown
from elman.compiler.products import is_transformed
from elman.compiler.record import Unsupported
from elman.compiler.trace import trace
from elman.errors import InputError

_known: dict[Any, str] = {}
"""The name of a compiled cell, or why there is none (after a question mark)."""
_by_object: weakref.WeakKeyDictionary[Cell, dict[Any, str]] = weakref.WeakKeyDictionary()
"""The same by cell, and by the types of its numbers and of those that PyTorch makes by default."""
_namesakes = itertools.count(2)
_naming = threading.RLock()
"""Held while a cell gets its name: two threads may bring cells at once."""


def knows(cell: Cell, real: torch.dtype | None = None) -> bool:
    """Whether this engine usually runs ``cell``, with numbers of a type or of its weights'."""
    return _name(cell, real or _type(cell))[0] not in "?!"


def runs(cell: Cell, real: torch.dtype) -> bool:
    """Whether this engine has kernels for ``cell`` that give the reference engine's numbers."""
    return _ready(cell, real)[0] not in "?!"


def _type(cell: Cell) -> torch.dtype:
    like = next(cell.parameters(), None)
    return torch.float32 if like is None else like.dtype


def unsupported(cell: Cell, call: Call) -> str | None:
    """Why this engine cannot take this call, or None where it can."""
    real = call.state[0].dtype
    if torch.compiler.is_compiling() and hasattr(cell, "tag"):
        name = tagged_name(cell.tag, real)
        return name[1:] if name.startswith("?") else None
    if is_transformed():
        return "it does not run inside torch.func or in forward mode"
    if in_onnx():
        return "ONNX has no operator for its kernels"
    if call.x.device.type != "cpu":
        return f"the native engine runs on the CPU, not on {call.x.device}"
    if real not in REALS:
        return f"the native engine computes in float32 and float64, not in {real}"
    name = _ready(cell, real)
    return name[1:] if name.startswith("?") else None


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over time in one kernel; what depends on the input alone runs before it."""
    steps, batch = call.x.shape[:2]
    if steps == 0 or batch == 0:
        return reference.run(cell, weights, call)
    real = next(iter(weights.values())).dtype
    if torch.compiler.is_compiling() and hasattr(cell, "tag"):
        name = tagged_name(cell.tag, real)
    else:
        name = _name(cell, real)
    if name == "!":
        return reference.run(cell, weights, call)
    return steps_of(name, weights, call)


def steps_of(name: str, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run the kernels of that name."""
    steps, batch = call.x.shape[:2]
    real = next(iter(weights.values())).dtype
    compiled = operator.COMPILED[name]
    _check_alike(weights, call)
    if not torch.is_autocast_enabled("cpu"):
        call.check_types(real)
    resets = call.resets
    if resets is not None and call.reverse:
        # The boundary between two steps belongs, read backwards, to the earlier one.
        resets = torch.cat([resets[1:], torch.zeros_like(resets[:1])])
    with (
        torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext()
    ):
        flat = call.x.to(real).flatten(0, 1)
        noise = None if call.noise is None else call.noise.to(real).flatten(0, 1)
        sequences, parameters = compiled.hoisted.run(flat, weights, noise)
        sequences = [s.unflatten(0, (steps, batch)) for s in sequences]
        states = [s.to(real) for s in call.state]
        starts = [s.to(real) for s in call.start] if resets is not None else []
        # Whoever runs a recorded program may ask it for a gradient.
        train = is_recorded() or (
            torch.is_grad_enabled()
            and any(t.requires_grad for t in (*sequences, *parameters, *states, *starts))
        )
        drawn = [] if noise is None else [noise]
        origin = [flat, *drawn, *(weights[n] for n in compiled.hoisted.weights)]
        out = operator.loop(
            name, origin, sequences, parameters, states, starts,
            None if resets is None else resets.contiguous(), call.lengths,
            call.reverse, call.every_state, train,
        )  # fmt: skip
    layout = operator.Layout(compiled, call.every_state, train)
    y = out[0]
    if call.lengths is not None:
        alive = torch.arange(steps).unsqueeze(1) < call.lengths
        y = torch.where(alive.unsqueeze(-1), y, 0)
    every = tuple(out[: layout.states]) if call.every_state else None
    return Result(y, tuple(out[layout.last]), every)


def _check_alike(weights: Mapping[str, Tensor], call: Call) -> None:
    """The engine reads memory as it is told to, so that everything has to be what it seems."""
    like = next(iter(weights.values()))
    for name, weight in weights.items():
        if weight.dtype != like.dtype or weight.device != call.x.device:
            raise InputError(
                f"{name} is {weight.dtype} on {weight.device}, but the input lies on "
                f"{call.x.device} and the first weight is {like.dtype}: call .to(…) on the network."
            )
    for state in (*call.state, *call.start):
        if state.device != call.x.device:
            raise InputError(
                f"a state lies on {state.device}, but the input on {call.x.device}: move one."
            )


def tagged(cell: Cell) -> Cell:
    """``cell``, with a name by which a compiler that traces Python can speak of it."""
    key = _key(cell) or id(cell)
    with _naming:
        if key not in _tags:
            _tags[key] = f"{_process}-{len(_tags)}"
            _tagged[_tags[key]] = cell
        cell.__dict__["tag"] = _tags[key]
    return cell


_process = uuid.uuid4().hex
_tags: dict[Any, str] = {}
_tagged: dict[str, Cell] = {}


@constant_while_compiling
def tagged_name(tag: str, real: torch.dtype) -> str:
    """The name of the kernels of the cell with this tag, while PyTorch compiles."""
    if tag not in _tagged:  # pickled in another process
        return "?run the network once before compiling it"
    return _ready(_tagged[tag], real)


def know_all(cells: Iterable[Cell], real: torch.dtype) -> None:
    """Name the kernels of all cells before the first runs.

    PyTorch's compiler keeps the dictionary of kernels as it first sees it.
    """
    for cell in cells:
        if hasattr(cell, "tag"):
            tagged_name(cell.tag, real)


def source(cell: Cell) -> str:
    """The C++ that ``cell`` is compiled to.

    Raises:
        InputError: the native engine has no kernel for it.
    """
    return compiled(cell).source


def compiled(cell: Cell, real: torch.dtype | None = None) -> Compiled:
    """The kernels of ``cell`` for numbers of a type, or of its weights'.

    Raises:
        InputError: the native engine has none for it.
    """
    name = _name(cell, real or _type(cell))
    if name[0] in "?!":
        raise InputError(f"the native engine cannot compile {type(cell).__name__}: {name[1:]}.")
    return operator.COMPILED[name]


def _name(cell: Cell, real: torch.dtype) -> str:
    """The name under which ``cell``'s kernels are known, compiled on first use."""
    kind = (real, torch.get_default_dtype())  # of what a step makes without saying its type
    names = _by_object.setdefault(cell, {})
    if kind in names:
        return names[kind]
    with _naming:
        if getattr(cell, "tag", None) not in _tagged:
            tagged(cell)
        key = _key(cell)
        if key is None or (key, kind) not in _known:
            with unrecorded():
                name = _compile(cell, real)
            if key is not None:
                _known[key, kind] = name
        else:
            name = _known[key, kind]
        names[kind] = name
    return name


_NOT_OF_THE_STEP = frozenset(vars(torch.nn.Module())) | {"_options", "tag"}


def _key(cell: Cell) -> Any:
    """What decides the kernels of a cell, or None where that cannot be told."""
    plain = []
    for name, value in vars(cell).items():
        if name in _NOT_OF_THE_STEP:
            continue
        if not isinstance(value, (int, float, str, bool, tuple, type(None))):
            return None
        plain.append((name, value))
    return type(cell), tuple(sorted(plain)), tuple(cell.weight_shapes().items())


def _ready(cell: Cell, real: torch.dtype) -> str:
    """As :func:`_name`, once its kernels are built and have been compared with the reference."""
    name = _name(cell, real)
    if name[0] in "?!" or operator.COMPILED[name].checked:
        return name
    compiled = operator.COMPILED[name]
    with _naming, _disable_current_modes(), unrecorded():
        try:
            compiled.build(real)
            mark = fingerprint(cell, compiled.hoisted, compiled.source, real)
            if not build.is_marked(mark):
                check(cell, compiled.hoisted, partial(steps_of, name), real)
                build.mark(mark)
            compiled.checked = True
            return name
        except InputError:
            why = "!"
        except (Unsupported, build.BuildError) as error:
            why = f"?{error}"
        for names in (_known, *_by_object.values()):
            names.update({k: why for k, n in names.items() if n == name})
    return why


def _compile(cell: Cell, real: torch.dtype) -> str:
    if real not in REALS:
        return f"?the native engine computes in float32 and float64, not in {real}"
    try:
        build.compiler()
        with _disable_current_modes():  # of a compiler of PyTorch's that runs this with fakes
            compiled = Compiled(*trace(cell, decompose, real), cell=cell.bind({}))
    except (Unsupported, build.BuildError) as why:
        return f"?{why}"
    except InputError:
        return "!"  # the cell does not keep to its contract: the reference engine says how
    except Exception as error:  # of the step itself: the reference engine shows it in full
        reason = str(error).splitlines() or [""]
        line = at(step_line(cell, error))
        return f"?its step cannot be traced{line} ({type(error).__name__}: {reason[0]})"
    name = name_of(cell, real, compiled.digest)
    held = operator.COMPILED.get(name)
    if held is not None and type(held.cell) is not type(cell):  # two classes of one name
        place, _, end = name.rpartition("#")
        name = f"{place}~{next(_namesakes)}#{end}"
    operator.COMPILED[name] = compiled
    return name


def revived(name: str) -> Compiled:
    """The kernels that a program speaks of which another process recorded.

    Raises:
        InputError: no cell of this process computes the same.
    """
    real = next((r for r in REALS if f"#{str(r).removeprefix('torch.')}-" in name), None)
    if real is None:
        raise unknown(name)
    cell = cell_of(name)
    with _naming, unrecorded():
        if _compile(cell, real) != name or _ready(cell, real) != name:
            raise unknown(name)
    return operator.COMPILED[name]
