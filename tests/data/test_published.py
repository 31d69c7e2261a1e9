"""The published corpora as records: their counts as their sources and the literature tell them."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache

import pytest

from elman.data.corpora import CORPORA
from elman.data.kinds import DIALOGUES, PAIRS, POEMS, labels, tags
from elman.data.labelled import name_of
from elman.data.pairs import read_tsv
from elman.data.published import SENTIMENTS, dealt, sentiment
from elman.data.tagged import Tagged
from elman.errors import InputError

pytestmark = pytest.mark.skipif(
    not os.environ.get("ELMAN_DATA"), reason="ELMAN_DATA names no folder"
)

LABELS, TAGS = labels(), tags()
KINDS = {kind.name: kind for kind in (LABELS, TAGS, PAIRS, DIALOGUES, POEMS)}


@cache
def read(kind, name, part="train"):
    return KINDS[kind].read([name], part)


@pytest.mark.parametrize(
    ("name", "kind", "counts"),
    [
        ("sst-2", "labels", (6_920, 872, 1_821)),
        ("sst-5", "labels", (8_544, 1_101, 2_210)),
        ("japanese-vowels", "labels", (270, 0, 370)),
        ("song-poets", "labels", (2_584, 323, 322)),
        ("ud-english-ewt", "tags", (12_544, 2_001, 2_077)),
        ("ud-chinese-gsd", "tags", (3_997, 500, 500)),
        ("conll2000", "tags", (8_936, 0, 2_012)),
        ("multi30k-de-en", "pairs", (29_000, 1_014, 1_000)),
        # The source counts 54,046 marks between the turns of 8,096 dialogues.
        ("dailydialog-en-zh", "pairs", (54_046 + 8_096, 8_025, 7_716)),
        ("dailydialog-en", "dialogues", (8_096, 995, 996)),
        ("dailydialog-zh", "dialogues", (8_096, 995, 996)),
    ],
)
def test_counts_of_records(name, kind, counts):
    parts = ("train", "validation", "test")
    found = [len(read(kind, name, part)) if CORPORA[name].parts[part] else 0 for part in parts]
    assert found == list(counts)


@pytest.mark.parametrize(
    ("name", "part", "tokens"),
    [
        ("ud-english-ewt", "train", 204_577),
        ("ud-english-ewt", "validation", 25_147),
        ("ud-english-ewt", "test", 25_094),
        ("ud-chinese-gsd", "train", 98_608),
        ("ud-chinese-gsd", "validation", 12_663),
        ("ud-chinese-gsd", "test", 12_012),
        ("conll2000", "train", 211_727),
        ("conll2000", "test", 47_377),
    ],
)
def test_counts_of_tokens(name, part, tokens):
    sentences: list[Tagged] = read("tags", name, part)
    assert sum(len(sentence.tokens) for sentence in sentences) == tokens
    assert all(len(sentence.tags) == len(sentence.tokens) for sentence in sentences)


def test_the_brown_corpus_is_dealt_out_by_texts():
    parts = [set(files) for files in CORPORA["brown-tagged"].parts.values()]
    assert [len(files) for files in parts] == [400, 50, 50]
    assert set.union(*parts) == set(CORPORA["brown"].files)
    words = [word for sentence in read("tags", "brown-tagged", "test") for word in sentence.tokens]
    # The same files, read as a text.
    brown = CORPORA["brown"]
    texts = brown.text()([path for path in brown.paths() if path.name in parts[2]])
    assert words == "".join(texts).split()


def test_labels_of_the_treebank():
    whole = Counter(map(name_of, read("labels", "sst-5")))
    assert sorted(whole.values()) == sorted([1_092, 2_218, 1_624, 2_322, 1_288])
    binary = Counter(map(name_of, read("labels", "sst-2")))
    assert binary == {"positive": 2_322 + 1_288, "negative": 1_092 + 2_218}


def test_phrases_are_in_the_training_part_alone_and_once():
    paths = CORPORA["sst-5"].paths("validation")
    phrases = [r[:2] for r in sentiment(paths, "train", SENTIMENTS, phrases=True)]
    assert len(set(phrases)) == len(phrases)
    sentences = [r[:2] for r in sentiment(paths, "validation", SENTIMENTS, phrases=True)]
    assert len(sentences) == 1_101
    assert set(sentences) < set(phrases)
    assert {text for text, _ in phrases} > {
        word for text, _ in sentences for word in text.split(" ")
    }


def test_japanese_vowels():
    train = read("labels", "japanese-vowels")
    test = read("labels", "japanese-vowels", "test")
    assert sum(len(record.input) for record in train) == 4_274
    assert sum(len(record.input) for record in test) == 5_687
    assert {record.input.shape[1] for record in train + test} == {12}
    counts = Counter(map(name_of, test))
    assert [counts[str(k)] for k in range(1, 10)] == [31, 35, 88, 44, 29, 24, 40, 50, 29]


def test_poets_are_ten_and_no_poem_is_in_two_parts():
    parts = [read("labels", "song-poets", part) for part in ("train", "validation", "test")]
    texts = [{record.input for record in part} for part in parts]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]
    authors = [{name_of(record) for record in part} for part in parts]
    assert authors[0] == authors[1] == authors[2]
    assert len(authors[0]) == 10
    assert {"辛弃疾", "苏轼"} < authors[0]
    assert "无名氏" not in authors[0]


def test_tatoeba_has_all_translations_of_a_sentence_in_one_part():
    train = read("pairs", "tatoeba-en-fr")
    (path,) = CORPORA["tatoeba-en-fr"].paths("train")
    every = [pair.source for pair in read_tsv(path, path.name, "fra.txt")]
    assert len(every) == 142_787
    sources = {pair.source for pair in train}
    assert len(train) == 139_979 == sum(source in sources for source in every)


def test_song_lyrics_are_poems():
    poems = read("poems", "song-lyrics")
    assert len(poems) == 20_050
    assert "".join(poem.text() for poem in poems) == "".join(CORPORA["song-lyrics"].blocks())


def test_a_corpus_of_another_kind_is_refused():
    with pytest.raises(InputError, match="sst-2 is a corpus of labels, expected pairs of texts"):
        PAIRS.read(["sst-2"])
    with pytest.raises(InputError, match="sst-2 is a corpus of labels, expected a text"):
        list(CORPORA["sst-2"].blocks())


def test_records_are_dealt_out_by_what_they_have_in_common():
    records = [k // 2 for k in range(40)]
    parts = {part: list(dealt(records, part, 10, str)) for part in ("validation", "test")}
    assert parts == {"validation": [4, 4, 14, 14], "test": [9, 9, 19, 19]}
    train = list(dealt(records, "train", 10, str))
    assert sorted(train + parts["validation"] + parts["test"]) == records
