"""Confusion matrices, of few labels and of many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from elman import InputError
from elman.plots.confusion import draw_confusion


def written(axes):
    """What stands in the cells, by row and column."""
    return {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in axes.texts}


def test_counts_and_shares_of_the_row(drawn, tmp_path):
    true, predicted = ["no"] * 4 + ["very $"] * 2, ["no"] * 3 + ["very $"] * 3
    names = ["no", "very $", "never"]
    draw_confusion(confusion_matrix(true, predicted, labels=names), names, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert written(axes) == {(0, 0): "3\n75%", (0, 1): "1\n25%", (1, 1): "2\n100%"}
    assert np.allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    (totals,) = axes.child_axes
    assert [label.get_text() for label in totals.get_yticklabels()] == ["4", "2", "0"]


@pytest.mark.parametrize(("count", "cell"), [(12, "12,345\n100%"), (13, "12,345"), (41, None)])
def test_many_labels_are_readable(count, cell, drawn, tmp_path):
    names = [f"LABEL{k}" for k in range(count)]
    draw_confusion(12_345 * np.eye(count, dtype=int), names, tmp_path / "a.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    axes = figure.axes[0]
    width = axes.get_window_extent().width / count
    assert {text.get_text() for text in axes.texts} == ({cell} if cell else set())
    assert all(text.get_window_extent().width < width for text in axes.texts)
    for labels in axes.get_xticklabels(), axes.get_yticklabels():
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) == count
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    ("shape", "count", "message"),
    [
        ((2, 3), 2, r"has the shape \(2, 2\), received \(2, 3\)"),
        ((0, 0), 0, "received 0"),
        ((151, 151), 151, "1 to 150 labels fit a picture, received 151"),
    ],
)
def test_what_does_not_fit(shape, count, message, tmp_path):
    with pytest.raises(InputError, match=message):
        draw_confusion(np.zeros(shape, int), ["a"] * count, tmp_path / "a.png")
