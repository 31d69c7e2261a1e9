"""The learning curve of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from elman.lens.drawing import entitle, whole_numbers
from elman.training.storage import write_bytes
from elman.training.tables import figure as figure_of


def draw_curves(metrics: list[dict[str, Any]], headline: str, path: Path, title: str = "") -> None:
    """Draw the headline measure and the gradient norm by epoch into a PNG, if there is any.

    Args:
        metrics: a run's, a line for each epoch.
        headline: the measure, which is also looked for with "validation" before it.
        path: the file.
        title: what was trained on what.
    """
    if not metrics:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    epochs = [line["epoch"] for line in metrics]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    dots = {"marker": "o", "markersize": 3} if len(epochs) < 40 else {}
    last = metrics[-1][headline]
    top.plot(epochs, [m[headline] for m in metrics], "k-", **dots, label=f"training: {last:.4g}")
    key = f"validation_{headline}"
    if key in metrics[-1]:
        held_out = [m[key] for m in metrics]
        best = min(range(len(held_out)), key=held_out.__getitem__)
        top.plot(epochs, held_out, "k--", **dots, label=f"held out: {held_out[-1]:.4g}")
        top.plot(
            epochs[best], held_out[best], "ko", mfc="none",
            label=f"best: {held_out[best]:.4g} after epoch {epochs[best]}",
        )  # fmt: skip
    values = [m[headline] for m in metrics]
    if min(values) > 0 and max(values) > 4 * min(values):
        top.set_yscale("log")
        top.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        top.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        top.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    top.set_ylabel(headline)
    top.legend(frameon=False)
    top.grid(alpha=0.3)
    entitle(figure, title)
    top.set_title(f"{metrics[-1]['update']:,} updates in {figure_of(metrics[-1]['seconds'], 3)} s")
    bottom.plot(epochs, [m["gradient_norm"] for m in metrics], "k-", **dots, linewidth=0.8)
    bottom.set_yscale("log")
    bottom.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    bottom.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
    bottom.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    bottom.set_ylabel("largest\ngradient norm")
    bottom.set_xlabel("epoch")
    whole_numbers(bottom)
    bottom.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    plt.close(figure)
    write_bytes(path, drawn.getvalue())
