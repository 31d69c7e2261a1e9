from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.forms import Form, Forms
from elman.data.vocabulary import Vocabulary
from elman.tasks.lyrics.judging import common_runs, covered, judge
from elman.tasks.lyrics.prosody import Prosody, Verse

TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=5)


def _arrays(texts):
    return [np.array(text, np.int32) for text in texts]


@given(TEXTS.filter(bool), TEXTS)
def test_runs_are_those_that_a_search_finds(texts, known):
    def stands(run):
        return any(run == other[k : k + len(run)] for other in known for k in range(len(other) + 1))

    expected = [
        [
            max((n for n in range(len(text) - k + 1) if n and stands(text[k : k + n])), default=0)
            for k in range(len(text))
        ]
        for text in texts
    ]
    assert [run.tolist() for run in common_runs(_arrays(texts), _arrays(known))] == expected


def test_places_that_runs_cover():
    assert covered(np.array([0, 3, 2, 1, 0, 2, 1]), 2).tolist() == [0, 1, 1, 1, 0, 1, 1]
    assert covered(np.array([], int), 2).tolist() == []


def test_figures_of_poems():
    vocabulary = Vocabulary.build(["一二三四五六七八九，。\n"], "character")
    known = {"甲": ["一二三，四五。"], "乙": ["一二三四五六七。"]}
    prosody = Prosody(vocabulary, Forms.of((tune, Form.of(of)) for tune, of in known.items()))
    bodies = [prosody.body(lines) for lines in known.values()]
    asked = Form.parse("3，2。")

    def figures(*poems):
        written = [Verse(tune, prosody.body(lines), asked) for tune, lines in poems]
        return judge(written, prosody, bodies)

    right, marks = ("甲", ["九九八，九九。"]), ("甲", ["九九八。九九。"])
    wrong, other, copied = (
        ("甲", ["九八。"]),
        ("乙", ["九九八，九九。"]),
        ("甲", ["一二三，四五。"]),
    )
    found = figures(right, marks, wrong, other)
    assert (found["in_form"], found["as_asked"]) == (0.5, 0.5)
    assert figures(right)["distinct_1"] == pytest.approx(2 / 5)
    assert figures(right)["distinct_2"] == pytest.approx(3 / 4)
    assert (figures(right)["longest_run"], figures(right)["copied"]) == (0, 0)
    # The marks left out, five words in a row are those of a poem, and of seven another has them.
    assert (figures(copied)["longest_run"], figures(copied)["copied"]) == (5, 1)
    assert figures(copied, right)["copied"] == 0.5
