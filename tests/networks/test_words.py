from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from elman.data.lexicon import Lexicon
from elman.data.vectors import Vectors, write_vectors
from elman.errors import InputError
from elman.networks.words import SPECIAL, Lookup, WordEncoder, Words, WordSettings, fitted
from elman.training.network import NetworkSettings

SENTENCES = [("the", "old", "man"), ("The", "boat", "the", "immeasurable", "sea")]


@dataclass
class Settings(NetworkSettings, WordSettings):
    pass


def encoder(characters="conv", **options):
    if characters != "none":
        options |= {"character_embedding": 3, "character_hidden": 5}
    settings = Settings.of({"embedding": 4, "characters": characters, **options})
    words = Words.collect(SENTENCES, settings)
    return words, WordEncoder(words, settings).double()


def test_words_are_counted_lowered_and_cut():
    def names(**options):
        return Words.collect(SENTENCES, WordSettings.of(options)).words.names[2:]

    assert names()[:2] == ("the", "The")
    assert names(lower=True)[0] == "the" and "The" not in names(lower=True)
    assert names(min_count=2) == ("the",)
    assert names(vocabulary_size=4) == ("the", "The")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({}, True), ({"min_count": 2}, False), ({"vocabulary_size": 3}, False),
        ({"word_dropout": 0.1}, False),
    ],
)  # fmt: skip
def test_it_is_said_where_no_word_is_unknown_while_training(caplog, own, said):
    caplog.set_level("INFO", "elman")
    Words.collect([["a", "b", "b"]], WordSettings(**own))
    assert ("<unk> is nowhere in what is learned from" in caplog.text) is said
    caplog.clear()
    Words.collect([["a", "a", "<unk>", "<unk>"]], WordSettings(**own))
    assert not caplog.text


def test_what_is_known_comes_back_from_json():
    words = Words.collect(SENTENCES, WordSettings(lower=True))
    again = Words.from_json(words.to_json())
    assert (again.words, again.characters, again.lower) == (words.words, words.characters, True)


def test_a_batch_has_each_word_once():
    words = Words.collect(SENTENCES, WordSettings())
    batch = words.batch(SENTENCES)
    assert batch.ids.shape == (5, 2) and batch.lengths.tolist() == [3, 5]
    assert batch.ids[:3, 0].tolist() == words.words.ids(SENTENCES[0])
    assert batch.ids[3:, 0].tolist() == [0, 0]
    assert batch.characters.shape[1] == len(batch.sizes) == 7
    spelled = batch.characters[:, batch.distinct[3, 1]]
    assert [words.characters.names[k] for k in spelled] == list("immeasurable")


@pytest.mark.parametrize("kind", ["none", "conv", "recurrent"])
def test_neither_neighbours_nor_padding_change_a_word(kind):
    words, network = encoder(characters=kind)
    network.eval()
    together = network(words.batch(SENTENCES))
    for embedding in (network.embedding, getattr(network.characters, "embedding", None)):
        if embedding is not None:
            embedding.weight.data[0] = torch.nan
    for k, sentence in enumerate(SENTENCES):
        alone = network(words.batch([sentence]))
        torch.testing.assert_close(together[: len(sentence), k], alone[:, 0])
        for t, word in enumerate(sentence):
            torch.testing.assert_close(alone[t, 0], network(words.batch([[word]]))[0, 0])


@pytest.mark.parametrize("cell", ["gru", "rnn", "lstm"])
def test_characters_are_read_by_any_cell(cell):
    words, network = encoder(characters="recurrent", cell=cell)
    assert network(words.batch(SENTENCES)).shape == (5, 2, network.output_size)
    assert network.output_size == 4 + 2 * 5


def test_convolution_is_the_maximum_over_windows_of_three():
    words, network = encoder(characters="conv")
    spelled = network.characters
    e = spelled.embedding(torch.tensor(words.characters.ids("sea")))
    e = torch.cat([torch.zeros(1, 3), e, torch.zeros(1, 3)])
    w, b = spelled.convolution.weight, spelled.convolution.bias
    windows = torch.stack([(w * e[k : k + 3].T).sum((1, 2)) + b for k in range(3)])
    given = network.eval()(words.batch([["sea"]]))[0, 0, 4:]
    torch.testing.assert_close(given, windows.amax(0))


def test_words_become_unknown_at_a_rate_while_training():
    embedding = Lookup(10, 2, unknown=0.25)
    ids = torch.arange(10).repeat(2000)
    there = embedding(ids).view(2000, 10, 2)
    replaced = (there == embedding.weight[1]).all(-1).double().mean(0)
    assert replaced[0] == 0 and replaced[1] == 1
    assert ((replaced[2:] - 0.25).abs() < 0.05).all()
    torch.testing.assert_close(embedding.eval()(ids), embedding.weight[ids])


def test_an_embedding_starts_from_vectors_and_knows_their_words(tmp_path):
    path = tmp_path / "vectors.txt"
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_vectors(path, ["boat", "ship"], matrix)
    settings, vectors = fitted(Settings(embedding_from=str(path), frozen=True))
    assert settings.embedding == 3
    words = Words.collect(SENTENCES, settings, vectors)
    network = WordEncoder(words, settings, vectors)
    assert "ship" in words.words
    rows = network.embedding.weight[words.words.ids(["boat", "ship"])]
    torch.testing.assert_close(rows, torch.from_numpy(matrix))
    assert not network.embedding.weight[0].any()
    lowered = Words.collect(
        SENTENCES, Settings(lower=True), vectors._replace(words=["boat", "Ulm"])
    )
    assert "Ulm" not in lowered.words
    assert not network.embedding.weight.requires_grad


def test_frozen_without_vectors_is_refused():
    with pytest.raises(InputError, match="`frozen` is for the vectors of `embedding_from`"):
        WordSettings(frozen=True)


def test_no_vectors_are_read_where_none_are_named():
    settings = WordSettings()
    assert fitted(settings) == (settings, None)


def test_a_width_that_differs_from_the_vectors_is_refused():
    words = Words(Lexicon([*SPECIAL, "boat"]), Lexicon(SPECIAL))
    vectors = Vectors("here", ["boat"], np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="width 3, expected 4"):
        WordEncoder(words, Settings(embedding=4), vectors)
