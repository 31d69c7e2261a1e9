"""What was taken for what: counts of true and predicted labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elman.errors import InputError
from elman.plots.axes import label_columns, label_rows
from elman.plots.canvas import COLOUR_MAP, canvas
from elman.plots.fonts import inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The most labels, inches of a cell, and whether it has room for its share and for its count.
_LAYOUTS = ((12, 0.52, True, True), (40, 0.31, False, True), (150, 0.15, False, False))
_MOST = _LAYOUTS[-1][0]


def draw_confusion(
    table: Mapping[str, Mapping[str, int]], path: Path | Sequence[Path], title: str = ""
) -> None:
    """Draw a confusion matrix: a row for each true label, a column for each predicted one.

    The shade of a cell is its share of the row, so that the diagonal shows each label's recall.
    Cells hold their counts, with up to 12 labels their shares too, with more than 40 neither; cells
    of none stay empty. Of more than 150 labels the most frequent are drawn, as shares of all.

    Args:
        table: how often each true label was taken for each, such as ``evaluate`` returns.
        path: the file, or several in different formats.
        title: what the whole figure is of.

    Raises:
        InputError: there are no labels.
    """
    frequency = {name: sum(row.values()) for name, row in table.items()}
    found = dict.fromkeys([*table, *(name for row in table.values() for name in row)])
    if not found:
        raise InputError("a confusion matrix needs a label at least, received none.")
    frequent = sorted(found, key=lambda name: -frequency.get(name, 0))[:_MOST]
    names = [name for name in found if name in set(frequent)]
    counts = np.array([[table.get(a, {}).get(b, 0) for b in names] for a in names])
    totals, count = np.array([frequency.get(name, 0) for name in names]), len(names)
    shares = counts / np.maximum(totals, 1)[:, None]
    _, cell, with_shares, with_counts = next(each for each in _LAYOUTS if count <= each[0])
    around = inches(names) + 0.9
    width, height = around + 1.4 + cell * count, around + 0.3 * bool(title) + cell * count
    with canvas(path, max(3.5, width), max(2.5, height), title) as figure:
        axes = figure.subplots()
        drawn = axes.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        label_columns(axes, names, cell)
        label_rows(axes, names)
        some = f", the most frequent {count} of {len(found)} labels" if count < len(found) else ""
        axes.set(xlabel=f"predicted{some}", ylabel="true")
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(count), [f"{total:,}" for total in totals], fontsize=8, color="0.3")
        right.set_ylabel("true examples")
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        figure.colorbar(drawn, ax=axes, label="share of the row", pad=0.02, aspect=30)
        if with_counts:
            _write(axes, counts, shares, with_shares)


def _write(axes: Axes, counts: np.ndarray, shares: np.ndarray, with_shares: bool) -> None:
    """The numbers in the cells, in an ink that can be read on their shades."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        text = f"{counts[row, column]:,}" + (f"\n{share:.0%}" if with_shares else "")
        ink = "black" if share > 0.5 else "white"
        size = min(8.0 if with_shares else 6.5, 30 / len(f"{counts[row, column]:,}"))
        axes.text(column, row, text, fontsize=size, color=ink, ha="center", va="center")
