from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.data.text import open_text
from elman.data.vocabulary import KINDS, Vocabulary
from elman.errors import ElmanError, InputError

SAMPLE = "The cat sat on the mat, and the dog didn't.\n\n床前明月光，\nHello wörld 😀!\n"
VOCABULARIES = {
    kind: Vocabulary.build([SAMPLE], kind, size=300 if kind == "bpe" else None) for kind in KINDS
}
ALPHABET = "the cat,.\n 'đ中😀\u0301\t"


def cut(text, places):
    edges = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(alphabet=ALPHABET, max_size=40), places=st.lists(st.integers(0, 40)))
def test_cuts_never_show(kind, text, places):
    vocabulary = VOCABULARIES[kind]
    whole = vocabulary.encode_text(text)
    pieces = list(vocabulary.encode(cut(text, places)))
    assert all(ids.dtype == np.int32 and len(ids) for ids in pieces)
    assert [int(id) for ids in pieces for id in ids] == whole.tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(places=st.lists(st.integers(0, len(SAMPLE) - 1)))
def test_building_ignores_cuts(kind, places):
    built = Vocabulary.build(cut(SAMPLE, places), kind, size=300)
    assert built.tokens == VOCABULARIES[kind].tokens


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_decode_undoes_encode(kind):
    vocabulary = VOCABULARIES[kind]
    assert vocabulary.decode(vocabulary.encode_text(SAMPLE)) == SAMPLE


@given(text=st.text(max_size=30))
def test_bytes_know_every_text(text):
    vocabulary = VOCABULARIES["bpe"]
    assert vocabulary.decode(vocabulary.encode_text(text)) == text
    assert vocabulary.unseen(text) == []
    assert vocabulary.unknown_id is None


def test_bpe_counts_ids_from_the_most_frequent_on():
    blocks = list(open_text("time-machine").blocks())
    vocabulary = Vocabulary.build(blocks, "bpe", size=500)
    ids = np.concatenate(list(vocabulary.encode(blocks)))
    counts = np.bincount(ids, minlength=500)
    assert (np.diff(counts) <= 0).all() and counts[0] > 100 * counts[-1]
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again.tokens == vocabulary.tokens


@pytest.mark.parametrize("unit", ["a", " ", "7", "!?", "床前明月光疑是地上霜"])
def test_a_text_without_breaks_takes_no_longer(unit):
    """It was one word, and 100,000 letters took 10 s; of Chinese, a minute."""
    text = unit * (50_000 // len(unit))
    started = time.process_time()
    vocabulary = Vocabulary.build([text], "bpe", size=400)
    assert vocabulary.decode(vocabulary.encode_text(text)) == text
    assert time.process_time() - started < 3
    assert max(map(len, vocabulary.tokens)) <= 256
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert (again.encode_text(text) == vocabulary.encode_text(text)).all()


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_streamed_text_is_decoded_text(kind, data):
    vocabulary = VOCABULARIES[kind]
    ids = data.draw(st.lists(st.integers(0, len(vocabulary) - 1), max_size=30))
    decoder = vocabulary.decoder()
    assert "".join([decoder.push(id) for id in ids]) == vocabulary.decode(ids)


def test_a_character_of_many_bytes_is_streamed_whole():
    vocabulary = Vocabulary.build(["a"], "bpe", size=256)
    ids = vocabulary.encode_text("中😀")
    assert len(ids) == 7
    decoder = vocabulary.decoder()
    assert [decoder.push(id) for id in ids] == ["", "", "中", "", "", "", "😀"]


def test_letters_of_english_are_28_characters():
    source = open_text("time-machine")
    vocabulary = Vocabulary.build(source.blocks("letters"), "character")
    assert len(vocabulary) == 28
    assert vocabulary.tokens[:4] == ["<unk>", " ", "e", "t"]


def test_characters_are_sorted_by_frequency_then_code_point():
    assert Vocabulary.build(["cab", "bd"], "character").tokens == ["<unk>", "b", "a", "c", "d"]


def test_unknown_characters():
    vocabulary = Vocabulary.build(["ab"], "character")
    assert vocabulary.encode_text("a中b\U0010ffff").tolist() == [1, 0, 2, 0]
    assert vocabulary.decode([1, 0]) == "a<unk>"
    assert vocabulary.unseen("z中azb") == ["z", "中"]


def test_words():
    vocabulary = VOCABULARIES["word"]
    assert vocabulary.tokens[:3] == ["<unk>", "<eos>", "the"]
    text = "The cat didn't, 床前.\n"
    assert vocabulary.decode(vocabulary.encode_text(text)) == text
    assert vocabulary.unseen("the bird sat, bird 光 低") == ["bird", "低"]


def test_a_prompt_without_a_line_end_gets_none():
    assert VOCABULARIES["word"].tokens[VOCABULARIES["word"].encode_text("the cat")[-1]] == "cat"


@pytest.mark.parametrize("kind", ["character", "word", "whitespace"])
def test_size_counts_special_tokens_and_min_count_drops_the_rare(kind):
    text = "a a a b b c\n"
    assert len(Vocabulary.build([text], kind, size=3)) == 3
    rare = Vocabulary.build([text], kind, min_count=2)
    assert "b" in rare.tokens and "c" not in rare.tokens


@pytest.mark.skipif(not os.environ.get("ELMAN_DATA"), reason="ELMAN_DATA names no folder")
def test_wikitext_has_its_published_token_counts():
    folder = os.environ["ELMAN_DATA"] + "/wikitext2/"
    blocks = open_text(folder + "valid.txt").blocks
    vocabulary = Vocabulary.build(blocks(), "whitespace")
    assert sum(map(len, vocabulary.encode(blocks()))) == 217_646
    assert sum(map(len, vocabulary.encode(open_text(folder + "test.txt").blocks()))) == 245_569


@pytest.mark.parametrize("kind", KINDS)
def test_json_round_trip(kind):
    vocabulary = VOCABULARIES[kind]
    restored = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert restored == vocabulary
    assert restored.tokens == vocabulary.tokens
    assert restored.encode_text(SAMPLE).tolist() == vocabulary.encode_text(SAMPLE).tolist()


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"kind": "syllable"},
        {"kind": ["word"]},
        {"kind": "character"},
        {"kind": "character", "tokens": "<unk>ab"},
        {"kind": "character", "tokens": ["a", "<unk>"]},
        {"kind": "character", "tokens": ["<unk>", "a", "a"]},
        {"kind": "character", "tokens": ["<unk>", "ab"]},
        {"kind": "character", "tokens": ["<unk>", 3]},
        {"kind": "word", "tokens": ["<unk>", "the"]},
        {"kind": "bpe"},
        {"kind": "bpe", "tokenizer": {"model": {"type": "BPE"}}},
        {"kind": "bpe", "tokenizer": {"version": "1.0", "model": {"type": "BPE", "vocab": {}}}},
    ],
)
def test_damaged_json(content):
    with pytest.raises(ElmanError, match=r"expected .*restore the file"):
        Vocabulary.from_json(content)


