from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.words import (
    SpacedJoiner,
    WordJoiner,
    split_sentence,
    split_spaces,
    split_words,
)


def join(tokens, joiner=WordJoiner):
    return "".join(map(joiner().push, tokens))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I don't, she said.", ["I", "don't", ",", "she", "said", "."]),
        ("a well-known <unk> of 1,000", ["a", "well-known", "<unk>", "of", "1,000"]),
        ("3.14. snake_case", ["3.14", ".", "snake_case"]),
        ("one\n\n  \ntwo\n", ["one", "<eos>", "two", "<eos>"]),
        ("床前明月光，", ["床", "前", "明", "月", "光", "，"]),
        ("我用Python写", ["我", "用", "Python", "写"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("wait--what...", ["wait", "--", "what", "..."]),
        ("_this_", ["_", "this", "_"]),
    ],
)
def test_split_words(text, tokens):
    assert split_words(text) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "'Is it (really) so?' said I, \"naming\" our host; 'well--no!'\nYes.\n",
        "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n",
        "It costs $5, or 10% of 1,000.50 [net].\n",
        "“Quoted,” he said: ‘nested’… and so on\n",
        "``It is'', an _emphasis that\nruns on_ over lines.\n",
    ],
)
def test_what_people_write_comes_back(text):
    assert join(split_words(text)) == text


@given(text=st.text(alphabet="ab1'’\"-_.,`()中。\n é\u0301", max_size=40))
def test_joined_text_splits_into_the_same_tokens(text):
    tokens = split_words(text)
    if tokens[:1] == ["<eos>"]:
        del tokens[0]
    assert split_words(join(tokens)) == tokens


def test_split_spaces_ends_every_line():
    assert split_spaces(" \n a , b \n\n") == ["<eos>", "a", ",", "b", "<eos>", "<eos>"]


def test_spaced_joiner():
    assert join(["a", ",", "<eos>", "<eos>", "b"], SpacedJoiner) == "a ,\n\nb"


def test_words_are_parted_as_the_data_has_them():
    assert split_sentence("She can't see John's.") == ["She", "ca", "n't", "see", "John", "'s", "."]
    assert split_sentence("can't", {"n't"}) == ["ca", "n't"]
    assert split_sentence("can't", {"n't", "can't"}) == split_sentence("can't", {"ca"}) == ["can't"]
