"""The wall in an error surface, and the ways of gradient descent there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from elman.lens.cliff import Descent


def draw_cliff(
    descents: Sequence[Descent], error: Callable[[Tensor, Tensor], Tensor], path: Path
) -> None:
    """The surface of the error by w and b, with the paths of descent, and the error by update."""
    from matplotlib.colors import LogNorm

    spans = (3.5, 5.75), (-2.9, -1.35)
    w, b = torch.meshgrid(*(torch.linspace(*s, 300).double() for s in spans), indexing="ij")
    with canvas(path, 11, 4.4) as figure:
        surface, errors = figure.subplots(1, 2, width_ratios=(1.25, 1))
        drawn = surface.pcolormesh(
            w.numpy(), b.numpy(), error(w, b).numpy(), norm=LogNorm(1e-3, 0.5),
            cmap="gray", shading="gouraud", rasterized=True,
        )  # fmt: skip
        figure.colorbar(drawn, ax=surface, label="error E", extend="min")
        looks: list[dict[str, Any]] = [
            {"color": "#ffb000", "marker": "s", "linestyle": "--"},
            {"color": "#dc267f", "marker": "o", "linestyle": "-"},
        ]
        for descent, look in zip(descents, looks, strict=True):
            clipped = descent.threshold
            label = "not clipped" if clipped is None else f"clipped to {clipped:g}"
            surface.plot(
                descent.weight, descent.bias, **look, label=label, markersize=4.5, linewidth=1.4,
                markeredgecolor="k", markeredgewidth=0.4,
            )  # fmt: skip
            errors.plot(descent.errors, **look, label=label, markersize=3, linewidth=1.2)
        surface.plot(
            descents[0].weight[0], descents[0].bias[0], "*", color="w", markeredgecolor="k",
            markersize=14, label="start",
        )  # fmt: skip
        surface.set(
            title="E = (σ(a$_{50}$) − 0.7)² of a$_t$ = w σ(a$_{t−1}$) + b",
            xlabel="w", ylabel="b", xlim=spans[0], ylim=spans[1],
        )  # fmt: skip
        surface.grid(visible=False)
        legend = surface.legend(loc="lower left", frameon=True, framealpha=0.9)
        legend.get_frame().set_edgecolor("none")
        errors.set(
            title="error by update", xlabel="updates", ylabel="error E", yscale="log"
        )  # fmt: skip
        errors.legend()
