"""Learning rules side by side on one stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elman.plots.axes import logarithmic_if_wide, style
from elman.plots.canvas import canvas


def draw_rules(compared: dict[str, Any], path: Path | Sequence[Path]) -> None:
    """Draw error by steps and by seconds, and memory by steps, a line for each rule.

    Args:
        compared: what :func:`elman.studies.online.compare_rules` returns.
        path: the file, or several in different formats.
    """
    from matplotlib import ticker

    panels = (
        ("step", "error", "steps of the stream", compared["measure"]),
        ("seconds", "error", "seconds", compared["measure"]),
        ("step", "bytes", "steps of the stream", "memory taken by learning [MB]"),
    )
    drawn = [row for row in compared["rows"] if row["curve"]]
    its = compared["settings"]
    title = (
        f"{compared['data']}: {its['cell']}, {its['layers']} × {its['hidden']} units, "
        f"an update every {its['update']} step{'s' if its['update'] > 1 else ''}"
    )
    with canvas(path, 12, 4, title) as figure:
        axes = figure.subplots(1, 3)
        for axis, (across, up, x_label, y_label) in zip(axes, panels, strict=True):
            for k, row in enumerate(drawn):
                points = [p for p in row["curve"] if p[up] is not None]
                values = [p[up] / (1e6 if up == "bytes" else 1) for p in points]
                look = style(k, len(drawn), len(points)) | {"linewidth": 1}
                axis.plot([p[across] for p in points], values, **look, label=row["rule"])
            axis.set(xlabel=x_label, ylabel=y_label)
            axis.xaxis.set_major_locator(ticker.MaxNLocator(5))
            axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
            if up == "bytes":
                axis.set_ylim(bottom=0)
            else:
                logarithmic_if_wide(axis)
        if drawn:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=6)
