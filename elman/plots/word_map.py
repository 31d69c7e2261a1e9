"""A map of word vectors: words that are near each other there are near each other here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from elman.errors import InputError
from elman.plots.canvas import canvas, entitle
from elman.plots.fonts import inches, visible, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Typographic points: the size of the names, of a dot, and how far from it its name may stand.
_SIZE, _DOT, _DISTANCES = 7.5, 2.0, (3.0, 8.0, 13.0)
_SIDES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]])
_LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}


def draw_word_map(
    points: ArrayLike, words: Sequence[str], path: Path | Sequence[Path], title: str = ""
) -> None:
    """Draw words at their places, named as far as there is room.

    No name covers another name or a point. Each takes the nearest place beside its point that is
    free, the first words first; those without a name are grey, and how many is written below.

    Args:
        points: (N, 2) places, such as the first two principal components of the vectors.
        words: of the N points, the most important first.
        path: the file, or several in different formats.
        title: what the whole figure is of.

    Raises:
        InputError: the points are not N by 2, or there are none.
    """
    places = np.asarray(points, float)
    if not len(words) or places.shape != (len(words), 2):
        raise InputError(
            f"a map of {len(words)} words needs as many points (x, y), received the shape "
            f"{places.shape}."
        )
    side = min(12.0, 4 + 0.3 * math.sqrt(len(words)))
    with canvas(path, side, 0.8 * side) as figure:
        axes = figure.subplots()
        axes.plot(*places.T, "o", color="0.72", markersize=3)
        axes.set(xticks=[], yticks=[], xlabel="words")
        axes.margins(0.08)
        for spine in axes.spines.values():
            spine.set(visible=True, color="0.8")
        if title:
            entitle(figure, title)
        figure.draw_without_rendering()  # the layout decides where the points are
        named = _name(axes, places, words, figure.dpi / 72)
        axes.plot(*places[named].T, "o", color="#30466b", markersize=3)
        without = len(words) - named.sum()
        axes.set_xlabel(
            f"{len(words):,} words"
            + (f", {without:,} without room for the name" if without else "")
        )


def _name(axes: Axes, places: np.ndarray, words: Sequence[str], scale: float) -> np.ndarray:
    """Write names where nothing else is; return which there was room for.

    ``scale`` is pixels in a typographic point, in which all lengths are here.
    """
    shown, families = writable([visible(word) for word in words])
    points = axes.transData.transform(places) / scale
    page = np.array(axes.get_window_extent().extents) / scale
    taken = np.hstack([points - _DOT, points + _DOT])  # boxes: left, bottom, right, top
    named = np.zeros(len(words), bool)
    for k, (word, point) in enumerate(zip(shown, points, strict=True)):
        half = np.array([72 * inches([word], _SIZE), 1.2 * _SIZE]) / 2
        for distance, side in product(_DISTANCES, _SIDES):
            offset = side * (distance + half)
            box = np.hstack([point + offset - half, point + offset + half])
            if _is_free(box, page, taken):
                break
        else:
            continue
        named[k], taken = True, np.vstack([taken, box])
        axes.annotate(
            word, places[k], offset, textcoords="offset points", fontsize=_SIZE, family=families,
            ha="center", va="center", parse_math=False,
            arrowprops=_LEADER if distance > _DISTANCES[0] else None,
        ).set_in_layout(False)  # fmt: skip
    return named


def _is_free(box: np.ndarray, page: np.ndarray, taken: np.ndarray) -> bool:
    """Whether the box is on the page, and shares nothing of it with those that are taken."""
    if (box[:2] < page[:2]).any() or (box[2:] > page[2:]).any():
        return False
    return not ((box[:2] < taken[:, 2:]) & (taken[:, :2] < box[2:])).all(1).any()
