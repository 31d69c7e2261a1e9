"""Tagged sentences, and words as tags of characters."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.kinds import tags
from elman.data.place import Place
from elman.data.segmentation import characters, segmented, words
from elman.data.tagged import Tagged, read_untagged
from elman.errors import ElmanError, InputError


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as tagged sentences."""

    def through(name, text, column=None):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return tags(column).read([str(path)])

    return through


CHUNKS = """\
-DOCSTART- -X- O

# a comment of five words
It PRP B-NP
# # O
pays VBZ B-VP


2\u00a01/2 CD B-NP
"""


def plain(sentences):
    return [(s.tokens, s.tags, s.place.line) for s in sentences]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_with_spaces(read, caplog, end):
    with caplog.at_level(logging.INFO, "elman"):
        found = read("a.txt", CHUNKS.replace("\n", end))
    assert plain(found) == [
        (("It", "#", "pays"), ("B-NP", "O", "B-VP"), 4),
        (("2\u00a01/2",), ("B-NP",), 9),
    ]
    assert "-DOCSTART- left out: 1" in caplog.text
    assert "comments left out: 1" in caplog.text


def test_a_column_may_be_chosen(read):
    assert [s.tags for s in read("a.conll", CHUNKS, "2")] == [("PRP", "#", "VBZ"), ("CD",)]
    assert read("a.conll", CHUNKS, "-2") == read("a.conll", CHUNKS, "2")
    for column in ("1", "4", "-3", "0"):
        with pytest.raises(InputError, match=rf"`tag_column` is {column}, expected 2 to 3, or -1"):
            read("a.conll", CHUNKS, column)
    with pytest.raises(InputError, match="`tag_column` is 'UPOS', expected a number"):
        read("a.conll", CHUNKS, "UPOS")


def test_tabs_separate_columns_whose_tokens_hold_spaces(read):
    assert plain(read("a.tsv", "New York\tLOC\nis\tO")) == [(("New York", "is"), ("LOC", "O"), 1)]


CONLLU = """\
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_
2.1\tya\tya\tADV\tR\t_\t_\t_\t_\t_

# only a comment
"""


def test_conllu_passes_over_multiword_tokens_and_empty_nodes(read, caplog):
    with caplog.at_level(logging.INFO, "elman"):
        found = read("a.conllu", CONLLU)
    assert plain(found) == [(("vamos", "nos"), ("VERB", "PRON"), 3)]
    assert "multiword tokens left out: 1" in caplog.text
    assert "empty nodes left out: 1" in caplog.text
    assert read("a.conllu", CONLLU, "DEPREL")[0].tags == ("root", "obj")
    with pytest.raises(
        InputError, match=r"`tag_column` is 'POS', expected one of ID, FORM, .* for"
    ):
        read("a.conllu", CONLLU, "POS")


def test_words_with_slashes(read):
    found = read("a.pos", "\n\tThe/at and/or/cc  ./.\n\n1/2/cd\n")
    assert plain(found) == [(("The", "and/or", "."), ("at", "cc", "."), 2), (("1/2",), ("cd",), 4)]


def test_lines_are_sentences_without_tags(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("It  pays .\n\n", "utf-8")
    assert plain(read_untagged(path, "a")) == [(("It", "pays", "."), (), 1), ((), (), 2)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a X\n\nb\n", r"a.txt, line 3: received 'b', 1 columns, expected 2"),
        ("a.txt", "a X\nb X Y\n", r"line 2: received 'b X Y', 3 columns, expected 2"),
        ("a.txt", "one two\nthree\n", "line 2"),
        ("a.txt", "alone\n", "`tag_column` is -1, expected 2 to 1"),
        ("a.tsv", "a\t\n", "line 1: the tag is empty"),
        ("a.tsv", "\tX\n", "line 1: the token is empty"),
        ("a.conllu", "1\ta\tX\n", "line 1: received .*, expected the ten columns of CoNLL-U"),
        ("a.conllu", "a\t" * 9 + "b", "line 1: received .*, expected the ten columns of CoNLL-U"),
        ("a.pos", "a/b c", "line 1: received 'c', expected word/tag"),
        ("a.pos", "\n/b", "line 2: received '/b', expected word/tag"),
        ("a.pos", "b/", "line 1: received 'b/', expected word/tag"),
        ("a.pos", "\n \n", "has no tagged sentences"),
        ("a.doc", "a", r"ends in .doc, expected tagged sentences in a file that ends in one of"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, name, text, message):
    with pytest.raises(ElmanError, match=message):
        read(name, text)


def test_words_become_tags_of_characters():
    letters, told = characters(["看似", "簡單", ",", "圖書館"], ["VERB", "ADJ", "PUNCT", "NOUN"])
    assert "".join(letters) == "看似簡單,圖書館"
    joint = "B-VERB E-VERB B-ADJ E-ADJ S-PUNCT B-NOUN M-NOUN E-NOUN"
    assert " ".join(told) == joint
    assert characters(["看似", "圖書館"], middle="I")[1] == ("B", "E", "B", "I", "E")


def test_contradictory_tags_still_put_every_character_in_a_word():
    assert words("abcdefg", ["M-X", "S-Y", "E-Z", "B", "B", "M-W", "S"]) == [
        ("a", "X"), ("b", "Y"), ("c", "Z"), ("d", ""), ("ef", ""), ("g", ""),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["", "NOUN", "X-Y"]))))
def test_words_come_back_from_their_tags(pairs):
    assert words(*characters([word for word, _ in pairs], [part for _, part in pairs])) == pairs


def test_a_sentence_of_words_becomes_one_of_characters():
    sentence = Tagged(("看似", ","), ("VERB", "PUNCT"), Place("a", 3))
    assert segmented(sentence)[:3] == (("看", "似", ","), ("B", "E", "S"), sentence.place)
    assert segmented(sentence, joint=True).tags == ("B-VERB", "E-VERB", "S-PUNCT")


def test_other_columns_are_read_beside_the_tokens(tmp_path):
    path = tmp_path / "chunks.conll"
    path.write_text("Confidence NN nsubj B-NP\nin IN case B-PP\n")
    (found,) = tags(features=["2", "-2"]).read([str(path)])
    assert found.tags == ("B-NP", "B-PP")
    assert found.features == (("NN", "IN"), ("nsubj", "case"))
    conllu = tmp_path / "trees.conllu"
    conllu.write_text("1\tdogs\tdog\tNOUN\tNNS\t_\t0\troot\t_\t_\n")
    (found,) = tags("UPOS", ["XPOS", "LEMMA"]).read([str(conllu)])
    assert (found.tags, found.features) == (("NOUN",), (("NNS",), ("dog",)))


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("a.conll", "dogs NNS B-NP\n", "9", "`feature_columns` is 9, expected 2 to 3"),
        ("a.conll", "dogs NNS B-NP\n", "XPOS", "`feature_columns` is 'XPOS', expected a number"),
        ("a.conllu", "1\tdogs\n", "2", "`feature_columns` is '2', expected one of ID"),
        ("a.tagged", "dogs/NNS\n", "2", "leave out `feature_columns`, or give columns"),
    ],
)
def test_other_columns_that_are_not_there_are_told(tmp_path, name, text, column, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        tags(features=[column]).read([str(path)])
