"""What axes have in common: lines told apart, scales, ticks and legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from elman.plots.fonts import inches, visible, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

_DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1.2)), "-"]
_MARKERS = ["o", "s", "^", "D", "v", "p", "P", "*"]  # all of which may be hollow


def style(k: int, count: int, points: int) -> dict[str, Any]:
    """How the k-th of ``count`` lines of so many points looks: told apart without colour."""
    import matplotlib

    shade = matplotlib.colormaps["viridis"](0.78 * k / max(1, count - 1))
    every = max(1, points // 8)
    return {
        "color": shade,
        "linestyle": _DASHES[k % len(_DASHES)],
        "marker": _MARKERS[k % len(_MARKERS)],
        "markevery": (k * every // max(1, count), every),  # not all at the same places
    }


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis over twelve decades at most: what is below would flatten the rest."""
    axes.set_yscale("log")
    whole_numbers(axes)
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in drawn] or [np.ones(1)])
    if values.size:
        top = values.max() * 3
        axes.set_ylim(max(values.min() / 3, top / 1e12), top)


def logarithmic_if_wide(axes: Axes) -> None:
    """A logarithmic y axis, with plain numbers along it, where values span more than fourfold."""
    from matplotlib import ticker

    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([v[np.isfinite(v)] for v in drawn] or [np.ones(1)])
    if not values.size or values.min() <= 0 or values.max() <= 4 * values.min():
        return
    axes.set_yscale("log")
    few = values.max() > 1000 * values.min()
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1,) if few else (1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def whole_numbers(axes: Axes) -> None:
    """Whole numbers along the x axis, also where there is one alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def legend_below(axes: Axes, columns: int = 1) -> None:
    """The names of the lines below the axes: where lines are many, they would cover them."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), borderaxespad=0, ncols=columns)


def label_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    """Write a text's tokens under the columns of ``axes``, their spaces and line ends as signs."""
    label_columns(axes, [visible(token) for token in tokens])


def label_columns(axes: Axes, names: Sequence[str], room: float = 0.18) -> None:
    """Name the columns of ``axes``, in fonts that have the names; upright within ``room`` inches.

    Args:
        axes: a heat map.
        names: a text for each column.
        room: the width of a column.
    """
    shown, families = writable(names)
    upright = inches(shown) <= room
    axes.set_xticks(
        range(len(shown)), shown, family=families, rotation=0 if upright else 90, fontsize=8,
        parse_math=False,  # a price in dollars is no formula
    )  # fmt: skip


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of ``axes``, in fonts that have the names."""
    shown, families = writable(names)
    axes.set_yticks(range(len(shown)), shown, family=families, fontsize=8, parse_math=False)


def positive(norms: Tensor) -> np.ndarray:
    """For a logarithmic axis: a gap where a value is zero or not finite."""
    values = norms.detach().cpu().double().numpy().copy()
    values[~(np.isfinite(values) & (values > 0))] = np.nan
    return values
