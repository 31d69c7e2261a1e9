"""The textbook's experiments: repeated multiplication, slopes of non-linearities, depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from elman.plots.axes import logarithmic, positive, style
from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from elman.lens.textbook import Chain


def draw_textbook(
    chains: Sequence[Chain],
    depths: Mapping[str, Tensor],
    slopes_of: Callable[[str, Tensor], tuple[Tensor, Tensor]],
    path: Path,
) -> None:
    """Repeated multiplication, the non-linearities and their slopes, depth: three panels.

    ``slopes_of`` gives a non-linearity's values and slopes by its name.
    """
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
        _draw_slopes(slopes, slopes_of)
        for k, (name, norms) in enumerate(depths.items()):
            depth.plot(positive(norms), label=name, **style(k, len(depths), len(norms)))
        depth.set(
            title="a plain feed-forward chain a$_l$ = φ(W$_l$ a$_{l−1}$)",
            xlabel="layers below the loss", ylabel="‖∂L/∂a‖ / ‖∂L/∂a$_L$‖",
        )  # fmt: skip
        depth.legend(title="φ")
        logarithmic(products)
        logarithmic(depth)


def _draw_slopes(axes: Axes, slopes_of: Callable[..., tuple[Tensor, Tensor]]) -> None:
    z = torch.linspace(-6, 6, 241, dtype=torch.float64)
    shades = {"tanh": "k", "sigmoid": "0.5"}
    for name, label in (("tanh", "tanh"), ("sigmoid", "σ")):
        value, slope = slopes_of(name, z)
        axes.plot(z, value, color=shades[name], label=f"{label}(z)")
        axes.plot(
            z, slope, color=shades[name], linestyle=(0, (4, 2)),
            label=f"{label}'(z), at most {float(slope.max()):g}",
        )  # fmt: skip
    axes.set(title="the non-linearities and their slopes", xlabel="z", ylabel="value, slope")
    axes.legend(loc="upper left")