@pytest.mark.parametrize("kind", ["character", "word", "whitespace"])
def test_a_vocabulary_of_nothing_but_unknowns_is_refused(kind):
    with pytest.raises(InputError, match="no token is there more than 3 times"):
        Vocabulary.build(["a b a a"], kind, min_count=99)


def test_arguments_out_of_range():
    with pytest.raises(InputError, match="kind is 'letter', expected one of character"):
        Vocabulary.build(["a"], "letter")
    with pytest.raises(InputError, match="vocabulary is 1, expected more than 1"):
        Vocabulary.build(["a"], "character", size=1)
    with pytest.raises(InputError, match="vocabulary is 2, expected more than 2"):
        Vocabulary.build(["a"], "word", size=2)
    with pytest.raises(InputError, match="vocabulary is 100, expected at least 256"):
        Vocabulary.build(["a"], "bpe", size=100)
    with pytest.raises(InputError, match="min_count is 0"):
        Vocabulary.build(["a"], "word", min_count=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id", [-1, 100_000])
def test_ids_out_of_range(kind, id):
    with pytest.raises(InputError, match=f"id {id} is outside the vocabulary, expected 0 to"):
        VOCABULARIES[kind].decode([id])


def test_bpe_is_the_same_in_every_process():
    # Hash seeds differ between processes: a merge order that hangs on one would show here.
    code = (
        "import json; from elman.data.text import open_text; "
        "from elman.data.vocabulary import Vocabulary; "
        "blocks = open_text('time-machine').blocks(); "
        "print(json.dumps(Vocabulary.build(blocks, 'bpe', size=1000).tokens))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    tokens = Vocabulary.build(open_text("time-machine").blocks(), "bpe", size=1000).tokens
    assert len(tokens) == 1000
    for run in runs:
        assert json.loads(run.stdout) == tokens
        assert run.stderr == ""


@pytest.mark.parametrize("kind", ["character", "word"])
def test_a_large_text_takes_little_memory(kind):
    block = "The Time Traveller, for so it will be convenient to speak of him.\n" * 4_000
    vocabulary = Vocabulary.build([block], kind)
    repeats = 200 if kind == "character" else 8
    tracemalloc.start()
    total = sum(map(len, vocabulary.encode(block for _ in range(repeats))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > len(block) * repeats // 6
    assert peak < 30 * len(block)
