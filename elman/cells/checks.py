"""Whether a cell's class keeps to the contract: what it declares, and what its step takes."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import nn

from elman.cells.constants import Constant
from elman.cells.lines import at, cause, defined_at, reason, step_line
from elman.cells.maps import Affine, Linear, Map
from elman.errors import InputError

if TYPE_CHECKING:
    from elman.cells.contract import Cell

_SIZES = ("x", "hidden")
"""What a map may multiply beside the states."""


def check_class(cell: Cell, base: type[Cell]) -> None:
    """Raise what is wrong with the class of ``cell``, which has its sizes but no weights yet.

    Args:
        cell: the cell.
        base: the class of all cells, whose names are taken.

    Raises:
        InputError: the first thing that is wrong, and the line of the user's that says so.
    """
    _check_names(cell, base)
    _check_states(cell)
    _check_step(cell, base)
    _check_maps(cell)


def check_shapes(cell: Cell) -> None:
    """Raise where a map is masked by what is no constant, or by one that does not fit its weight.

    Raises:
        InputError: which, and at which line it is declared.
    """
    for declared in type(cell).maps():
        mask = getattr(declared, "mask", None)
        if mask is None:
            continue
        label = f"{type(cell).__name__}.{declared.name}"
        constant = next((c for c in type(cell).constants() if c.name == mask), None)
        if constant is None:
            raise InputError(
                f"{label} is masked by {mask!r}{at(declared.line)}, which is no Constant of "
                f"{type(cell).__name__}: declare it, or leave out mask."
            )
        weight = next(s for n, s in declared.shapes(cell).items() if n.startswith("weight_hh"))
        shape = tuple(getattr(cell, constant.parameter).shape)
        try:
            fits = torch.broadcast_shapes(shape, weight) == weight
        except RuntimeError:
            fits = False
        if not fits:
            raise InputError(
                f"{label} is masked by {mask!r} of shape {shape}{at(constant.line)}; expected "
                f"{weight}, the shape of its weight of the state."
            )


def check_made(cell: Cell) -> None:
    """Raise where the class's ``__init__`` has not made a cell of it.

    Raises:
        InputError: it has not called that of its base, which makes the weights.
    """
    if "_parameters" not in vars(cell) or "hidden_size" not in vars(cell):
        cls = type(cell)
        raise InputError(
            f"{cls.__name__}.__init__ does not call super().__init__(input_size, hidden_size, "
            f"**options){at(defined_at(cls.__init__))}: only then has the cell its weights."
        )


def check_weights(cell: Cell) -> None:
    """Raise what is wrong with the cell's weights: each must be one that its class declares."""
    label = type(cell).__name__
    declare = "declare a cell's weights as Affine, Linear or Diagonal"
    names = [name for name, _ in cell.named_parameters()]
    constants = {constant.parameter for constant in type(cell).constants()}
    for name, _ in cell.named_buffers():
        if name not in constants:
            raise InputError(
                f"{label} holds the buffer {name!r}, which nothing declares: "
                "declare what a step reads but nobody learns as a Constant."
            )
    if not names:
        raise InputError(f"{label} has no weight: {declare}.")
    declared = {name for each in type(cell).maps() for name in each.shapes(cell)}
    for name in names:
        holder, inside, _ = name.partition(".")
        if name not in declared:
            what = "module" if inside else "parameter"
            raise InputError(
                f"{label} holds the {what} {holder!r}, which nothing declares: {declare}."
            )


def _check_states(cell: Cell) -> None:
    cls, label, state = type(cell), type(cell).__name__, cell.state
    line = at(cls.__defined_at__)
    if not isinstance(state, (tuple, list)):
        raise InputError(
            f"{label}.state must be a tuple of names{line}, such as ('h',), received {state!r}."
        )
    if not state or len(set(map(str, state))) != len(state):
        raise InputError(f"{label}.state must name each state once{line}, received {state!r}.")
    for name in state:
        named = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
        if not named or name in _SIZES:
            raise InputError(
                f"{label}.state must have names{line} such as h or c, other than x (the input) "
                f"and hidden, received {name!r}."
            )
    kept = cell.bookkeeping
    unknown = [kept] if isinstance(kept, str) else [n for n in kept if n not in state[1:]]
    if unknown:
        raise InputError(
            f"{label}.bookkeeping must be a tuple of names of states beside the output{line}, "
            f"received {unknown[0]!r}: the states are {', '.join(state)}."
        )
    _check_sizes(cell)


def _check_sizes(cell: Cell) -> None:
    label, names = type(cell).__name__, ", ".join(cell.state)
    declared = inspect.getattr_static(type(cell), "state_sizes")
    line = at(defined_at(declared.fget if isinstance(declared, property) else declared))
    try:
        sizes: Any = cell.state_sizes
    except Exception as error:
        why = cause(error)
        raise InputError(
            f"{label}.state_sizes could not be read{at(step_line(cell, why))} ({reason(why)}): set "
            "what it reads before super().__init__, which asks for the sizes."
        ) from error
    if callable(sizes):
        raise InputError(f"{label}.state_sizes must be a property{line}: put @property before it.")
    if not isinstance(sizes, (tuple, list)):
        raise InputError(
            f"{label}.state_sizes must be a tuple{line}, a size for each of {names}, received "
            f"{sizes!r}."
        )
    if len(sizes) != len(cell.state):
        raise InputError(
            f"{label}.state_sizes has {len(sizes)} values{line}; expected {len(cell.state)}, one "
            f"for each of {names}."
        )
    for name, size in zip(cell.state, sizes, strict=True):
        if not isinstance(size, SupportsIndex) or isinstance(size, bool) or int(size) < 1:
            raise InputError(
                f"{label}.state_sizes must be positive integers{line}, received {size!r} for "
                f"{name}."
            )


