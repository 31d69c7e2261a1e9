"""The pictures of the lens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError
from elman.lens import cliff, textbook
from elman.lens.activations import Activity
from elman.lens.comparison import Compared
from elman.lens.drawing import (
    COLOUR_MAP,
    canvas,
    check_path,
    entitle,
    label_tokens,
    legend_below,
    logarithmic,
    save,
    style,
)
from elman.lens.flow import CellFlow, GradientFlow, relative_to_start

MOST_TOKENS = 200
"""As many columns as a heat map of gates may have."""

# Inches: what the number of a row needs, and what a heat map's title and ticks take of its height.
_LABEL, _AROUND = 0.085, 0.28

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_flow(flow: GradientFlow, path: Path, title: str = "") -> None:
    """The norms by lag in each layer and state; beside them the singular values, if there are."""
    check_path(path)
    spectra = [cell for cell in flow.cells if cell.singular_values is not None]
    lines = _flow_lines(flow)
    with canvas(10 if spectra else 5.5, 3.8 + 0.2 * len(lines)) as figure:
        axes = figure.subplots(1, 2 if spectra else 1, squeeze=False)[0]
        for k, (label, norms) in enumerate(lines):
            axes[0].plot(_positive(norms), label=label, **style(k, len(lines), len(norms)))
        axes[0].set(
            title="gradient by lag", xlabel="lag t − k [steps]",
            ylabel="‖∂L$_t$/∂s$_k$‖, mean over sequences",
        )  # fmt: skip
        if spectra:
            _draw_spectra(axes[1], spectra)
        for each in axes:
            logarithmic(each)
            legend_below(each)
        entitle(figure, title)
        save(figure, path)


def _flow_lines(flow: GradientFlow) -> list[tuple[str, Tensor]]:
    lines = []
    for cell in flow.cells:
        prefix = f"{cell.name}: " if len(flow.cells) > 1 else ""
        if len(cell.by_state) == 1:
            lines.append((f"{prefix}{cell.verdict}", cell.norms))
        else:
            lines.append((f"{prefix}all states: {cell.verdict}", cell.norms))
            lines += [(f"{prefix}∂L/∂{name}", norms) for name, norms in cell.by_state.items()]
    return lines


def _draw_spectra(axes: Axes, cells: Sequence[CellFlow]) -> None:
    for k, cell in enumerate(cells):
        assert cell.singular_values is not None and cell.lyapunov is not None
        lags, values = np.array(cell.singular_lags), cell.singular_values
        look = style(k, len(cells), len(lags))
        name = f"{cell.name}: " if len(cells) > 1 else ""
        axes.plot(lags, _positive(values[:, 0]), label=f"{name}largest", **look)
        # The longest product's line has the exponent's slope; it is laid through its own end.
        slope = float(cell.lyapunov[0])
        if np.isfinite(slope):
            line = float(values[-1, 0]) * np.exp(slope * (lags - lags[-1]))
            axes.plot(
                lags, line, color="0.55", linestyle=":", zorder=0,
                label=f"{name}slope λ₁ = {slope:.3f} nats a step",
            )  # fmt: skip
    axes.set(
        title="largest singular value of ∂s$_t$/∂s$_{t−l}$",
        xlabel="lag l [steps]", ylabel="singular value",
    )  # fmt: skip


def draw_comparison(compared: Sequence[Compared], path: Path, title: str = "") -> None:
    """The last layers' norms relative to lag 0; beside them, what forget gates do for c."""
    check_path(path)
    with_memory = {
        k: one
        for k, one in enumerate(compared)
        if one.forgetting is not None and "c" in one.flow.cells[-1].by_state
    }
    with canvas(10.5 if with_memory else 6, 5.2) as figure:
        axes = figure.subplots(1, 2 if with_memory else 1, squeeze=False, sharey=True)[0]
        threshold = compared[0].flow.threshold
        for k, one in enumerate(compared):
            norms = relative_to_start(one.flow.cells[-1].norms)
            axes[0].plot(_positive(norms), label=one.label, **style(k, len(compared), len(norms)))
        axes[0].axhline(threshold, color="0.5", linewidth=0.8)
        axes[0].text(
            0.995, threshold * 1.15, f"vanished: below {threshold:g}", color="0.35", fontsize=8,
            ha="right", va="bottom", transform=axes[0].get_yaxis_transform(),
        )  # fmt: skip
        axes[0].set(
            title="how much of the gradient is left", xlabel="lag t − k [steps]",
            ylabel="‖∂L$_t$/∂s$_k$‖ / ‖∂L$_t$/∂s$_t$‖",
        )  # fmt: skip
        if with_memory:
            _draw_forgetting(axes[1], with_memory, len(compared))
        for each in axes:
            logarithmic(each)
            legend_below(each)
        entitle(figure, title)
        save(figure, path)


