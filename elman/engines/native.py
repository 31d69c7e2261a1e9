"""The ``native`` engine: any cell, compiled into fused kernels for this processor.

The kernels of a cell have a name, whatever they are compiled for. What gives the name, makes the
kernels and runs them takes the type of a device, and serves the ``cuda`` engine, too.
"""

from __future__ import annotations

import gc
import itertools
import threading
import uuid
import weakref
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from elman.cells.contract import Cell
from elman.cells.lines import at, reason, step_at
from elman.cells.options import Reading, is_mutable
from elman.compiler import cache, targets
from elman.compiler.affine import rounding
from elman.compiler.compiled import Compiled, compile_cell
from elman.compiler.forward import LoopOutputs
from elman.compiler.masks import filled, inside, learned
from elman.compiler.modes import (
    constant_while_compiling,
    in_onnx,
    is_recorded,
    is_transformed,
    operand,
    unrecorded,
)
from elman.compiler.naming import cell_of, name_of, unknown
from elman.compiler.record import Unsupported
from elman.compiler.targets import BuildError
from elman.engines import kept, operator, reference
from elman.engines.call import Call, Result
from elman.engines.check import TOLERANCE, check, fingerprint
from elman.errors import InputError

KEPT = 64
"""Kernels of a class of cells that are kept while no network uses them: a next one may."""
_known: weakref.WeakKeyDictionary[type[Cell], dict[Any, tuple[str, kept.Held | None]]] = (
    weakref.WeakKeyDictionary()
)
"""The name of a compiled cell, or why there is none (after a question mark), by what it reads."""
_naming = threading.RLock()
"""Held while a cell gets its name: two threads may bring cells at once."""


def knows(cell: Cell, real: torch.dtype | None = None, device: str = "cpu") -> bool:
    """Whether kernels usually run ``cell``, with numbers of a type or of its weights'."""
    return _name(cell, real or _type(cell), device)[0] != "?"


def runs(cell: Cell, real: torch.dtype, device: str = "cpu") -> bool:
    """Whether there are kernels for ``cell`` that give the reference engine's numbers."""
    return _ready(cell, real, device)[0] != "?"


def _type(cell: Cell) -> torch.dtype:
    like = next(cell.parameters(), None)
    return torch.float32 if like is None else like.dtype


def unsupported(cell: Cell, call: Call) -> str | None:
    """Why this engine cannot take this call, or None where it can."""
    if call.x.device.type != "cpu":
        return f"the native engine runs on the CPU, not on {call.x.device}"
    return refusal(cell, call)


def refusal(cell: Cell, call: Call) -> str | None:
    """Why no kernels can take this call, on whichever device, or None where some can."""
    real, device = call.state[0].dtype, call.x.device.type
    if torch.compiler.is_compiling() and hasattr(cell, "tag"):
        name = _tagged_name(cell, real, device)
        return name[1:] if name.startswith("?") else None
    if is_transformed():
        return "it does not run inside torch.func or in forward mode"
    if in_onnx():
        return "ONNX has no operator for its kernels"
    name = _ready(cell, real, device)
    return name[1:] if name.startswith("?") else None


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over time in one kernel; what depends on the input alone runs before it."""
    steps, batch = call.x.shape[:2]
    if steps == 0 or batch == 0:
        return reference.run(cell, weights, call)
    real, device = next(iter(weights.values())).dtype, call.x.device.type
    if torch.compiler.is_compiling() and hasattr(cell, "tag"):
        name, made_for = _tagged_name(cell, real, device), None
    else:
        name, made_for = _name(cell, real, device), vars(cell)["_memo"][_kind(cell, real)].cell
    return steps_of(name, made_for, weights, call)


def steps_of(name: str, cell: Cell | None, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run the kernels of that name, which were made for ``cell``."""
    steps, batch = call.x.shape[:2]
    real, device = next(iter(weights.values())).dtype, call.x.device.type
    compiled = kept.COMPILED[name]
    _check_alike(weights, call)
    cast, rounded = torch.is_autocast_enabled(device), operand(real, device)
    if not cast:
        call.check_types(real)
    resets = call.resets
    if resets is not None and call.reverse:
        # The boundary between two steps belongs, read backwards, to the earlier one.
        resets = torch.cat([resets[1:], torch.zeros_like(resets[:1])])
    with torch.autocast(device, enabled=False) if cast else nullcontext():
        x = call.x
        if call.lengths is not None and not compiled.tame:
            x, weights = filled(x, call.lengths), learned(weights, call.lengths)
        flat = x.to(real).flatten(0, 1)
        noise = None if call.noise is None else call.noise.to(real).flatten(0, 1)
        with rounding(rounded) if cast else nullcontext():
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
            call.reverse, call.every_state, train, rounded, cell=cell,
        )  # fmt: skip
    layout = LoopOutputs(compiled, call.every_state, train)
    y = out[0]
    if call.lengths is not None:
        y = torch.where(inside(steps, call.lengths), y, 0)
    every = tuple(out[: layout.states]) if call.every_state else None
    return Result(y, tuple(out[layout.last]), every)