def _check_step(cell: Cell, base: type[Cell]) -> None:
    cls, label, states = type(cell), type(cell).__name__, ", ".join(cell.state)
    declared = inspect.getattr_static(cls, "step")
    if declared is base.step:
        raise InputError(
            f"{label} has no step: write def step(self, x, {states}), which returns the next of "
            "each state."
        )
    line = at(defined_at(declared) or cls.__defined_at__)
    if wrong := _no_method(declared):
        raise InputError(
            f"{label}.step must be a method{line}, def step(self, x, {states}), received {wrong}."
        )
    parameters = list(inspect.signature(declared).parameters.values())[1:]
    if not parameters or parameters[0].name not in ("x", "z"):
        received = parameters[0].name if parameters else "nothing"
        raise InputError(
            f"{label}.step must take x (the input) or z (its affine map) first{line}, "
            f"received {received!r}."
        )
    _check_count(label, parameters[1:], cell.state, line)
    if parameters[0].name == "z" and not any(isinstance(m, Affine) for m in cls.maps()):
        raise InputError(
            f"{label}.step takes z{line}, but {label} declares no Affine map: declare one, such as "
            "gates = Affine('i f'), or take x."
        )


def _no_method(declared: Any) -> str | None:
    """What stands in the place of a method, if it is none."""
    for kind in (staticmethod, classmethod, property):
        if isinstance(declared, kind):
            return f"a {kind.__name__}"
    if not callable(declared) or not hasattr(type(declared), "__get__"):
        plain = isinstance(declared, (int, float, str))
        return repr(declared) if plain else type(declared).__name__
    if inspect.iscoroutinefunction(declared) or inspect.isasyncgenfunction(declared):
        return "an async def"
    return "a generator, which yields" if inspect.isgeneratorfunction(declared) else None


def _check_count(
    label: str, parameters: Sequence[inspect.Parameter], state: Sequence[str], line: str
) -> None:
    """That a step can be given the states by position, and needs nothing else."""
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        most = len(state)
    else:
        most = sum(p.kind is not p.KEYWORD_ONLY for p in parameters if p.kind is not p.VAR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty]
    needed = [p for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not len(needed) <= len(state) <= most or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise InputError(
            f"{label}.step takes {len(needed)} states{line}; expected {len(state)}, one for each "
            f"of {', '.join(state)}."
        )


def _check_names(cell: Cell, base: type[Cell]) -> None:
    """That what a class declares hides nothing that every cell has."""
    cls, label = type(cell), type(cell).__name__
    taken = {*dir(base), *vars(nn.Module()), *base.__annotations__, "training"}
    taken |= {"input_size", "hidden_size", "biases", "tag"}
    declared: list[Map | Constant] = [*cls.maps(), *cls.constants()]
    for each in declared:
        if each.name in taken:
            raise InputError(
                f"{label} declares {each.name!r}{at(each.line)}, a name that every cell has for "
                "something else: rename it."
            )


def _check_maps(cell: Cell) -> None:
    """That maps are as wide as something that there is, and no two weights have one name."""
    cls = type(cell)
    for linear in cls.maps():
        if isinstance(linear, Linear):
            _check_widths(cell, linear)
    lines = {each.name: each.line for each in cls.maps()}
    lines |= {each.name: each.line for each in cls.constants()}
    for each in cls.maps():
        for name in each.shapes(cell):
            _check_parameter(cell, name, f"{each.name!r}{at(each.line)}", lines)
    for constant in cls.constants():
        _check_parameter(cell, constant.parameter, f"{constant.name!r}{at(constant.line)}", lines)


def _check_widths(cell: Cell, declared: Linear) -> None:
    for what in (declared.of, declared.to):
        if what not in (*_SIZES, *cell.state):
            raise InputError(
                f"{type(cell).__name__}.{declared.name} is as wide as {what!r}{at(declared.line)}, "
                f"which {type(cell).__name__} does not have: expected one of "
                f"{', '.join((*_SIZES, *cell.state))}."
            )


def _check_parameter(cell: Cell, name: str, source: str, lines: dict[str, str]) -> None:
    label = type(cell).__name__
    if not name.isidentifier():
        raise InputError(
            f"{label}: the weight of {source} must have a name without dots and blanks, received "
            f"{name!r}."
        )
    if name in lines or name in vars(cell) or hasattr(type(cell), name):
        where = at(lines.get(name, ""))
        raise InputError(
            f"{label}: the weight of {source} is called {name}, but {label} has something else of "
            f"that name{where}: rename one of the two."
        )
