"""The learning curve of a run."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from elman.lens.drawing import entitle, whole_numbers
from elman.training.measures import Measure
from elman.training.storage import write_bytes


def draw_curves(
    metrics: list[dict[str, Any]], headline: Measure, path: Path, title: str = ""
) -> None:
    """Draw the headline measure and the gradient norm by epoch into a PNG, if there is any.

    Args:
        metrics: lines with ``epoch``, ``update``, ``seconds``, ``gradient_norm`` and the headline,
            with it held out where there is any; what is None is left out of the curve.
        headline: the measure, and which way it is better; where it was not measured in training,
            the loss is drawn.
        path: the picture.
        title: what was trained on what.
    """
    if not metrics:
        return
    from matplotlib import ticker
    from matplotlib.figure import Figure

    epochs = [line["epoch"] for line in metrics]
    # Not by pyplot, whose backend and windows are the user's.
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    dots = {"marker": "o", "markersize": 3} if len(epochs) < 40 else {}
    measured_at_all = any(headline.name in line for line in metrics)
    shown = headline if measured_at_all else Measure("loss")
    values = _points(metrics, shown.name)
    top.plot(epochs, values, "k-", **dots, label=f"training: {values[-1]:.4g}")
    held_out = _points(metrics, f"validation_{headline.name}")
    measured = [k for k, value in enumerate(held_out) if math.isfinite(value)]
    if measured:
        best = (max if headline.higher else min)(measured, key=held_out.__getitem__)
        top.plot(epochs, held_out, "k--", **dots, label=f"held out: {held_out[-1]:.4g}")
        top.plot(
            epochs[best], held_out[best], "ko", mfc="none",
            label=f"best: {held_out[best]:.4g} after epoch {epochs[best]}",
        )  # fmt: skip
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 4 * min(finite):
        top.set_yscale("log")
        top.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        top.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        top.yaxis.set_minor_formatter(ticker.NullFormatter())
    top.set_ylabel(shown.name.replace("_", " "))
    top.legend(frameon=False)
    top.grid(alpha=0.3)
    entitle(figure, title)
    top.set_title(f"{metrics[-1]['update']:,} updates in {metrics[-1]['seconds']:,.1f} s")
    bottom.plot(epochs, [m["gradient_norm"] for m in metrics], "k-", **dots, linewidth=0.8)
    bottom.set_yscale("log")
    bottom.yaxis.set_minor_formatter(ticker.NullFormatter())
    bottom.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    bottom.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    bottom.set_ylabel("largest\ngradient norm")
    bottom.set_xlabel("epoch")
    whole_numbers(bottom)
    bottom.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    write_bytes(path, drawn.getvalue())


def _points(metrics: list[dict[str, Any]], name: str) -> list[float]:
    """A measure by epoch; NaN, which is not drawn, where there is none or it was infinite."""
    return [math.nan if line.get(name) is None else line[name] for line in metrics]
