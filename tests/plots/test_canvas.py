"""Where pictures are written, and that the user's own are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import elman
from elman import ElmanError, InputError
from elman.plots.canvas import canvas, check_path
from elman.plots.curves import draw_curves
from elman.plots.learning_rules import draw_rules
from elman.training.measures import Measure


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    places = [tmp_path / "a.png", tmp_path / "a.SVG"]
    with canvas(places, 2, 1, "of what") as figure:
        figure.subplots().plot([1, 2])
        assert not any(place.exists() for place in places)
    before = [place.read_bytes() for place in places]
    assert before[0].startswith(b"\x89PNG") and b"<svg" in before[1]
    assert figure.get_suptitle() == "of what"
    with pytest.raises(ZeroDivisionError), canvas(places, 2, 1) as figure:
        figure.subplots().plot([1 / 0])
    assert [place.read_bytes() for place in places] == before
    assert sorted(tmp_path.iterdir()) == sorted(places)


def test_a_name_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(InputError, match="a picture's name must end"), canvas(tmp_path / "a", 1, 1):
        raise AssertionError("drawn")


def test_the_same_picture_has_the_same_bytes(tmp_path):
    flow = elman.gradient_flow(elman.RNN(2, 3), torch.randn(5, 1, 2))
    for format in ("svg", "pdf"):
        first, second = tmp_path / f"a.{format}", tmp_path / f"b.{format}"
        flow.plot(first)
        flow.plot(second)
        assert first.read_bytes() == second.read_bytes()


def test_where_pictures_cannot_go(tmp_path):
    with pytest.raises(InputError, match=r"must end in one of \.png"):
        check_path(tmp_path / "a.jpeg")
    with pytest.raises(ElmanError, match="no folder"):
        check_path(tmp_path / "none" / "a.png")


def test_the_users_matplotlib_is_left_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with canvas(tmp_path / "a.png", 1, 1):
        assert matplotlib.rcParams["legend.frameon"] is False
    assert dict(matplotlib.rcParams) == before


def test_the_users_backend_and_windows_stay_theirs(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    before = matplotlib.rcParams._get("backend")
    plt.switch_backend("svg")
    try:
        theirs = plt.figure()
        line = {"epoch": 1, "update": 1, "seconds": 1.0, "loss": 2.0, "gradient_norm": 1.0}
        draw_curves([line], Measure("loss"), tmp_path / "curves.png")
        point = {"step": 1, "seconds": 1.0, "error": 0.5, "bytes": None}
        settings = {"cell": "rnn", "layers": 1, "hidden": 2, "update": 1}
        rows = [{"rule": "bptt", "curve": [point]}]
        compared = {"rows": rows, "settings": settings, "data": "a", "measure": "error"}
        draw_rules(compared, tmp_path / "comparison.png")
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
