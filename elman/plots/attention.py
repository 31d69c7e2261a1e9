"""Where a decoder looked: its attention to each token of the source as it wrote each of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from elman.errors import InputError
from elman.plots.axes import label_columns, label_rows
from elman.plots.canvas import COLOUR_MAP, canvas
from elman.plots.fonts import inches, visible

MOST_TOKENS = 100
"""As many rows or columns as a map of attention may have."""

_CELL = 0.25  # inches


def draw_attention(
    weights: ArrayLike,
    source: Sequence[str],
    target: Sequence[str],
    path: Path | Sequence[Path],
    title: str = "",
) -> None:
    """Draw attention as a heat map: a row for each target token, a column for each source token.

    After the figures of Bahdanau, Cho & Bengio (2015).

    Args:
        weights: (T, S), each in 0 … 1: how far target token t looked at source token s.
        source, target: the S and the T tokens, marks of the end included.
        path: the file, or several in different formats.
        title: what the whole figure is of.

    Raises:
        InputError: the weights are not as many as the tokens, or more than fit a picture.
    """
    shown, shape = np.asarray(weights, float), (len(target), len(source))
    if shown.shape != shape:
        raise InputError(
            f"attention of {shape[0]} target tokens to {shape[1]} source tokens has the shape "
            f"{shape}, received {shown.shape}."
        )
    if not 0 < min(shape) <= max(shape) <= MOST_TOKENS:
        raise InputError(
            f"1 to {MOST_TOKENS} tokens of source and target fit a picture, received {shape[1]} "
            f"and {shape[0]}: take a shorter pair."
        )
    source, target = ([visible(token) for token in tokens] for tokens in (source, target))
    width = 1.4 + inches(target) + _CELL * shape[1]
    height = 0.6 + inches(source) + _CELL * shape[0] + 0.3 * bool(title)
    with canvas(path, max(3, width), max(2, height), title) as figure:
        axes = figure.subplots()
        drawn = axes.imshow(
            shown, cmap=COLOUR_MAP, vmin=0, vmax=float(shown.max()) or 1, interpolation="nearest"
        )
        axes.grid(visible=False)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        label_columns(axes, source, _CELL)
        label_rows(axes, target)
        figure.colorbar(drawn, ax=axes, label="attention", pad=0.02, aspect=30)
