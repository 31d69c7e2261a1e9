"""Tables for people to read: as wide as the terminal, or as every row where there is none."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table(columns: Sequence[str], left: Collection[str] = ()) -> Table:
    """An empty table: the first column and those named in ``left`` hold words, others figures."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for k, column in enumerate(columns):
        words = k == 0 or column in left
        made.add_column(column, justify="left" if words else "right", no_wrap=not words)
    return made


def show(shown: Table) -> None:
    """Print a table."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not sys.stdout.isatty():
        console.width = 160
    with console.capture() as text:
        console.print(shown)
    print(text.get(), end="")  # rich itself ends the process where nobody reads on


def print_rows(
    columns: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()
) -> None:
    """Print rows of texts under their columns."""
    made = table(columns, left)
    for row in rows:
        made.add_row(*row)
    show(made)
