"""Tables for people to read: as wide as the terminal, or as every row where there is none."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def table(columns: Sequence[str], left: Collection[str] = ()) -> Table:
    """An empty table: the first column and those named in ``left`` hold words, others figures."""
    made = Table(box=None, pad_edge=False)
    for k, column in enumerate(columns):
        words = k == 0 or column in left
        made.add_column(column, justify="left" if words else "right", no_wrap=not words)
    return made


def show(shown: Table) -> None:
    """Print a table."""
    console = Console(highlight=False, markup=False)
    if not sys.stdout.isatty():
        console.width = 160
    with console.capture() as text:
        console.print(shown)
    print(text.get(), end="")  # rich itself ends the process where nobody reads on


def figure(value: Any, digits: int = 4) -> str:
    """A value as people write it: 1,234.5 → 1,234 with four digits, 176.0 → 176, True → yes.

    Whole digits are never cut off up to a million; beyond, and below 0.0001, powers of ten stand.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:,.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_rows(
    columns: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()
) -> None:
    """Print rows of texts under their columns."""
    made = table(columns, left)
    for row in rows:
        made.add_row(*row)
    show(made)
