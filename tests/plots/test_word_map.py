"""Maps of words: no name covers another, and what has no name is counted."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Annotation

from elman import InputError
from elman.plots.word_map import draw_word_map


@pytest.mark.parametrize("count", [1, 30, 150])
def test_names_cover_neither_each_other_nor_points(count, drawn, tmp_path):
    places = np.random.default_rng(count).normal(size=(count, 2))
    words = [f"word{k:03}" for k in range(count)]
    draw_word_map(places, words, tmp_path / "a.png", "skip-gram")
    (figure,) = drawn
    figure.draw_without_rendering()
    (axes,) = figure.axes
    named = [text for text in axes.texts if isinstance(text, Annotation)]
    # An annotation's box takes in its leader; its own text alone is what may cover nothing.
    boxes = [super(Annotation, text).get_window_extent() for text in named]
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert not any(box.contains(*point) for point in axes.transData.transform(places))
        assert axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
    assert figure.get_suptitle() == "skip-gram"
    without = count - len(named)
    assert axes.get_xlabel().startswith(f"{count} words")
    assert (f"{without} without room" in axes.get_xlabel()) == (without > 0)
    assert bool(without) == (count == 150)
    assert len(axes.lines[1].get_xdata()) == len(named)


def test_the_first_words_are_named_first(drawn, tmp_path):
    draw_word_map(np.zeros((40, 2)), [f"w{k}" for k in range(40)], tmp_path / "a.png")
    named = [text.get_text() for text in drawn[0].axes[0].texts]
    assert 8 <= len(named) < 40
    assert named[:8] == [f"w{k}" for k in range(8)]


def test_points_and_words_must_be_as_many(tmp_path):
    for points, words in (
        (np.zeros((2, 2)), "abc"),
        (np.zeros((2, 3)), "ab"),
        (np.zeros((0, 2)), ""),
    ):
        with pytest.raises(InputError, match=f"a map of {len(words)} words needs"):
            draw_word_map(points, words, tmp_path / "a.png")
