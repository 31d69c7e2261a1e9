"""What pictures show for text that fonts lack."""

from __future__ import annotations

import pytest

from elman.plots import fonts
from elman.plots.axes import label_tokens
from elman.plots.canvas import canvas


def labels(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_signs_for_what_cannot_be_seen_and_no_formulas(tmp_path):
    with canvas(tmp_path / "text.svg", 3, 2) as figure:
        axes = figure.subplots()
        label_tokens(axes, ["a", " ", "\n", "$", "x", "$", "\x07"])
    assert labels(axes) == ["a", "␣", "↵", "$", "x", "$", "U+0007"]


def test_characters_that_no_font_has_are_spelled(tmp_path, monkeypatch):
    own = fonts._installed()["DejaVu Sans"]
    monkeypatch.setattr(fonts, "_installed", lambda: {"DejaVu Sans": own})
    with canvas(tmp_path / "text.png", 3, 2) as figure:  # a missing glyph would be a warning
        axes = figure.subplots()
        label_tokens(axes, ["中", "文", "é"])
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
    own = fonts._installed()["DejaVu Sans"]
    monkeypatch.setattr(fonts, "_installed", lambda: {"DejaVu Sans": own})
    monkeypatch.setattr(fonts, "_newly_installed", lambda: False)
    monkeypatch.setattr(fonts, "_ADVISED", set())
    monkeypatch.setattr(fonts.shutil, "which", lambda name: name == tool)
    for _ in range(2):
        fonts.writable([f"a{text}"])
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
    shown, families = fonts.writable(["中"])
    assert (shown, "Just Now" in families) == (["中"], True)


def test_a_font_that_has_them_is_found(monkeypatch):
    files = {"DejaVu Sans": {0x61}, "Ugly": {0x62}, "Noto Sans CJK SC": {0x4E2D}}
    monkeypatch.setattr(fonts, "_installed", lambda: {name: name for name in files})
    monkeypatch.setattr(fonts, "_has", files.__getitem__)
    found = fonts.writable(["中a", "文"])
    assert found == (["中a", "U+6587"], ["DejaVu Sans", "Noto Sans CJK SC"])
