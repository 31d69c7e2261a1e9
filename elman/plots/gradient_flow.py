"""Where a gradient goes: the norms of one network by lag, or those of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elman.plots.axes import legend_below, logarithmic, positive, style
from elman.plots.canvas import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from elman.lens.comparison import Compared
    from elman.lens.flow import CellFlow, GradientFlow


def draw_flow(flow: GradientFlow, path: Path, title: str = "") -> None:
    """The norms by lag in each layer and state; beside them the singular values, if there are."""
    spectra = [cell for cell in flow.cells if cell.singular_values is not None]
    lines = _flow_lines(flow)
    with canvas(path, 10 if spectra else 5.5, 3.8 + 0.2 * len(lines), title) as figure:
        axes = figure.subplots(1, 2 if spectra else 1, squeeze=False)[0]
        for k, (label, norms) in enumerate(lines):
            axes[0].plot(positive(norms), label=label, **style(k, len(lines), len(norms)))
        axes[0].set(
            title="gradient by lag", xlabel="lag t − k [steps]",
            ylabel="‖∂L$_t$/∂s$_k$‖, mean over sequences",
        )  # fmt: skip
        if spectra:
            _draw_spectra(axes[1], spectra)
        for each in axes:
            logarithmic(each)
            legend_below(each)


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
        axes.plot(lags, positive(values[:, 0]), label=f"{name}largest", **look)
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


def draw_flows(compared: Sequence[Compared], path: Path, title: str = "") -> None:
    """The last layers' norms relative to lag 0; beside them, what forget gates do for c."""
    with_memory = {
        k: one
        for k, one in enumerate(compared)
        if one.forgetting is not None and "c" in one.flow.cells[-1].by_state
    }
    with canvas(path, 10.5 if with_memory else 6, 5.2, title) as figure:
        axes = figure.subplots(1, 2 if with_memory else 1, squeeze=False, sharey=True)[0]
        threshold = compared[0].flow.threshold
        for k, one in enumerate(compared):
            norms = one.flow.cells[-1].relative
            axes[0].plot(positive(norms), label=one.label, **style(k, len(compared), len(norms)))
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


def _draw_forgetting(axes: Axes, compared: Mapping[int, Compared], count: int) -> None:
    """Some of the ``count`` networks, by their places among all, each in the same style there."""
    for k, each in compared.items():
        c = each.flow.cells[-1].by_state["c"]
        assert each.forgetting is not None
        lags = np.arange(1, len(c))
        look = style(k, count, len(lags))
        axes.plot(lags, positive(c[1:] / c[1]), label=f"∂L/∂c: {each.label}", **look)
        product = each.forgetting / each.forgetting[0]
        # In the network's colour and with its sign, hollow: several lie side by side.
        alone = look | {"linestyle": ":", "linewidth": 1.0, "markerfacecolor": "white"}
        axes.plot(lags, positive(product), **alone)
    axes.plot(
        [], [], color="0.3", linestyle=":", linewidth=1.0, marker="o", markerfacecolor="white",
        label="hollow: through the forget gates alone",
    )  # fmt: skip
    axes.set(
        title="why: c' = f ⊙ c + …, a path of factors f",
        xlabel="lag t − k [steps]", ylabel="‖∂L$_t$/∂c$_k$‖ / ‖∂L$_t$/∂c$_{t−1}$‖",
    )  # fmt: skip
    axes.yaxis.set_tick_params(labelleft=True)
