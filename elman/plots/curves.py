"""Learning curves: of one run by epoch, or of several models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.plots.axes import logarithmic_if_wide, style, whole_numbers
from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from elman.training.measures import Measure


def draw_curves(
    metrics: list[dict[str, Any]], headline: Measure, path: Path, title: str = ""
) -> None:
    """Draw the headline measure and the gradient norm by epoch, if there is any.

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
    epochs = [line["epoch"] for line in metrics]
    shown = headline.name if any(headline.name in line for line in metrics) else "loss"
    values, held_out = _points(metrics, shown), _points(metrics, f"validation_{headline.name}")
    measured = [k for k, value in enumerate(held_out) if math.isfinite(value)]
    dots = {"marker": "o", "markersize": 3} if len(epochs) < 40 else {}
    with canvas(path, 7, 5.5, title) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot(epochs, values, "k-", **dots, label=f"training: {values[-1]:.4g}")
        if measured:
            sign = 1 if headline.higher else -1
            # Of equals the last: its weights are those that are kept.
            best = max(measured, key=lambda k: (sign * held_out[k], k))
            top.plot(epochs, held_out, "k--", **dots, label=f"held out: {held_out[-1]:.4g}")
            top.plot(
                epochs[best], held_out[best], "ko", mfc="none", markersize=7,
                label=f"best: {held_out[best]:.4g} after epoch {epochs[best]}",
            )  # fmt: skip
        if not headline.higher:
            logarithmic_if_wide(top)
        last = metrics[-1]
        top.set(
            title=f"{last['update']:,} updates in {last['seconds']:,.1f} s",
            ylabel=shown.replace("_", " "),
        )
        top.legend()
        norms = _points(metrics, "gradient_norm")
        bottom.plot(epochs, norms, "k-", **dots, linewidth=0.8)
        logarithmic_if_wide(bottom)
        bottom.set(xlabel="epoch", ylabel="largest\ngradient norm")
        whole_numbers(bottom)


def draw_models(
    curves: Sequence[tuple[str, list[dict[str, Any]]]],
    headline: Measure,
    path: Path,
    title: str = "",
) -> None:
    """Draw the headline measure of several models by epoch and by seconds of training.

    Args:
        curves: each model's name and its lines of metrics, as for :func:`draw_curves`; a model
            without any is left out.
        headline: the measure; held out where it was, the loss where there is neither.
        path: the picture.
        title: of what job, on what data.
    """
    drawn = [(label, metrics) for label, metrics in curves if metrics]
    names = (f"validation_{headline.name}", headline.name, "loss")
    with canvas(path, 9, 4, title) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, by in zip(axes, ("epoch", "seconds"), strict=True):
            for k, (label, metrics) in enumerate(drawn):
                shown = next(name for name in names if name in metrics[-1])
                look = style(k, len(drawn), len(metrics))
                axis.plot(_points(metrics, by), _points(metrics, shown), **look, label=label)
                axes[0].set_ylabel(shown.replace("_", " "))
        axes[0].set_xlabel("epoch")
        axes[1].set_xlabel("seconds of training")
        if not headline.higher:
            logarithmic_if_wide(axes[0])
        whole_numbers(axes[0])
        if drawn:
            axes[1].legend()


def _points(metrics: list[dict[str, Any]], name: str) -> list[float]:
    """A figure by epoch; NaN, which is not drawn, where there is none or it was infinite."""
    return [math.nan if line.get(name) is None else line[name] for line in metrics]
