"""Nets unrolled over their steps."""

from __future__ import annotations

import numpy as np
import pytest

from elman.plots.unrolled import Unrolled, draw_unrolled

MANY_TO_ONE = Unrolled("many to one", "digits → the largest", ["3", "1", "4"], ["4"])
ALIGNED = Unrolled("aligned", "a film → moves", [np.eye(3)] * 2, ["=", "+"])
UNALIGNED = Unrolled("unaligned", "a → b", ["forty", "two"], ["zwei", "$", "EOS"], decoder=True)


def texts(axes):
    """The x of each text by what it says."""
    return {text.get_text(): text.get_position()[0] for text in axes.texts if text.get_text()}


@pytest.mark.parametrize(
    ("net", "arrows"), [(MANY_TO_ONE, 3 + 2 + 1), (ALIGNED, 2 + 1 + 2), (UNALIGNED, 2 + 4 + 3 + 2)]
)
def test_every_arrow_is_there(net, arrows, drawn, tmp_path):
    """Inputs to states, from state to state, states to outputs, and outputs to the next state."""
    draw_unrolled([[net]], tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert sum(text.arrow_patch is not None for text in axes.texts if not text.get_text()) == arrows
    assert len(axes.images) == sum(not isinstance(given, str) for given in net.inputs)


def test_outputs_stand_above_the_steps_that_give_them(drawn, tmp_path):
    draw_unrolled([[MANY_TO_ONE], [UNALIGNED]], tmp_path / "a.png", "two nets")
    found = texts(drawn[0].axes[0])
    assert found["1"] < found["$h_{3}$"] == found["4"]
    steps = ["forty", "two", "zwei", "$", "EOS"]
    assert [found[step] for step in steps] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert found["$s_{1}$"] == found["zwei"]
    assert drawn[0].get_suptitle() == "two nets"


def test_the_legend_knows_of_a_decoder_where_there_is_one(drawn, tmp_path):
    draw_unrolled([[ALIGNED]], tmp_path / "a.png")
    draw_unrolled([[ALIGNED, UNALIGNED]], tmp_path / "a.png")
    names = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert names[0] == ["input", "state h", "output"]
    assert names[1][1:3] == ["state h, which reads", "state s, which writes"]


def test_words_fit_their_boxes(drawn, tmp_path):
    words = ["a", "extraordinarily", "非常长的句子"]
    draw_unrolled([[Unrolled("words", "long and short", words, words)]], tmp_path / "a.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    axes = figure.axes[0]
    step = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    states = ["$h_{1}$", "$h_{2}$", "$h_{3}$"]
    boxed = [text for text in axes.texts[2:] if text.get_text() not in ("", *states)]
    assert len(boxed) == 6  # what no font here has is spelled
    assert max(text.get_window_extent().width for text in boxed) < 0.72 * step
