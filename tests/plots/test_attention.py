"""Maps of attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elman import InputError
from elman.plots.attention import draw_attention


def test_rows_are_target_tokens_and_columns_source_tokens(drawn, tmp_path):
    weights = torch.rand(2, 3).softmax(-1)
    draw_attention(weights, ["ein", "$", " "], ["a", "EOS"], tmp_path / "a.png", "de → en")
    (figure,) = drawn
    axes = figure.axes[0]
    assert np.array_equal(axes.images[0].get_array(), weights.double())
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ein", "$", "␣"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "EOS"]
    assert figure.get_suptitle() == "de → en"


def test_single_characters_stand_upright(drawn, tmp_path):
    draw_attention(np.eye(2), "ab", "cd", tmp_path / "a.png")
    draw_attention(np.eye(2), ["long", "b"], "cd", tmp_path / "a.png")
    turned = [figure.axes[0].get_xticklabels()[0].get_rotation() for figure in drawn]
    assert turned == [0, 90]


@pytest.mark.parametrize("tokens", [1, 30, 100])
def test_no_label_is_cut_off(tokens, drawn, tmp_path):
    weights, names = np.full((tokens, tokens), 1 / tokens), ["Schifffahrt"] * tokens
    draw_attention(weights, names, names, tmp_path / "a.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    axes, page = figure.axes[0], figure.bbox
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        box = label.get_window_extent()
        assert page.x0 <= box.x0 < box.x1 <= page.x1 and page.y0 <= box.y0 < box.y1 <= page.y1


@pytest.mark.parametrize(
    ("shape", "source", "target", "message"),
    [
        ((2, 3), "ab", "xyz", r"has the shape \(3, 2\), received \(2, 3\)"),
        ((0, 1), "a", "", "received 1 and 0"),
        ((1, 101), "a" * 101, "x", "1 to 100 tokens .* received 101 and 1: take"),
    ],
)
def test_what_does_not_fit(shape, source, target, message, tmp_path):
    with pytest.raises(InputError, match=message):
        draw_attention(np.zeros(shape), source, target, tmp_path / "a.png")
