"""The plots of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.plots.axes import legend_below, logarithmic, style
from elman.plots.canvas import COLOUR_MAP, canvas
from elman.studies.machines import Configuration
from elman.training.measures import Measure

LOSS, FIGURE = 1, 2  # places in a curve's points: (update, loss, figure)


def draw_learning(found: Mapping[str, Any], headline: Measure, title: str, path: Path) -> None:
    """The headline at every check by update, a line for each seed, and what it must reach."""
    with canvas(path, 6.5, 4) as figure:
        axes = figure.subplots()
        _draw_curves(axes, found, headline, FIGURE)
        reach = found["reach"]
        axes.axhline(reach, color="0.5", linewidth=0.8)
        axes.text(
            0.995, reach, f"to reach: {reach:g}", color="0.35", fontsize=8, ha="right",
            va="bottom", transform=axes.get_yaxis_transform(),
        )  # fmt: skip
        if not headline.higher:
            logarithmic(axes)
        axes.set(title=title, ylabel=headline.name.replace("_", " "))


def draw_counting(
    found: Mapping[str, Any],
    headline: Measure,
    states: Tensor,
    string: str,
    title: str,
    path: Path,
) -> None:
    """The training loss and how far each seed counts; the best network's states on one string.

    Args:
        found: with ``rows`` and ``curves``.
        headline: how far each counts.
        states: (T, H), after each symbol.
        string: what they were made by.
        title: of the states' panel.
        path: of the file.
    """
    with canvas(path, 11, 4) as figure:
        losses, panel = figure.subplots(1, 2, width_ratios=(1, 1.4))
        _draw_curves(losses, found, headline, LOSS)
        logarithmic(losses)
        beside = headline.name.replace("_", " ")
        losses.set(title=f"training; beside each seed: {beside}", ylabel="loss")
        # A counter goes far and comes back; other units may move as far, but on and on.
        detour = states.amax(0) - states.amin(0) - (states[-1] - states[0]).abs()
        order = detour.argsort(descending=True).tolist()
        for k, unit in enumerate(order):
            look = style(k, len(order), len(states)) if k < 3 else {"color": "0.8", "zorder": 0}
            label = f"unit {unit}" if k < 3 else None
            panel.plot(states[:, unit].numpy(), label=label, **look)
        changes = [k for k in range(1, len(string)) if string[k] != string[k - 1]]
        for change in changes:
            panel.axvline(change - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        panel.set(title=title, xlabel="symbol", ylabel="state")
        legend_below(panel, columns=3)


def _draw_curves(axes: Any, found: Mapping[str, Any], headline: Measure, column: int) -> None:
    rows, curves = found["rows"], found["curves"]
    for k, (row, curve) in enumerate(zip(rows, curves, strict=True)):
        label = f"seed {row['seed']}: {row[headline.name]:.4g}"
        updates, values = [point[0] for point in curve], [point[column] for point in curve]
        axes.plot(updates, values, label=label, **style(k, len(rows), len(updates)))
    axes.set_xlabel("updates")
    legend_below(axes, columns=3)


def draw_forecasts(
    truth: Tensor,
    forecasts: Mapping[str, Tensor],
    errors: Mapping[str, Tensor],
    time: float,
    unit: str,
    title: str,
    path: Path,
) -> None:
    """A free run beside the truth, and the error by horizon of each model.

    Args:
        truth: (T), of the coordinate that is shown.
        forecasts: (T) by model.
        errors: (T) by model: the normalised error at each horizon.
        time: of one step, in ``unit``.
        unit: of the axis of time.
        title: of the first panel.
        path: of the file.
    """
    with canvas(path, 11, 4.4) as figure:
        runs, horizons = figure.subplots(1, 2)
        at = np.arange(1, len(truth) + 1) * time
        runs.plot(at, truth.numpy(), color="0.7", linewidth=3.5, label="the truth")
        for k, (name, values) in enumerate(forecasts.items()):
            look = style(k, len(forecasts), len(values))
            # What has run away would flatten the rest.
            inside = values.abs() < 2 * truth.abs().max()
            runs.plot(at, values.where(inside, torch.nan).numpy(), label=name, **look)
            horizons.plot(at, errors[name].clamp(min=1e-12).numpy(), label=name, **look)
        horizons.axhline(1, color="0.5", linewidth=0.8)
        runs.set(title=title, xlabel=f"time [{unit}]", ylabel="x")
        horizons.set(
            title="error by horizon, over all starts", xlabel=f"horizon [{unit}]",
            ylabel="root mean squared error / standard deviation",
        )  # fmt: skip
        logarithmic(horizons)
        for axes in (runs, horizons):
            legend_below(axes, columns=2)


def draw_machine(
    configurations: Sequence[Configuration],
    heads: Sequence[int],
    symbols: str,
    units: Sequence[Sequence[float]],
    title: str,
    path: Path,
) -> None:
    """What a network of a Turing machine holds, step by step: the tape in its numbers, its units.

    Args:
        configurations: after each step.
        heads: where the head is after each step.
        symbols: of the machine, the blank first.
        units: (steps, n), every unit's value.
        title: of the machine.
        path: of the file.
    """
    from matplotlib.colors import BoundaryNorm

    tapes = []
    for head, now in zip(heads, configurations, strict=True):
        start = head - len(now.left)
        tapes.append({start + k: symbols.index(s) for k, s in enumerate(now.tape)})
    cells = [cell for tape in tapes for cell in tape]
    first, last = min(cells), max(cells)
    shown = np.array([[tape.get(k, 0) for tape in tapes] for k in range(first, last + 1)])
    with canvas(path, 11, 6.4) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
        edges = np.arange(len(symbols) + 1) - 0.5
        look = {"aspect": "auto", "interpolation": "nearest"}
        drawn = top.imshow(
            shown, cmap=COLOUR_MAP, norm=BoundaryNorm(edges, 256), **look,
            extent=(-0.5, len(tapes) - 0.5, last + 0.5, first - 0.5),
        )  # fmt: skip
        top.plot(heads, "o", color="w", markeredgecolor="k", markersize=3.5, label="head")
        bar = figure.colorbar(drawn, ax=top, ticks=range(len(symbols)), pad=0.01)
        bar.set_ticklabels(["blank", *symbols[1:]])
        top.legend(loc="lower left", frameon=True)
        top.set(title=f"{title}: the tape, as two numbers of the network say it", ylabel="cell")
        values = np.array(units).T
        drawn = bottom.imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=1, **look)
        figure.colorbar(drawn, ax=bottom, pad=0.01, label="value")
        bottom.set(
            title=f"its {len(values)} units, x' = σ(A x + B u + c)", xlabel="step", ylabel="unit"
        )
        for axes in (top, bottom):
            axes.grid(visible=False)


def draw_widths(
    x: Tensor, y: Tensor, fits: Mapping[int, Tensor], rows: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """A function and its approximations, and the error by the number of units."""
    with canvas(path, 10, 4) as figure:
        shown, errors = figure.subplots(1, 2)
        shown.plot(x, y, color="0.7", linewidth=3.5, label="the function")
        for k, (width, fit) in enumerate(fits.items()):
            shown.plot(x, fit, label=f"{width} units", **style(k, len(fits), len(x)))
        shown.set(title="one hidden layer of tanh units", xlabel="x", ylabel="f(x)")
        widths = [row["units"] for row in rows]
        errors.plot(widths, [row["largest error"] for row in rows], "k-o", label="largest error")
        errors.plot(widths, [row["error"] for row in rows], "k--s", label="root mean square")
        errors.set_xscale("log", base=2)
        errors.set_yscale("log")
        errors.set(title="error by width", xlabel="hidden units", ylabel="error")
        errors.xaxis.set_major_formatter("{x:g}")
        errors.legend()
        legend_below(shown, columns=3)


def draw_approximation(
    truth: Tensor,
    networks: Mapping[int, Tensor],
    rows: Sequence[Mapping[str, Any]],
    trained: int,
    system: str,
    path: Path,
) -> None:
    """A system beside networks that approximate it, and the error by width.

    Args:
        truth: (T), what is seen of the system.
        networks: (T) by width.
        rows: with ``units`` and two errors, of the steps of training and of all.
        trained: the steps of the sequences of training.
        system: its name.
        path: of the file.
    """
    with canvas(path, 11, 4.2) as figure:
        shown, errors = figure.subplots(1, 2, width_ratios=(1.6, 1))
        steps = np.arange(1, len(truth) + 1)
        shown.plot(steps, truth.numpy(), color="0.7", linewidth=3.5, label=system)
        for k, (width, values) in enumerate(networks.items()):
            look = style(k, len(networks), len(steps))
            shown.plot(steps, values.numpy(), label=f"{width} units", **look)
        shown.axvline(trained + 0.5, color="0.4", linewidth=0.8, linestyle=":")
        shown.set(title=f"beyond step {trained}, longer than any of training", xlabel="step")
        shown.set_ylabel("y")
        for k, name in enumerate(name for name in rows[0] if name.startswith("error of")):
            look = style(k, 2, 1)
            points = [(row["units"], row[name]) for row in rows]
            widths = sorted({width for width, _ in points})
            best = [min(error for width, error in points if width == w) for w in widths]
            errors.plot(*zip(*points, strict=True), "o", color=look["color"], mfc="none")
            errors.plot(
                widths, best, color=look["color"], linestyle=look["linestyle"],
                label=f"{name}, the best seed",
            )  # fmt: skip
        logarithmic(errors)
        errors.set_xscale("log", base=2)
        errors.set_xticks(widths, [str(width) for width in widths])
        errors.minorticks_off()
        errors.set(title="error by width, each seed", xlabel="units")
        errors.set_ylabel("root mean squared error / standard deviation")
        for axes in (shown, errors):
            legend_below(axes, columns=2)
