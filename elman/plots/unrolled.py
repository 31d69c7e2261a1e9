"""A net unrolled over its steps: inputs, states and outputs, time to the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from elman.plots.canvas import canvas
from elman.plots.fonts import inches, visible, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lengths are in steps, of which each takes _STEP inches to the right.
_STEP = 0.78
_WIDE, _HIGH, _STATE, _PICTURE = 0.72, 0.4, 0.46, 0.75  # a word's box; heights of the others
_FAR = 0.75  # from the middle of the states to where inputs end and outputs begin
_BOTTOM, _PANEL, _GAP, _NARROWEST = -1.6, 3.5, 0.7, 1.9  # of a net with its title

# The two ends of the house's colour map, dark and light, with the ink that can be read on each.
_READING, _WRITING = ("#30466b", "white"), ("#f1d24c", "black")
_SAID = "#e4e4e4"
_LINE = "0.25"
_FED: Any = (0, (3, 2))


@dataclass(frozen=True)
class Unrolled:
    """One example's way through a net.

    Attributes:
        title: the shape, such as "many to one".
        about: what goes in and what comes out, in words.
        inputs: a label for each step that reads: a text, or a picture (rows, columns).
        outputs: texts. Those of an encoder and decoder come after all inputs, one a step, and
            each is read by the next step; others come from the last steps that read.
        decoder: whether there is a decoder.
    """

    title: str
    about: str
    inputs: Sequence[str | ArrayLike]
    outputs: Sequence[str]
    decoder: bool = False

    @property
    def steps(self) -> int:
        """How many there are, those of encoder and decoder together."""
        return len(self.inputs) + len(self.outputs) * self.decoder


def draw_unrolled(
    rows: Sequence[Sequence[Unrolled]], path: Path | Sequence[Path], title: str = ""
) -> None:
    """Draw nets in rows, those of a row side by side over the whole width.

    Args:
        rows: one example of each net.
        path: the file, or several in different formats.
        title: what the whole figure is of.
    """
    needed = [sum(map(_width, row)) + _GAP * (len(row) - 1) for row in rows]
    width = max(needed)
    high = _PANEL * len(rows)
    with canvas(path, width * _STEP + 0.2, high * _STEP + 0.45, title) as figure:
        axes = figure.subplots()
        for k, row in enumerate(rows):
            x, spare = 0.0, (width - needed[k]) / max(1, len(row) - 1)
            for net in row:
                _draw(axes, net, x, -_PANEL * k)
                x += _width(net) + _GAP + spare
        top = _PANEL + _BOTTOM
        axes.set(xlim=(0, width), ylim=(top - high, top), aspect="equal")
        axes.axis("off")
        _explain(figure, any(net.decoder for row in rows for net in row))


def _width(net: Unrolled) -> float:
    return max(net.steps, _NARROWEST)


def _draw(axes: Axes, net: Unrolled, x: float, y: float) -> None:
    """One net, whose first step stands right of x and whose states stand at height y."""
    read, count = len(net.inputs), net.steps
    axes.text(x + 0.14, y + 1.68, net.title, fontsize=10.5, weight="bold", va="center")
    (about,), families = writable([net.about])
    axes.text(x + 0.14, y + 1.42, about, fontsize=8.5, family=families, color="0.3", va="center")
    centres = [x + k + 0.5 for k in range(count)]
    for k, centre in enumerate(centres):
        writes = k >= read
        name = f"$s_{{{k - read + 1}}}$" if writes else f"$h_{{{k + 1}}}$"
        _box(axes, centre, y, 0.56, _STATE, name, *(_WRITING if writes else _READING), round=0.14)
        if k:
            _arrow(axes, (centres[k - 1] + 0.28, y), (centre - 0.28, y))
    for centre, given in zip(centres, net.inputs, strict=False):
        _input(axes, centre, y - _FAR, given)
        _arrow(axes, (centre, y - _FAR), (centre, y - _STATE / 2))
    writing = centres[-len(net.outputs) :]
    for k, (centre, said) in enumerate(zip(writing, net.outputs, strict=True)):
        _box(axes, centre, y + _FAR + _HIGH / 2, _WIDE, _HIGH, said, _SAID, "black")
        _arrow(axes, (centre, y + _STATE / 2), (centre, y + _FAR))
        if net.decoder and k + 1 < len(writing):
            start = (centre + 0.3, y + _FAR)
            _arrow(axes, start, (writing[k + 1] - 0.2, y + _STATE / 2), linestyle=_FED)


def _input(axes: Axes, x: float, top: float, given: str | ArrayLike) -> None:
    """A word or a picture below ``top``."""
    from matplotlib.patches import Rectangle

    if isinstance(given, str):
        _box(axes, x, top - _HIGH / 2, _WIDE, _HIGH, given, "white", "black")
        return
    pixels = np.asarray(given, float)
    wide = _PICTURE * pixels.shape[1] / pixels.shape[0]
    left, bottom = x - wide / 2, top - _PICTURE
    # A little beyond 0 and 1, so that noise shows on paper and in ink.
    axes.imshow(
        pixels, extent=(left, left + wide, bottom, top), cmap="gray_r", vmin=-0.15, vmax=1.15,
        interpolation="nearest",
    )  # fmt: skip
    axes.add_patch(Rectangle((left, bottom), wide, _PICTURE, fill=False, edgecolor=_LINE))


def _box(
    axes: Axes, x: float, y: float, wide: float, high: float, text: str, fill: str, ink: str,
    round: float = 0.04,
) -> None:  # fmt: skip
    """A box around (x, y) with a text that is as large as there is room for."""
    from matplotlib.patches import FancyBboxPatch

    shape = f"round,pad=0,rounding_size={round}"
    corner = (x - wide / 2, y - high / 2)
    axes.add_patch(
        FancyBboxPatch(corner, wide, high, shape, facecolor=fill, edgecolor=_LINE, linewidth=0.8)
    )
    formula = text.startswith("$")
    (shown,), families = writable([text if formula else visible(text)])
    size = 10.5 if formula else min(9.0, 0.9 * wide * _STEP / inches([shown], 1))
    axes.text(
        x, y, shown, fontsize=size, color=ink, family=families, ha="center", va="center_baseline",
        parse_math=formula, zorder=3,
    )  # fmt: skip


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], linestyle: Any = "-"
) -> None:
    axes.annotate(
        "", end, start,
        arrowprops={
            "arrowstyle": "-|>,head_width=0.16,head_length=0.32", "color": _LINE, "linewidth": 0.9,
            "linestyle": linestyle, "shrinkA": 0, "shrinkB": 0,
        },
    )  # fmt: skip


def _explain(figure: Any, decoder: bool) -> None:
    """What the boxes and arrows are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def box(fill: str, label: str) -> Patch:
        return Patch(facecolor=fill, edgecolor=_LINE, label=label)

    handles: list[Patch | Line2D] = [box("white", "input"), box(_READING[0], "state h")]
    if decoder:
        handles[1].set_label("state h, which reads")
        handles.append(box(_WRITING[0], "state s, which writes"))
    handles.append(box(_SAID, "output"))
    if decoder:
        fed = {"color": _LINE, "linestyle": _FED, "linewidth": 0.9}
        handles.append(Line2D([], [], **fed, label="output, read by the next step"))
    figure.legend(handles=handles, loc="outside lower left", ncols=5)