def _check_alike(weights: Mapping[str, Tensor], call: Call) -> None:
    """The engine reads memory as it is told to, so that everything has to be what it seems."""
    like = next(iter(weights.values()))
    for name, weight in weights.items():
        other = weight.is_floating_point() and weight.dtype != like.dtype
        if other or weight.device != call.x.device:
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
    with _naming:
        tag = f"{_process}-{next(_count)}"
        _tagged[tag] = cell
        cell.__dict__["tag"] = tag
        cell.__dict__["_mutable"] = tuple(n for n, v in vars(cell).items() if is_mutable(n, v))
    return cell


_process = uuid.uuid4().hex
_count = itertools.count()
_tagged: weakref.WeakValueDictionary[str, Cell] = weakref.WeakValueDictionary()


def _tagged_name(cell: Cell, real: torch.dtype, device: str) -> str:
    """The name of the kernels of a cell, while PyTorch compiles what reads its tag."""
    for name in cell.__dict__[
        "_mutable"
    ]:  # compared here, so that the compiled code is for these values
        if not _alike(getattr(cell, name), _tagged_option(cell.tag, name)):
            return f"?its option {name} has changed while it was compiled"
    return tagged_name(cell.tag, cell.training, real, device)


def _alike(value: Any, known: Any) -> bool:
    if known is None:
        return False
    if isinstance(value, (list, tuple)):
        return len(value) == len(known) and all(map(_alike, value, known))
    if isinstance(value, dict):
        return _alike(list(value), known[0]) and _alike(list(value.values()), known[1])
    return bool(value == known)


@constant_while_compiling
def _tagged_option(tag: str, name: str) -> Any:
    """An option of the cell with this tag, in lists: of a dictionary, its keys and its values."""
    cell = _tagged.get(tag.partition(".")[0])
    return None if cell is None else _in_lists(getattr(cell, name))


def _in_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return [list(value), _in_lists(list(value.values()))]
    return [_in_lists(v) for v in value] if isinstance(value, (list, tuple)) else value


@constant_while_compiling
def tagged_name(tag: str, mode: bool, real: torch.dtype, device: str) -> str:
    """The name of the kernels of the cell with this tag, which is in this mode."""
    cell = _tagged.get(tag.partition(".")[0])
    if cell is None:
        return "?run the network once before compiling it"
    name = _ready(cell, real, device)
    if name[0] != "?":
        # The compiled code will speak of it.
        kept.hold(name, for_good=vars(cell)["_memo"][_kind(cell, real)].cell)
        if not torch.compiler.is_exporting():  # an exported program is of its day
            kept.watch(name, partial(_present, weakref.ref(cell), real, device))
    return name


def _present(cell: weakref.ref[Cell], real: torch.dtype, device: str) -> str | None:
    alive = cell()
    return None if alive is None else _ready(alive, real, device)


def know_all(cells: Iterable[Cell], real: torch.dtype, device: str) -> None:
    """Name the kernels of all cells before the first runs.

    PyTorch's compiler keeps the dictionary of kernels as it first sees it.
    """
    _let_go()
    for cell in cells:
        if hasattr(cell, "tag"):
            _tagged_name(cell, real, device)


@constant_while_compiling
def _let_go() -> None:
    """Kernels of networks that are gone go now: the compiler counts the keys of a dictionary."""
    gc.collect()


def compiled(cell: Cell, real: torch.dtype | None = None) -> Compiled:
    """The kernels of ``cell`` for numbers of a type, or of its weights'.

    Raises:
        InputError: the native engine has none for it.
    """
    name = _name(cell, real or _type(cell), "cpu")
    if name[0] == "?":
        raise InputError(f"the native engine cannot compile {type(cell).__name__}: {name[1:]}.")
    return kept.COMPILED[name]


def _name(cell: Cell, real: torch.dtype, device: str) -> str:
    """The name under which ``cell``'s kernels are known, compiled on first use.

    They are those of what its step reads today: options that have changed get kernels of their own.
    """
    target = targets.find(device)
    if target is None:
        return f"?there are no kernels for tensors on {device}"
    if real not in target.reals:
        reals = " and ".join(str(r).removeprefix("torch.") for r in target.reals)
        return f"?the {target.name} engine computes in {reals}, not in {real}"
    memos: dict[Any, _Memo] = vars(cell).get("_memo") or {}
    kind = _kind(cell, real)
    memo = memos.get(kind)
    if memo is None or not memo.reading.holds(cell):
        with _naming:
            # What is read is written down first: a change in the meantime will be seen.
            reading = Reading(cell, Cell)
            memo = _remembered(cell, reading, kind)
            vars(cell)["_memo"][kind] = memo
    if memo.name[0] == "?":
        return memo.name
    refused = kept.COMPILED[memo.name].refused
    if target not in refused:
        why = target.missing()
        refused[target] = f"?{why}" if why else ""
    return refused[target] or memo.name


