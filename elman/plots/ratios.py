"""How fast elman is beside others, by shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.errors import InputError
from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from elman.bench.measurement import Measurement

_COLUMNS = 3


def draw_ratios(rows: Sequence[Measurement], path: Path) -> None:
    """Draw the ratios by shape, a panel a workload, cell and peer; above the line elman wins.

    What was measured in one shape alone shares the last panel. A filled mark stands for the most
    threads, an open one for fewer.

    Raises:
        InputError: no row has a ratio.
    """
    panels = _panels([r for r in rows if r.ratio is not None])
    if not panels:
        raise InputError(
            "there is nothing to draw: none of the rows has a peer to be compared with."
        )
    wide = min(_COLUMNS, len(panels))
    deep = -(-len(panels) // wide)
    numbers = sorted({r.threads for r in rows}, reverse=True)
    with canvas(path, 1 + 4.2 * wide, 0.7 + 2.8 * deep) as figure:
        grid = figure.subplots(deep, wide, sharey=True, squeeze=False)
        for axes, (title, labelled) in zip(grid.flat, panels.items(), strict=False):
            _draw(axes, title, labelled, numbers)
        for axes in grid.flat[len(panels) :]:
            axes.axis("off")
        for axes in grid[:, 0]:
            axes.set_ylabel("peer / elman")
        if len(numbers) > 1:
            marks = grid[0, 0].get_legend_handles_labels()
            figure.legend(*marks, loc="outside upper right", ncols=9)


def _panels(rows: Sequence[Measurement]) -> dict[str, list[tuple[str, Measurement]]]:
    """By title the rows, each with what stands under it."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for r in rows:
        groups.setdefault((r.workload, r.cell, r.peer), []).append(r)
    panels, single = {}, []
    for (workload, cell, peer), alike in groups.items():
        if len({r.shape for r in alike}) > 1:
            panels[f"{workload}, {cell} beside {peer}"] = [
                (f"{r.input}·{r.hidden}·{r.layers}\n{r.batch}×{r.steps}", r) for r in alike
            ]
        else:
            single += [(f"{workload} {cell}\n{peer}", r) for r in alike]
    if single:
        panels["in one shape"] = single
    return panels


def _draw(
    axes: Any, title: str, labelled: list[tuple[str, Measurement]], numbers: list[int]
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    labels = list(dict.fromkeys(label for label, _ in labelled))
    axes.axhline(1, color="black", linewidth=1)
    for k, threads in enumerate(numbers):
        some = [(labels.index(label), r.ratio) for label, r in labelled if r.threads == threads]
        aside = 0.12 * (k - (len(numbers) - 1) / 2)
        axes.plot(
            [x + aside for x, _ in some], [ratio for _, ratio in some], "o", color="black",
            markerfacecolor="black" if k == 0 else "white", markersize=6,
            label=f"{threads} thread{'s' if threads > 1 else ''}",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.5, len(labels) - 0.5)
    long = len(labels) * max(len(line) for label in labels for line in label.split("\n")) > 70
    axes.set_xticks(range(len(labels)), labels, fontsize=7, rotation=90 if long else 0)
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="y", labelleft=True, labelsize=8)
