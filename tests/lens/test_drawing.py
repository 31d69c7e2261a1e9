"""What pictures show for text that fonts lack, and where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import elman
from elman import ElmanError, InputError
from elman.lens import activity, drawing, pictures, side_by_side


def labels(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_signs_for_what_cannot_be_seen_and_no_formulas(tmp_path):
    with drawing.canvas(3, 2) as figure:
        axes = figure.subplots()
        drawing.label_tokens(axes, ["a", " ", "\n", "$", "x", "$", "\x07"])
        drawing.save(figure, tmp_path / "text.svg")
    assert labels(axes) == ["a", "␣", "↵", "$", "x", "$", "U+0007"]


def test_characters_that_no_font_has_are_spelled(tmp_path, monkeypatch):
    own = drawing._installed()["DejaVu Sans"]
    monkeypatch.setattr(drawing, "_installed", lambda: {"DejaVu Sans": own})
    with drawing.canvas(3, 2) as figure:
        axes = figure.subplots()
        drawing.label_tokens(axes, ["中", "文", "é"])
        drawing.save(figure, tmp_path / "text.png")  # a missing glyph would be a warning
    assert labels(axes) == ["U+4E2D", "U+6587", "é"]
    assert axes.get_xticklabels()[0].get_rotation() == 90


@pytest.mark.parametrize(
    ("tool", "text", "package"),
    [
        ("apt-get", "中", "`apt-get install fonts-noto-cjk`"),
        ("dnf", "かな", "`dnf install google-noto-sans-cjk-fonts`"),
        ("apt-get", "ཀ", "`apt-get install fonts-noto-core`"),
        ("none", "中", "`your system's package of Noto fonts`"),
    ],
)
def test_what_to_install_is_said_once(monkeypatch, caplog, tool, text, package):
    own = drawing._installed()["DejaVu Sans"]
    monkeypatch.setattr(drawing, "_installed", lambda: {"DejaVu Sans": own})
    monkeypatch.setattr(drawing, "_newly_installed", lambda: False)
    monkeypatch.setattr(drawing, "_ADVISED", set())
    monkeypatch.setattr(drawing.shutil, "which", lambda name: name == tool)
    for _ in range(2):
        drawing.writable([f"a{text}"])
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"no font here has {text[0]}")
    assert package in said


def test_a_font_that_was_just_installed_is_found(tmp_path, monkeypatch):
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000)
    names = [".notdef", "uni4E2D"]
    font.setupGlyphOrder(names)
    font.setupCharacterMap({0x4E2D: "uni4E2D"})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Just Now", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "now.ttf")
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [f for f in manager.ttflist if "CJK" not in f.name])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "now.ttf")])
    shown, families = drawing.writable(["中"])
    assert (shown, "Just Now" in families) == (["中"], True)


def test_a_font_that_has_them_is_found(monkeypatch):
    files = {"DejaVu Sans": {0x61}, "Ugly": {0x62}, "Noto Sans CJK SC": {0x4E2D}}
    monkeypatch.setattr(drawing, "_installed", lambda: {name: name for name in files})
    monkeypatch.setattr(drawing, "_has", files.__getitem__)
    found = drawing.writable(["中a", "文"])
    assert found == (["中a", "U+6587"], ["DejaVu Sans", "Noto Sans CJK SC"])


def test_heat_maps(tmp_path, monkeypatch):
    (looked,) = activity(elman.LSTM(3, 40, proj_size=5), torch.randn(4, 1, 3))
    pictures.draw_activity(looked, list("abcd"), tmp_path / "gates.png", units=8)
    assert (tmp_path / "gates.png").stat().st_size > 5000
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: drawn.append(figure))
    pictures.draw_activity(looked, list("abcd"), tmp_path / "gates.png", 8, "run: lstm 诗")
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
    pictures.draw_activity(looked, list("abcd"), tmp_path / "gates.png", 40)
    labels = drawn[1].axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [str(k) for k in range(0, 40, 3)]
    with pytest.raises(InputError, match="at most 200 tokens fit a picture, received 201"):
        pictures.draw_activity(looked, "a" * 201, tmp_path / "gates.png")


@pytest.mark.parametrize(
    "names", [("qrnn", "lstm", "minlstm"), ("lstm", "rnn"), ("minlstm", "rnn")]
)
def test_forgetting_is_drawn_of_memories_alone_in_each_cells_own_style(
    names, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: drawn.append(figure))
    compared = side_by_side(names, [0.0], input=2, hidden=4, steps=6, batch=1)
    pictures.draw_comparison(compared, tmp_path / "flow.png", "4 units")
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


def test_the_same_picture_has_the_same_bytes(tmp_path):
    flow = elman.gradient_flow(elman.RNN(2, 3), torch.randn(5, 1, 2))
    for format in ("svg", "pdf"):
        first, second = tmp_path / f"a.{format}", tmp_path / f"b.{format}"
        flow.plot(first)
        flow.plot(second)
        assert first.read_bytes() == second.read_bytes()


def test_where_pictures_cannot_go(tmp_path):
    with pytest.raises(InputError, match=r"must end in one of \.png"):
        drawing.check_path(tmp_path / "a.jpeg")
    with pytest.raises(ElmanError, match="no folder"):
        drawing.check_path(tmp_path / "none" / "a.png")


def test_the_users_matplotlib_is_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with drawing.canvas(1, 1):
        assert matplotlib.rcParams["legend.frameon"] is False
    assert dict(matplotlib.rcParams) == before


def test_the_users_backend_and_windows_stay_theirs(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    from elman.training.curves import draw_curves
    from elman.training.online import draw

    before = matplotlib.rcParams._get("backend")
    plt.switch_backend("svg")
    try:
        theirs = plt.figure()
        line = {"epoch": 1, "update": 1, "seconds": 1.0, "loss": 2.0, "gradient_norm": 1.0}
        draw_curves([line], "loss", tmp_path / "curves.png")
        point = {"step": 1, "seconds": 1.0, "error": 0.5, "bytes": None}
        settings = {"cell": "rnn", "layers": 1, "hidden": 2, "update": 1}
        rows = [{"rule": "bptt", "curve": [point]}]
        compared = {"rows": rows, "settings": settings, "data": "a", "measure": "error"}
        draw(compared, tmp_path / "comparison")
        elman.gradient_flow(elman.RNN(2, 3), torch.randn(5, 1, 2)).plot(tmp_path / "flow.png")
        assert matplotlib.get_backend() == "svg" and plt.get_fignums() == [theirs.number]
    finally:
        plt.close(theirs)
        matplotlib.rcParams["backend"] = before


def test_no_picture_is_drawn_by_pyplot():
    """It has one backend, and keeps its figures: both are the user's."""
    for path in Path(elman.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "matplotlib.use(" not in text and "import matplotlib.pyplot" not in text, path
