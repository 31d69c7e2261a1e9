"""The gradient by lag, of several networks side by side."""

from __future__ import annotations

import pytest

from elman.lens import side_by_side
from elman.plots import canvas
from elman.plots.gradient_flow import draw_flows


@pytest.mark.parametrize(
    "names", [("qrnn", "lstm", "minlstm"), ("lstm", "rnn"), ("minlstm", "rnn")]
)
def test_forgetting_is_drawn_of_memories_alone_in_each_cells_own_style(
    names, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(canvas, "save", lambda figure, path: drawn.append(figure))
    compared = side_by_side(names, [0.0], input=2, hidden=4, steps=6, batch=1)
    draw_flows(compared, tmp_path / "flow.png", "4 units")
    assert drawn[0].get_suptitle() == "4 units"
    left, *right = drawn[0].axes
    colours = {line.get_label(): line.get_color() for line in left.lines}
    lines = [line for axes in right for line in axes.lines if "∂L/∂c" in line.get_label()]
    found = {line.get_label().removeprefix("∂L/∂c: "): line for line in lines}
    with_memory = [c for c in compared if c.label.split(",")[0] in ("qrnn", "lstm")]
    assert list(found) == [c.label for c in with_memory]
    for each in with_memory:
        c = each.flow.cells[-1].by_state["c"]
        assert found[each.label].get_color() == colours[each.label]
        assert found[each.label].get_ydata() == pytest.approx((c[1:] / c[1]).numpy())
        # What the gates alone would leave has the same colour and sign, but hollow.
        (alone,) = [
            line for axes in right for line in axes.lines
            if line.get_markerfacecolor() == "white" and line.get_color() == colours[each.label]
        ]  # fmt: skip
        assert alone.get_marker() == found[each.label].get_marker()
        assert alone.get_ydata() == pytest.approx((each.forgetting / each.forgetting[0]).numpy())
