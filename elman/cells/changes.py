"""What happens when an option of a cell is set after it was made.

A network computes with copies of the cells that it was made from; they follow. An option that the
weights or constants were made by cannot change any more, and says so.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.cells.options import Memos
from elman.cells.values import INTERNAL, Unkeyable, frozen
from elman.errors import InputError

if TYPE_CHECKING:
    from elman.cells.contract import Cell

_Cells = weakref.WeakKeyDictionary["Cell", weakref.WeakSet["Cell"]]
_followers: _Cells = weakref.WeakKeyDictionary()
_followed: _Cells = weakref.WeakKeyDictionary()
"""Nothing is kept alive, and no link is lost with a cell between two others that is gone."""


def follow(cell: Cell, *copies: Cell) -> None:
    """From now on, what is set on ``cell``, and on what it follows, is also set on ``copies``."""
    behind = [c for copy in copies if copy is not cell for c in (copy, *followers(copy))]
    for before in (cell, *_followed.get(cell, ())):
        _followers.setdefault(before, weakref.WeakSet()).update(behind)
        for each in behind:
            _followed.setdefault(each, weakref.WeakSet()).add(before)


def followers(cell: Cell) -> list[Cell]:
    """All that follow ``cell``."""
    return list(_followers.get(cell, ()))


def write(cell: Cell, name: str, change: Callable[[Cell], None]) -> None:
    """Do ``change``, which sets or deletes the attribute ``name``, to a cell and its followers.

    Raises:
        InputError: it is a weight, and the cell is a network's; or weights and constants would be
            others with it.
    """
    own = vars(cell)
    others = followers(cell) if own.get("_made") else []
    if name == "training" or not own.get("_made") or ("_bound" in own and not others):
        change(cell)  # a mode is each network's own, and a cell that runs is nobody else's
        own["_memo"] = Memos()
        return
    label = type(cell).__name__
    if others and (name in own["_parameters"] or name in own["_buffers"]):
        raise InputError(
            f"{label}.{name} belongs to a network that computes with parameters of its own: set "
            f"the network's, such as {name}_l0, or change its values under torch.no_grad()."
        )
    reached = [cell, *others]
    read = [c for c in reached if hasattr(c, name)]  # a new attribute, nothing was made by
    before = [(vars(c).copy(), dict(c._modules)) for c in reached]
    made = [_made_by(c) for c in read]
    try:
        for each in reached:
            change(each)
        same = all(_same(_made_by(c), m) for c, m in zip(read, made, strict=True))
    except BaseException:
        _restore(reached, before)
        raise
    if not same:
        _restore(reached, before)
        raise InputError(
            f"{label}.{name} decides what weights or constants a cell has, and this one is made: "
            f"make a new one, {label}(…, {name}=…)."
        )
    for each in reached:
        vars(each)["_memo"] = Memos()
        if "tag" in vars(each):  # what a compiler has made of the cell's tag does not hold any more
            tag, _, count = vars(each)["tag"].partition(".")
            vars(each)["tag"] = f"{tag}.{int(count or 0) + 1}"


def _restore(cells: list[Cell], before: list[Any]) -> None:
    for cell, (own, modules) in zip(cells, before, strict=True):
        vars(cell).clear()
        vars(cell).update(own)
        cell._modules.clear()
        cell._modules.update(modules)


def _made_by(cell: Cell) -> tuple[Any, ...]:
    """What is made once, when a cell is, as its options are now."""
    sizes = cell.weight_shapes(), cell.state, cell.state_sizes, cell.noise_size
    constants = []
    for constant in type(cell).constants():
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            first = constant.make(cell)
            torch.manual_seed(0)
            again = constant.make(cell)
        constants.append(first if _equal(first, again) else None)  # None: of other random numbers
    return *sizes, constants


def _same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return now[:-1] == before[:-1] and all(map(_equal, now[-1], before[-1]))


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def changed_options(cell: Cell) -> dict[str, Any]:
    """The options that are no longer as the cell's class makes them, with copies of their values.

    Plain tensors are left out: nobody knows how they follow from the sizes.
    """
    try:  # without memory for its weights
        with torch.device("meta"):
            twin = cell._remade(cell.input_size, cell.hidden_size, "device")
    except Exception:  # a class may look at numbers, which are not there: made in full, it says why
        with torch.random.fork_rng([]):
            twin = cell._remade(cell.input_size, cell.hidden_size)
    own = {**vars(cell), **cell._modules}
    made = {**vars(twin), **twin._modules}
    return {
        name: _copied(value)
        for name, value in own.items()
        if name not in INTERNAL and not isinstance(value, Tensor) and _differ(value, made.get(name))
    }


def _differ(value: Any, made: Any) -> bool:
    try:
        return frozen(value) != frozen(made)
    except Unkeyable:
        return type(value) is not type(made)


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # what cannot be copied is shared
        return value
