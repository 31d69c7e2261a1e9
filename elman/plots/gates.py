"""Gates and states as heat maps, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elman.errors import InputError
from elman.plots.axes import label_tokens
from elman.plots.canvas import COLOUR_MAP, canvas

if TYPE_CHECKING:
    from elman.lens.activations import Activity

MOST_TOKENS = 200
"""As many columns as a heat map of gates may have."""

# Inches: what the number of a row needs, and what a heat map's title and ticks take of its height.
_LABEL, _AROUND = 0.085, 0.28


def draw_activity(
    activity: Activity, tokens: Sequence[str], path: Path, units: int = 32, title: str = ""
) -> None:
    """Gates, candidates and states as heat maps: a column for each token, a row for each unit.

    Of more than ``units`` units, those whose last state varies most are drawn, the same in every
    map. A row is labelled with the number of its unit, from 0, as far as there is room.
    """
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
    with canvas(path, width, 0.9 + len(maps) * height, title) as figure:
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
