from __future__ import annotations

import gzip
import json
import logging

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from elman.data.vectors import Vectors, read_vectors, table, write_vectors
from elman.errors import ElmanError, InputError

WORDS = ["the", "król", "to\u00a0be", "zürich"]


@pytest.fixture
def matrix():
    return np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)


@pytest.fixture
def keyed(matrix):
    from gensim.models import KeyedVectors

    made = KeyedVectors(5)
    made.add_vectors(WORDS, matrix)
    return made


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_what_gensim_writes_is_read(tmp_path, keyed, matrix, binary, packed):
    path = tmp_path / "vectors"
    keyed.save_word2vec_format(str(path), binary=binary)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    read = read_vectors(path)
    assert read.words == WORDS
    np.testing.assert_allclose(read.matrix, matrix, rtol=1e-6)


def test_what_is_written_gensim_reads(tmp_path, matrix):
    from gensim.models import KeyedVectors

    write_vectors(tmp_path / "v.txt", WORDS, matrix)
    read = KeyedVectors.load_word2vec_format(str(tmp_path / "v.txt"))
    assert read.index_to_key == WORDS
    np.testing.assert_allclose(read.vectors, matrix, rtol=1e-6)


def test_glove_has_no_header_and_words_with_spaces(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(", 0.5 -1\n. . . 1e-2 3\n\n")
    read = read_vectors(path)
    assert read.words == [",", ". . ."]
    assert read.matrix.tolist() == [[0.5, -1], [np.float32(0.01), 3]]


def test_binary_vectors_with_line_ends_behind_them_and_longer_than_a_block(tmp_path):
    draw = np.random.default_rng(1)
    matrix = draw.standard_normal((700, 500)).astype("<f4")
    entries = (b"w%d " % k + row.tobytes() + b"\n" for k, row in enumerate(matrix))
    (tmp_path / "v.bin").write_bytes(b"700 500\n" + b"".join(entries))
    read = read_vectors(tmp_path / "v.bin")
    assert read.words == [f"w{k}" for k in range(700)]
    assert np.array_equal(read.matrix, matrix)


def test_a_run_gives_its_embedding_without_special_tokens(tmp_path, matrix):
    (tmp_path / "assets").mkdir()
    vocabulary = {"kind": "word", "tokens": ["<unk>", "<eos>", "a", "b"]}
    (tmp_path / "assets" / "vocabulary.json").write_text(json.dumps(vocabulary))
    save_file({"embedding.weight": matrix}, tmp_path / "model.safetensors")
    read = read_vectors(tmp_path)
    assert read.words == ["a", "b"]
    assert np.array_equal(read.matrix, matrix[2:])


def test_a_word_that_comes_again_is_counted(tmp_path, caplog):
    (tmp_path / "v.txt").write_text("b 1\na 2\nb 3\n")
    with caplog.at_level(logging.INFO, "elman"):
        read = read_vectors(tmp_path / "v.txt")
    assert (read.words, read.matrix.tolist()) == (["b", "a"], [[1], [2]])
    assert "words that come again: 1" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1 2\nb 1\n", "line 2: received 1 numbers behind a word, expected 2"),
        (b"a 1 2\nb 1 x\n", "line 2: received 'b 1 x', expected a word and 2 numbers"),
        (b"a 1 2\nb 1 nan\n", "line 2: a number is not finite"),
        (b"3 2\na 1 2\nb 1 3\n", "has 2 vectors, expected 3"),
        (b"2 1\na \0\0\x80\x3f", "ends after 1 vectors, expected 2 of 1 numbers"),
        (b"1 1\na \0\0\x80\x7f", "vector 1: a number is not finite"),
        (b"\x80\x04\x95whatever", "is a pickle"),
        (b"\n", "has 0 vectors"),
    ],
)
def test_what_is_damaged_is_named(tmp_path, content, message):
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(ElmanError, match=message):
        read_vectors(tmp_path / "v")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ElmanError, match="cannot be read"):
        read_vectors(tmp_path / "none")
    with pytest.raises(ElmanError, match="has no word vectors"):
        read_vectors(tmp_path)


def test_a_table_has_the_known_rows_and_draws_the_others(matrix, caplog):
    vectors = Vectors("four", ["the", "king", "King", "of"], matrix)
    names = ["<pad>", "King", "The", "OF", "queen"]
    with caplog.at_level(logging.INFO, "elman"):
        weight, known = table(names, vectors, 5, torch.Generator().manual_seed(1))
    assert known.tolist() == [False, True, True, True, False]
    assert np.array_equal(weight[1:4].numpy(), matrix[[2, 0, 3]])
    assert weight[0].abs().sum() > 0
    assert "3 of 5 words (60.0 %)" in caplog.text
    again = table(names, vectors, 5, torch.Generator().manual_seed(1))
    assert torch.equal(again.weight, weight)


def test_rows_that_are_drawn_look_like_the_others():
    matrix = 3 + 0.2 * np.random.default_rng(0).standard_normal((500, 20)).astype(np.float32)
    words = [f"w{k}" for k in range(500)]
    weight = table(["w1", *"abcdefgh" * 100], Vectors("some", words, matrix), 20).weight[1:]
    assert float(weight.mean()) == pytest.approx(3, abs=0.01)
    assert float(weight.std()) == pytest.approx(0.2, abs=0.01)


def test_a_table_of_another_width_or_language_is_refused(matrix):
    vectors = Vectors("four", WORDS, matrix)
    with pytest.raises(InputError, match="have width 5, expected 6"):
        table(["the"], vectors, 6)
    with pytest.raises(ElmanError, match="none of 2 words has a vector"):
        table(["x", "y"], vectors, 5)
