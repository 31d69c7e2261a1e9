from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.normalization import normalized, whole_words
from elman.errors import InputError

TEXTS = st.text(alphabet="aBΣς ,\n\t中é1_²\u0301", max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=5)


def cut(text, places):
    edges = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[a:b] for a, b in pairwise(edges)]


@given(text=TEXTS, places=CUTS, how=st.sampled_from(["none", "lower", "letters"]))
def test_cuts_never_show(text, places, how):
    whole = "".join(normalized([text], how))
    assert "".join(normalized(cut(text, places), how)) == whole


@given(text=TEXTS, places=CUTS)
def test_lower_is_what_python_calls_lower(text, places):
    # With the final sigma: a block cut in a word would lower the last letter of its first half.
    assert "".join(normalized(cut(text, places), "lower")) == text.lower()


@given(text=st.text(max_size=60), places=CUTS)
def test_letters_leaves_letters_and_single_spaces(text, places):
    result = "".join(normalized(cut(text, places), "letters"))
    assert not result.startswith(" ")
    assert "  " not in result
    letters = [c for c in text.lower() if c.isalpha()]
    assert [c for c in result if c.isalpha()] == letters


def test_letters_of_english_and_chinese():
    text = "It's 1898: über_alles,\n\n  床前明月光，疑是地上霜。"
    assert "".join(normalized([text], "letters")) == "it s über alles 床前明月光 疑是地上霜 "


def test_letters_keeps_combining_marks_on_their_letters():
    assert "".join(normalized(["हिन्दी 42 cafe\u0301 ❤\ufe0f!"], "letters")) == "हिन्दी cafe\u0301 "


@given(text=TEXTS, places=CUTS)
def test_whole_words_cuts_only_in_front_of_white_space(text, places):
    pieces = list(whole_words(cut(text, places)))
    assert "".join(pieces) == text
    for left, right in pairwise(pieces):
        assert re.search(r"\S\Z", left)
        assert re.match(r"\s", right)


def test_whole_words_holds_no_more_than_asked():
    pieces = list(whole_words(["中" * 10] * 100, longest=50))
    assert max(map(len, pieces)) < 60
    assert "".join(pieces) == "中" * 1000


def test_unknown_normalization():
    with pytest.raises(InputError, match="'upper', expected one of none, lower, letters"):
        normalized(["a"], "upper")
