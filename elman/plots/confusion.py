"""What was taken for what: counts of true and predicted labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from elman.errors import InputError
from elman.plots.axes import label_columns, label_rows
from elman.plots.canvas import COLOUR_MAP, canvas
from elman.plots.fonts import inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 150
"""As many rows as a confusion matrix may have."""

# The most labels, inches of a cell, and whether it has room for its share and for its count.
_LAYOUTS = ((12, 0.52, True, True), (40, 0.31, False, True), (MOST_LABELS, 0.15, False, False))


def draw_confusion(
    counts: ArrayLike, names: Sequence[str], path: Path | Sequence[Path], title: str = ""
) -> None:
    """Draw a confusion matrix: a row for each true label, a column for each predicted one.

    The shade of a cell is its share of the row, so that the diagonal shows each label's recall.
    Cells hold their counts, with few labels their shares as well, with many labels neither; cells
    of none stay empty.

    Args:
        counts: (K, K), such as ``sklearn.metrics.confusion_matrix`` returns.
        names: of the K labels.
        path: the file, or several in different formats.
        title: what the whole figure is of.

    Raises:
        InputError: the counts are not K by K, or the labels more than fit a picture.
    """
    table, count = np.asarray(counts), len(names)
    if table.shape != (count, count):
        raise InputError(
            f"a confusion matrix of {count} labels has the shape {(count, count)}, received "
            f"{table.shape}."
        )
    if not 0 < count <= MOST_LABELS:
        raise InputError(
            f"1 to {MOST_LABELS} labels fit a picture, received {count}: take the most frequent."
        )
    totals = table.sum(1)
    shares = table / np.maximum(totals, 1)[:, None]
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
        axes.set(xlabel="predicted", ylabel="true")
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(count), [f"{total:,}" for total in totals], fontsize=8, color="0.3")
        right.set_ylabel("true examples")
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        figure.colorbar(drawn, ax=axes, label="share of the row", pad=0.02, aspect=30)
        if with_counts:
            _write(axes, table, shares, with_shares)


def _write(axes: Axes, table: np.ndarray, shares: np.ndarray, with_shares: bool) -> None:
    """The numbers in the cells, in an ink that can be read on their shades."""
    for row, column in zip(*np.nonzero(table), strict=True):
        share = shares[row, column]
        text = f"{table[row, column]:,}" + (f"\n{share:.0%}" if with_shares else "")
        ink = "black" if share > 0.5 else "white"
        size = min(8.0 if with_shares else 6.5, 30 / len(f"{table[row, column]:,}"))
        axes.text(column, row, text, fontsize=size, color=ink, ha="center", va="center")
