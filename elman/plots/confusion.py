"""Which labels a model takes for which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from elman.plots.canvas import COLOUR_MAP, canvas

_MOST = 40


def draw_confusion(table: Mapping[str, Mapping[str, float]], path: Path, title: str = "") -> None:
    """Draw a confusion matrix: a row for each label of the data, as shares of it.

    The most frequent 40 labels have a row; what was taken for others is in the shares all the same.

    Args:
        table: how often each label (a row) was taken for each, the most frequent first.
        path: of the picture.
        title: the model and its data.

    Raises:
        InputError: the path is none of a picture.
    """
    labels = list(table)[:_MOST]
    totals = [max(1.0, sum(table[label].values())) for label in labels]
    shares = np.array(
        [[table[a].get(b, 0) / total for b in labels] for a, total in zip(labels, totals, strict=True)]
    )
    side = 2.2 + 0.32 * len(labels)
    with canvas(path, max(4.0, side + 0.8), max(3.2, side), title) as figure:
        axes = figure.subplots()
        drawn = axes.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1)
        figure.colorbar(drawn, ax=axes, label="share of the row")
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("found")
        axes.set_ylabel("in the data")
        axes.grid(False)
        for a, row in enumerate(shares):
            for b, share in enumerate(row):
                if share >= 0.005:
                    dark = share < 0.5
                    axes.text(
                        b, a, f"{100 * share:.0f}", ha="center", va="center", fontsize=6,
                        color="white" if dark else "black",
                    )  # fmt: skip
