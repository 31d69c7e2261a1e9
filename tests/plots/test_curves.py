"""Learning curves: which point is the best, what is drawn where, and on which scale."""

from __future__ import annotations

import math

import pytest

from elman.plots import canvas
from elman.plots.axes import logarithmic_if_wide
from elman.plots.curves import draw_curves, draw_models
from elman.training.measures import Measure

LOSS, ACCURACY = Measure("loss"), Measure("accuracy", higher=True)


def lines(**measures):
    """Lines of metrics, an epoch each."""
    count = len(next(iter(measures.values())))
    fixed = {"update": 10, "seconds": 1.25, "gradient_norm": 1.0}
    return [
        {"epoch": k + 1, **fixed, **{name: values[k] for name, values in measures.items()}}
        for k in range(count)
    ]


@pytest.mark.parametrize(
    ("headline", "best"), [(LOSS, "best: 1 after epoch 2"), (ACCURACY, "best: 3 after epoch 3")]
)
def test_the_best_is_where_the_measure_says(headline, best, drawn, tmp_path):
    held_out = {f"validation_{headline.name}": [2.0, 1.0, 3.0, None]}
    draw_curves(
        lines(**{headline.name: [4.0, 3.0, 2.0, 1.0]}, **held_out), headline, tmp_path / "a.png"
    )
    legend = drawn[0].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["training: 1", "held out: nan", best]
    assert drawn[0].axes[0].get_title("left") == "10 updates in 1.2 s"


def test_of_equals_the_best_is_the_last_whose_weights_are_kept(drawn, tmp_path):
    metrics = lines(loss=[2.0, 1.0, 1.0], validation_accuracy=[0.5, 1.0, 1.0])
    draw_curves(metrics, ACCURACY, tmp_path / "a.png")
    legend = drawn[0].axes[0].get_legend().get_texts()
    assert legend[-1].get_text() == "best: 1 after epoch 3"


def test_a_measure_that_training_does_not_take_is_drawn_beside_the_loss(drawn, tmp_path):
    metrics = lines(loss=[2.0, 1.0], validation_accuracy=[0.5, 0.75])
    draw_curves(metrics, ACCURACY, tmp_path / "a.png")
    draw_models([("gru", metrics), ("none", [])], ACCURACY, tmp_path / "b.png")
    assert drawn[0].axes[0].get_ylabel() == "loss"
    by_epoch, by_seconds = drawn[1].axes
    assert by_epoch.get_ylabel() == "validation accuracy"
    assert list(by_epoch.lines[0].get_ydata()) == [0.5, 0.75]
    assert list(by_seconds.lines[0].get_xdata()) == [1.25, 1.25]
    assert [text.get_text() for text in by_seconds.get_legend().get_texts()] == ["gru"]


def test_without_a_line_there_is_no_picture(drawn, tmp_path):
    draw_curves([], LOSS, tmp_path / "a.png")
    assert drawn == []


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 3.9], "linear"),
        ([1.0, math.nan, 4.1], "log"),
        ([0.0, 9.0], "linear"),
        ([1e-9, 1e9], "log"),
        ([math.inf, math.nan], "linear"),
        ([], "linear"),
    ],
)
def test_what_spans_little_has_a_linear_axis(values, scale, tmp_path):
    with canvas.canvas(tmp_path / "a.png", 3, 3) as figure:
        axes = figure.subplots()
        axes.plot(values)
        logarithmic_if_wide(axes)
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