_Kind = tuple[bool, torch.dtype, torch.dtype]


def _kind(cell: Cell, real: torch.dtype) -> _Kind:
    """A cell has kernels for its mode, the type of its numbers, and that of those it makes."""
    return vars(cell)["training"], real, torch.get_default_dtype()


class _Memo(NamedTuple):
    """The kernels of a cell as it was, for one kind."""

    name: str
    reading: Reading
    cell: Cell
    held: kept.Held | None = None


def _remembered(cell: Cell, reading: Reading, kind: _Kind) -> _Memo:
    """The kernels of a cell that reads this: those of another such cell, or new ones."""
    if hooked := [k for k in ("_forward_hooks", "_forward_pre_hooks") if vars(cell)[k]]:
        return _Memo(f"?it has {hooked[0][1:]}, which are called at every step", reading, cell)
    made_for = cell.bind({})
    known = _known.setdefault(type(cell), {})
    mode, *types = kind
    key: Any = None
    if reading.key is not None:
        key = reading.key, tuple(cell.weight_shapes().items()), *types
        for which in (None, mode):  # None: the step does not ask for its mode
            if (key, which) in known:
                name, held = known[key, which]
                return _Memo(name, reading, made_for, held)
    read: list[bool] = []
    watched = cell.bind({})
    watched.__dict__["_mode_read"] = read
    name = _compile(watched, kind[1])
    if name[0] != "?" and not reading.holds(cell):
        name = (
            "?its step does not do the same twice: it changes what it reads outside of its "
            f"arguments{at(step_at(cell))}"
        )
        return _Memo(name, reading, made_for)
    held = None if name[0] == "?" else kept.hold(name)
    if key is not None:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key, mode if read else None] = name, held
    return _Memo(name, reading, made_for, held)


def _ready(cell: Cell, real: torch.dtype, device: str) -> str:
    """As :func:`_name`, once its kernels are built and have been compared with the reference."""
    name, target = _name(cell, real, device), targets.find(device)
    if name[0] == "?" or target in kept.COMPILED[name].checked:
        return name
    assert target is not None
    compiled = kept.COMPILED[name]
    with _naming, _disable_current_modes(), unrecorded():
        try:
            compiled.build(real, target)
            key = vars(cell)["_memo"][_kind(cell, real)].reading.key
            mark = None
            if key is not None:  # otherwise nobody can tell the step from another
                mark = fingerprint(compiled, target, device, real, key)
            if mark is None or not cache.is_marked(mark):
                check(cell, compiled.hoisted, partial(steps_of, name, cell), real, device)
                if mark is not None:
                    cache.mark(mark)
            compiled.checked.add(target)
            return name
        except (Unsupported, BuildError, InputError) as error:
            compiled.refused[target] = f"?{error}"
        except Exception as error:
            line = at(step_at(cell))
            compiled.refused[target] = (
                f"?its kernels cannot be compared with its step{line} ({reason(error)})"
            )
    return compiled.refused[target]


def _compile(cell: Cell, real: torch.dtype) -> str:
    try:
        compiled = compile_cell(cell, real)
    except Unsupported as why:
        return f"?{why}"
    name = name_of(cell, real, compiled.digest)
    if name in kept.COMPILED:  # held by others, who may have done something beside it
        place, _, end = name.rpartition("#")
        name = f"{place}~{next(_count)}#{end}"
    kept.COMPILED[name] = compiled
    return name


def revived(name: str) -> Compiled:
    """The kernels that a program speaks of which another process recorded.

    Raises:
        InputError: no cell of this process computes the same.
    """
    real = next((r for r in TOLERANCE if f"#{str(r).removeprefix('torch.')}-" in name), None)
    if real is None:
        raise unknown(name)
    cell = cell_of(name)
    with unrecorded():
        # Whichever kernels can be compared with the step say that it is the one.
        ready = (_ready(cell, real, device) for device in targets.devices())
        known = next((name for name in ready if name[0] != "?"), "?")
    if known[0] == "?" or known.rpartition("#")[2] != name.rpartition("#")[2]:
        raise unknown(name)
    compiled = kept.COMPILED.setdefault(name, kept.COMPILED[known])
    for each in {known, name}:
        kept.hold(each, for_good=cell.bind({}))
    return compiled


kept.revive_by(revived)
