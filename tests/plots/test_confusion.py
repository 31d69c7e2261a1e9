"""Confusion matrices, of few labels and of many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from elman import InputError
from elman.plots.confusion import draw_confusion


def written(axes):
    """What stands in the cells, by row and column."""
    return {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in axes.texts}


def test_counts_and_shares_of_the_row(drawn, tmp_path):
    names = ["no", "very $", "never"]
    table = {"no": {"no": 3, "very $": 1}, "very $": {"never": 2}}  # "never" is never true
    draw_confusion(table, tmp_path / "a.png", "a model")
    axes = drawn[0].axes[0]
    assert written(axes) == {(0, 0): "3\n75%", (0, 1): "1\n25%", (1, 2): "2\n100%"}
    assert np.allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 1], [0, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    (totals,) = axes.child_axes
    assert [label.get_text() for label in totals.get_yticklabels()] == ["4", "2", "0"]


@pytest.mark.parametrize(("count", "cell"), [(12, "12,345\n100%"), (13, "12,345"), (41, None)])
def test_many_labels_are_readable(count, cell, drawn, tmp_path):
    table = {f"LABEL{k}": {f"LABEL{k}": 12_345} for k in range(count)}
    draw_confusion(table, tmp_path / "a.png")
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


def test_of_too_many_labels_the_most_frequent_are_drawn(drawn, tmp_path):
    table = {f"{k}": {f"{k}": 1 + (k > 3), "0": 1} for k in range(154)}
    draw_confusion(table, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{k}" for k in range(4, 154)]
    assert axes.get_xlabel() == "predicted, the most frequent 150 of 154 labels"
    assert np.allclose(axes.images[0].get_array(), 2 / 3 * np.eye(150))  # the rest went to "0"


def test_without_a_label_there_is_no_matrix(tmp_path):
    with pytest.raises(InputError, match="a label at least"):
        draw_confusion({}, tmp_path / "a.png")
