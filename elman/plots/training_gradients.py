"""How the gradient, the gates and the states went while a network learned, from its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elman.plots.axes import legend_below, logarithmic, style, whole_numbers
from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = 5  # lines of norms by lag, from the first look to the last


def draw_watch(lines: list[dict[str, Any]], path: Path | Sequence[Path], title: str = "") -> None:
    """Three panels for each cell: norm by lag, gate saturation, state norms.

    Args:
        lines: of the log that :class:`elman.training.watch.Watch` writes.
        path: the file, or several in different formats.
        title: what was trained on what.
    """
    cells = lines[-1]["cells"]
    lines = [line for line in lines if _names(line["cells"]) == _names(cells)]
    with canvas(path, 12, 0.6 + 4 * len(cells), title) as figure:
        rows = figure.subplots(len(cells), 3, squeeze=False)
        for k, (row, cell) in enumerate(zip(rows, cells, strict=True)):
            looks = [(line["update"], line["cells"][k]) for line in lines]
            name = f"layer {cell['layer']}" + (" reverse" if cell["direction"] == "reverse" else "")
            _draw_norms(row[0], looks, name)
            _draw_gates(row[1], looks, name)
            _draw_states(row[2], looks, name)


def _names(cells: list[dict[str, Any]]) -> list[Any]:
    """What there is of each cell: looks at other gates or states are another network's."""
    return [(*cell["gates"], None, *cell["state_norms"]) for cell in cells]


def _draw_norms(axes: Axes, looks: list[tuple[int, Any]], name: str) -> None:
    chosen = sorted({round(k) for k in np.linspace(0, len(looks) - 1, _LOOKS)})
    for k, which in enumerate(chosen):
        update, cell = looks[which]
        norms = _numbers(cell["norms"]["all"])
        norms[~(norms > 0)] = np.nan
        to = "to" if cell["verdict"] == "holds" else "at"
        label = f"update {update:,}: {cell['verdict']} {to} lag {cell['lag']}"
        axes.plot(norms, label=label, **style(k, len(chosen), len(norms)))
    axes.set(
        title=f"{name}: gradient of the last step's loss", xlabel="lag t − k [steps]",
        ylabel="‖∂L$_t$/∂s$_k$‖",
    )  # fmt: skip
    logarithmic(axes)
    legend_below(axes)


def _draw_gates(axes: Axes, looks: list[tuple[int, Any]], name: str) -> None:
    gates = list(looks[-1][1]["gates"])
    updates = [update for update, _ in looks]
    for k, gate in enumerate(gates):
        look = style(k, len(gates), len(updates))
        for side, line in (("above", "-"), ("below", ":")):
            shares = 100 * _numbers([cell["gates"][gate][side] for _, cell in looks])
            sign = "> 0.9" if side == "above" else "< 0.1"
            axes.plot(updates, shares, **look | {"linestyle": line}, label=f"{gate} {sign}")
    whole_numbers(axes)
    axes.set(
        title=f"{name}: saturated gates", xlabel="updates", ylabel="share of values [%]",
        ylim=(-3, 103),
    )  # fmt: skip
    if gates:
        legend_below(axes, len(gates))
    else:
        axes.text(0.5, 0.5, "no gates", ha="center", va="center", transform=axes.transAxes)


def _draw_states(axes: Axes, looks: list[tuple[int, Any]], name: str) -> None:
    states = list(looks[-1][1]["state_norms"])
    updates = [update for update, _ in looks]
    for k, state in enumerate(states):
        norms = _numbers([cell["state_norms"][state] for _, cell in looks])
        axes.plot(updates, norms, label=state, **style(k, len(states), len(updates)))
    axes.set(title=f"{name}: size of the states", xlabel="updates", ylabel="‖s‖, mean over steps")
    axes.set_ylim(bottom=0)
    whole_numbers(axes)
    legend_below(axes)


def _numbers(values: list[float | None]) -> np.ndarray:
    """Numbers of a log, NaN for those that were not finite."""
    return np.array([np.nan if v is None else v for v in values], float)
