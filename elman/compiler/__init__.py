"""A cell to something that runs: the engines, and the choice among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman.cells.contract import Cell


def source(cell: Cell) -> str:
    """The C++ that ``cell`` is compiled to by the native engine.

    Raises:
        InputError: the native engine has no kernel for it.
    """
    from elman.compiler import native

    return native.source(cell)
