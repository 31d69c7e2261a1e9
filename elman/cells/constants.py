"""What a cell's step reads and nobody learns: made by a method, once for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.cells.lines import at, defined_at, reason, step_line
from elman.errors import ElmanError, InputError

if TYPE_CHECKING:
    from elman.cells.contract import Cell


class Constant:
    """A tensor that a step reads and nobody learns, such as which units are connected.

    Declared by the method that makes it, once for each cell::

        @Constant
        def period(self):
            return torch.arange(self.hidden_size) + 1.0

    Inside a step ``self.period`` is the tensor: one number, one for each unit, or a matrix. It is
    the buffer ``constant_period``: saved and moved with the weights, without a gradient, and no
    parameter.
    """

    def __init__(self, make: Callable[[Any], Tensor]):
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.parameter = f"constant_{name}"

    def __get__(self, cell: Any, owner: type) -> Any:
        return self if cell is None else getattr(cell, self.parameter)

    @property
    def line(self) -> str:
        """Where it is declared, as ``file:line``."""
        return defined_at(self.make)

    def made(self, cell: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The tensor for ``cell``, whose numbers are of ``dtype``; integers and bools stay such.

        It is computed in that precision, so that 0.1 is a double's 0.1 in a cell of doubles.

        Raises:
            InputError: the method fails, or gives something else than a tensor of real numbers.
        """
        label = f"{type(cell).__name__}.{self.name}"
        try:
            with _precision(dtype):
                value = self.make(cell)
        except ElmanError:
            raise
        except Exception as error:
            line = at(step_line(cell, error) or self.line)
            raise InputError(
                f"the constant {label} could not be made{line} ({reason(error)}): mend that line."
            ) from error
        if not isinstance(value, Tensor):
            number = isinstance(value, (int, float))
            raise InputError(
                f"the constant {label} must be a tensor{at(self.line)}, such as "
                f"torch.tensor({value if number else 0.5!r}), received {type(value).__name__}."
            )
        if value.is_complex():
            raise InputError(
                f"the constant {label} must be of real numbers{at(self.line)}, received "
                f"{value.dtype}: declare its real and its imaginary part."
            )
        kind = dtype if value.is_floating_point() else value.dtype
        # A tensor of its own, whose elements have a place each: it is loaded and changed in place.
        return value.detach().to(device, kind).clone(memory_format=torch.contiguous_format)


@contextmanager
def _precision(dtype: torch.dtype) -> Iterator[None]:
    """Numbers without a type are of ``dtype`` where that is finer than what they are of now."""
    before = torch.get_default_dtype()
    finer = torch.promote_types(before, dtype)
    if finer == before:
        yield
        return
    torch.set_default_dtype(finer)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def in_precision(cell: Cell, cast: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The constants of ``cell`` as exact as another precision can have them.

    Only those that are still as their methods made them, so that 0.1 is rounded once: what was
    loaded, changed or drawn at random stays as it was cast.

    Args:
        cell: the cell with its constants from before.
        cast: its weights and constants after, by the cell's names.
    """
    after, exact = cell.bind(cast), {}
    for constant in type(cell).constants():
        name = constant.parameter
        was, now = cell._buffers[name], after._buffers[name]
        if was is None or now is None or was.dtype == now.dtype or was.is_meta or now.is_meta:
            continue
        with torch.random.fork_rng([]):
            if not torch.equal(constant.made(cell, was.dtype, was.device), was):
                continue
            made = constant.made(after, now.dtype, now.device)
        coarse = was.dtype if was.element_size() < now.element_size() else now.dtype
        near = 64 * torch.finfo(coarse).eps
        most = float(now.abs().max()) if now.numel() else 0.0
        if torch.allclose(made.to(coarse), now.to(coarse), near, near * most, equal_nan=True):
            after._buffers[name] = exact[name] = made
    return exact
