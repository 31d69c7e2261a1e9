"""Names and their ids."""

from __future__ import annotations

import json

import pytest

from elman.data.lexicon import PAD, UNKNOWN, Lexicon
from elman.errors import ElmanError, InputError


def test_the_most_frequent_come_first_and_ties_by_the_alphabet():
    lexicon = Lexicon.count(["the", "cat", "and", "the", "dog", "and", "a", "bird"])
    assert lexicon.names == ("and", "the", "a", "bird", "cat", "dog")
    assert lexicon.ids(["dog", "and"]) == [5, 0]


def test_special_names_come_before_all_and_are_not_there_twice():
    lexicon = Lexicon.count(["b", UNKNOWN, "b", "a", PAD], special=(PAD, UNKNOWN))
    assert lexicon.names == (PAD, UNKNOWN, "b", "a")


def test_what_is_not_there_is_unknown():
    lexicon = Lexicon.count("abba", special=(PAD, UNKNOWN))
    assert lexicon.ids("ax") == [lexicon.names.index("a"), 1]
    assert lexicon.unseen("xaxyb") == ["x", "y"]


def test_without_an_unknown_a_name_must_be_there():
    with pytest.raises(InputError, match=r"'C' is not one of the 2 known names \(A, B\)"):
        Lexicon("AB").ids("ABC")


def test_size_and_min_count_keep_the_frequent():
    names = "aaabbc"
    assert Lexicon.count(names, size=3, special=(UNKNOWN,)).names == (UNKNOWN, "a", "b")
    assert Lexicon.count(names, min_count=3).names == ("a",)
    with pytest.raises(InputError, match="vocabulary is 1, expected more than 1, which <unk> take"):
        Lexicon.count(names, size=1, special=(UNKNOWN,))
    with pytest.raises(InputError, match="no token is there more than 3 times"):
        Lexicon.count(names, min_count=4)


def test_json_brings_it_back():
    lexicon = Lexicon.count("你好，你", special=(PAD,))
    again = Lexicon.from_json(json.loads(json.dumps(lexicon.to_json())))
    assert again == lexicon
    assert len(again) == 4
    assert "你" in again


@pytest.mark.parametrize("content", [None, {"names": []}, ["a", "a"], ["a", 1]])
def test_damaged_json_is_refused(content):
    with pytest.raises(ElmanError, match="expected a list of different texts"):
        Lexicon.from_json(content)
