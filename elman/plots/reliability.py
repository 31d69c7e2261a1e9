"""Whether confidence can be relied on: how often a model is right by how sure it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from elman.errors import InputError
from elman.plots.canvas import canvas


def draw_reliability(
    confidences: ArrayLike,
    right: ArrayLike,
    path: Path | Sequence[Path],
    bins: int = 10,
    title: str = "",
) -> None:
    """Draw accuracy by confidence, and below it how many predictions were how confident.

    A model whose confidence can be relied on is right in 80 % of the cases in which it says 0.8: on
    the diagonal. The mean distance from it, the expected calibration error (ECE), stands above
    (Guo et al., 2017).

    Args:
        confidences: (N,) the probability of each prediction, in 0 … 1.
        right: (N,) whether it was right.
        path: the file, or several in different formats.
        bins: of confidence, equally wide.
        title: what the whole figure is of.

    Raises:
        InputError: there are no predictions, not as many of both, or one outside of 0 … 1.
    """
    sure, hits = np.asarray(confidences, float), np.asarray(right, float)
    if sure.ndim != 1 or sure.shape != hits.shape or not sure.size:
        raise InputError(
            "a confidence and whether it was right are needed for one prediction or more, received "
            f"the shapes {sure.shape} and {hits.shape}."
        )
    if not ((sure >= 0) & (sure <= 1)).all():
        raise InputError(
            f"confidences are probabilities in 0 … 1, received {sure.min():g} … {sure.max():g}."
        )
    from matplotlib.ticker import MaxNLocator

    edges = np.linspace(0, 1, bins + 1)
    counts, sum_sure, sum_hits = (
        np.histogram(sure, edges, weights=weights)[0] for weights in (None, sure, hits)
    )
    some = counts > 0
    confidence, accuracy = sum_sure[some] / counts[some], sum_hits[some] / counts[some]
    error = counts[some] @ abs(accuracy - confidence) / sure.size
    left, width = edges[:-1], 1 / bins
    with canvas(path, 4.2, 4.8, title) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1, label="reliable")
        above.bar(
            left[some], accuracy, width, align="edge", color="#a9b4c9", edgecolor="black",
            linewidth=0.8, label="accuracy",
        )  # fmt: skip
        above.plot(confidence, accuracy, "o", color="black", label="at the mean confidence")
        above.set(
            ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02),
            title=f"right {hits.mean():.1%}, sure {sure.mean():.1%}, ECE {error:.3f}",
        )  # fmt: skip
        above.legend(loc="upper left")
        below.bar(left, counts, width, align="edge", color="0.75", edgecolor="black", linewidth=0.8)
        below.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        below.set(xlabel="confidence", ylabel="predictions")
