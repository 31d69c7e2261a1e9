"""Heat maps of gates and states."""

from __future__ import annotations

import pytest
import torch

import elman
from elman import InputError
from elman.lens import activity
from elman.plots import canvas
from elman.plots.gates import draw_activity


def test_heat_maps(tmp_path, monkeypatch):
    (looked,) = activity(elman.LSTM(3, 40, proj_size=5), torch.randn(4, 1, 3))
    draw_activity(looked, list("abcd"), tmp_path / "gates.png", units=8)
    assert (tmp_path / "gates.png").stat().st_size > 5000
    drawn = []
    monkeypatch.setattr(canvas, "save", lambda figure, path: drawn.append(figure))
    draw_activity(looked, list("abcd"), tmp_path / "gates.png", 8, "run: lstm 诗")
    (figure,) = drawn
    gate, _, _, _, output, memory, *_ = figure.axes
    chosen = looked.states["c"][:, 0].var(0).argsort(descending=True)[:8].sort().values
    numbers = [str(int(k)) for k in chosen]
    for axes in (gate, memory):
        assert [label.get_text() for label in axes.get_yticklabels()] == numbers
        assert axes.get_ylabel() == "unit\n8 of 40"
    assert [label.get_text() for label in output.get_yticklabels()] == list("01234")
    assert figure.get_suptitle().startswith("run: lstm")
    # Of many rows, as many have numbers as there is room for.
    draw_activity(looked, list("abcd"), tmp_path / "gates.png", 40)
    labels = drawn[1].axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [str(k) for k in range(0, 40, 3)]
    with pytest.raises(InputError, match="at most 200 tokens fit a picture, received 201"):
        draw_activity(looked, "a" * 201, tmp_path / "gates.png")