def _draw_forgetting(axes: Axes, compared: Mapping[int, Compared], count: int) -> None:
    """Some of the ``count`` networks, by their places among all, each in the same style there."""
    for k, each in compared.items():
        c = each.flow.cells[-1].by_state["c"]
        assert each.forgetting is not None
        lags = np.arange(1, len(c))
        look = style(k, count, len(lags))
        axes.plot(lags, _positive(c[1:] / c[1]), label=f"∂L/∂c: {each.label}", **look)
        product = each.forgetting / each.forgetting[0]
        # In the network's colour and with its sign, hollow: several lie side by side.
        alone = look | {"linestyle": ":", "linewidth": 1.0, "markerfacecolor": "white"}
        axes.plot(lags, _positive(product), **alone)
    axes.plot(
        [], [], color="0.3", linestyle=":", linewidth=1.0, marker="o", markerfacecolor="white",
        label="hollow: through the forget gates alone",
    )  # fmt: skip
    axes.set(
        title="why: c' = f ⊙ c + …, a path of factors f",
        xlabel="lag t − k [steps]", ylabel="‖∂L$_t$/∂c$_k$‖ / ‖∂L$_t$/∂c$_{t−1}$‖",
    )  # fmt: skip
    axes.yaxis.set_tick_params(labelleft=True)


def draw_textbook(
    chains: Sequence[textbook.Chain], depths: Mapping[str, Tensor], path: Path
) -> None:
    """Repeated multiplication, the non-linearities and their slopes, depth: three panels."""
    check_path(path)
    with canvas(13, 4) as figure:
        products, slopes, depth = figure.subplots(1, 3)
        for k, chain in enumerate(chains):
            label = f"{chain.spectral_radius:.3g}, {chain.largest_singular_value:.3g}"
            look = style(k, len(chains), len(chain.norms))
            products.plot(_positive(chain.norms), label=label, **look)
        products.set(
            title="δ ← Wᵀ δ, again and again", xlabel="multiplications", ylabel="‖δ‖"
        )  # fmt: skip
        products.legend(title="W's spectral radius,\nlargest singular value")
        _draw_slopes(slopes)
        for k, (name, norms) in enumerate(depths.items()):
            depth.plot(_positive(norms), label=name, **style(k, len(depths), len(norms)))
        depth.set(
            title="a plain feed-forward chain a$_l$ = φ(W$_l$ a$_{l−1}$)",
            xlabel="layers below the loss", ylabel="‖∂L/∂a‖ / ‖∂L/∂a$_L$‖",
        )  # fmt: skip
        depth.legend(title="φ")
        logarithmic(products)
        logarithmic(depth)
        save(figure, path)


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


def draw_cliff(descents: Sequence[cliff.Descent], path: Path) -> None:
    """The error surface with the paths of gradient descent, and the error by update."""
    check_path(path)
    from matplotlib.colors import LogNorm

    spans = (3.5, 5.75), (-2.9, -1.35)
    w, b = torch.meshgrid(*(torch.linspace(*s, 300).double() for s in spans), indexing="ij")
    with canvas(11, 4.4) as figure:
        surface, errors = figure.subplots(1, 2, width_ratios=(1.25, 1))
        drawn = surface.pcolormesh(
            w.numpy(), b.numpy(), cliff.error(w, b).numpy(), norm=LogNorm(1e-3, 0.5),
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
        save(figure, path)


def draw_activity(
    activity: Activity, tokens: Sequence[str], path: Path, units: int = 32, title: str = ""
) -> None:
    """Gates, candidates and states as heat maps: a column for each token, a row for each unit.

    Of more than ``units`` units, those whose last state varies most are drawn, the same in every
    map. A row is labelled with the number of its unit, from 0, as far as there is room.
    """
    check_path(path)
    if len(tokens) > MOST_TOKENS:
        raise InputError(
            f"at most {MOST_TOKENS} tokens fit a picture, received {len(tokens)}: take a part."
        )
    maps = [
        (f"{kind} {name}", values[:, 0].T.cpu().double().numpy())
        for kind in ("gate", "candidate", "state")
        for name, values in getattr(activity, f"{kind}s").items()
    ]
    # The widest state has a row for each unit; of those, the last is the memory of an LSTM.
    memory = max((values for name, values in reversed(maps) if name.startswith("state")), key=len)
    chosen = np.sort(np.argsort(-memory.var(1), kind="stable")[:units])
    width = max(5.0, 1.9 + 0.19 * len(tokens))
    height = 0.8 + 0.025 * len(chosen)
    every = math.ceil(len(chosen) * _LABEL / (height - _AROUND))
    with canvas(width, 0.9 + len(maps) * height) as figure:
        rows = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(rows, maps, strict=True):
            numbers = chosen if len(values) == len(memory) else np.arange(len(values))[:units]
            shown = values[numbers]
            gate = name.startswith("gate")
            bound = 1.0 if gate else float(np.abs(shown).max()) or 1.0
            drawn = axes.imshow(
                shown, aspect="auto", cmap=COLOUR_MAP, interpolation="nearest",
                vmin=0 if gate else -bound, vmax=bound,
            )  # fmt: skip
            some = "" if len(shown) == len(values) else f"\n{len(shown)} of {len(values)}"
            axes.set_ylabel(f"unit{some}")
            axes.set_title(name, parse_math=False)
            axes.grid(visible=False)
            axes.set_yticks(range(0, len(shown), every), map(str, numbers[::every]), fontsize=6)
            axes.tick_params(axis="y", length=2, pad=2)
            figure.colorbar(drawn, ax=axes, pad=0.01)
        label_tokens(rows[-1], tokens)
        rows[-1].set_xlabel("the text, token by token")
        entitle(figure, title)
        save(figure, path)


def _positive(norms: Tensor) -> np.ndarray:
    """For a logarithmic axis: a gap where a value is zero or not finite."""
    values = norms.detach().cpu().double().numpy().copy()
    values[~(np.isfinite(values) & (values > 0))] = np.nan
    return values
