"""The textbook's experiments: repeated multiplication, slopes of non-linearities, depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from elman.lens import textbook
from elman.plots.axes import logarithmic, positive, style
from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


def draw_textbook(
    chains: Sequence[textbook.Chain], depths: Mapping[str, Tensor], path: Path
) -> None:
    """Repeated multiplication, the non-linearities and their slopes, depth: three panels."""
    with canvas(path, 13, 4) as figure:
        products, slopes, depth = figure.subplots(1, 3)
        for k, chain in enumerate(chains):
            label = f"{chain.spectral_radius:.3g}, {chain.largest_singular_value:.3g}"
            look = style(k, len(chains), len(chain.norms))
            products.plot(positive(chain.norms), label=label, **look)
        products.set(
            title="δ ← Wᵀ δ, again and again", xlabel="multiplications", ylabel="‖δ‖"
        )  # fmt: skip
        products.legend(title="W's spectral radius,\nlargest singular value")
        _draw_slopes(slopes)
        for k, (name, norms) in enumerate(depths.items()):
            depth.plot(positive(norms), label=name, **style(k, len(depths), len(norms)))
        depth.set(
            title="a plain feed-forward chain a$_l$ = φ(W$_l$ a$_{l−1}$)",
            xlabel="layers below the loss", ylabel="‖∂L/∂a‖ / ‖∂L/∂a$_L$‖",
        )  # fmt: skip
        depth.legend(title="φ")
        logarithmic(products)
        logarithmic(depth)


def _draw_slopes(axes: Axes) -> None:
    z = torch.linspace(-6, 6, 241, dtype=torch.float64)
    shades = {"tanh": "k", "sigmoid": "0.5"}
    for name, label in (("tanh", "tanh"), ("sigmoid", "σ")):
        value = textbook.NONLINEARITIES[name](z)
        slope = textbook.derivative(name, z)
        axes.plot(z, value, color=shades[name], label=f"{label}(z)")
        axes.plot(
            z, slope, color=shades[name], linestyle=(0, (4, 2)),
            label=f"{label}'(z), at most {float(slope.max()):g}",
        )  # fmt: skip
    axes.set(title="the non-linearities and their slopes", xlabel="z", ylabel="value, slope")
    axes.legend(loc="upper left")
