from __future__ import annotations

import json
import math
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from elman import cli
from elman.data.contexts import Contexts
from elman.data.corpora import find
from elman.data.vectors import Vectors, read_vectors
from elman.errors import ElmanError, InputError
from elman.tasks import open_run
from elman.tasks.embed.similarity import judge
from elman.tasks.embed.task import Embedding
from elman.tasks.embed.word_vectors import EmbedSettings, WordVectors
from elman.training.run import Run

SMALL = {"embedding": 8, "batch": 256, "min_count": 1, "epochs": 3, "device": "cpu"}
SMALL |= {"optimizer": "adagrad", "learning_rate": 0.1}
TOPICS = ["bread cheese butter honey", "rook bishop pawn knight", "sail mast anchor rudder"]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Sentences, each about one of three things."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(draw.choice(TOPICS).split(), k=6)) for _ in range(400)]
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def trained(book, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    settings = {"lines": True, "subsample": 0.0, "epochs": 8}
    return run, Embedding.train([book], run=run, **SMALL | settings)


def settings(**changed):
    return EmbedSettings.of(SMALL, changed)


def drawn(**changed):
    """A model whose weights are none of them zero, and a batch."""
    model = WordVectors(9, settings(**changed)).double()
    torch.nn.init.normal_(model.output.weight)
    torch.nn.init.normal_(model.embedding.weight)
    context = torch.tensor([5, 6, 3, 7, 8, 8])
    sizes, noise = torch.tensor([2, 1, 3]), torch.randint(9, (3, 4))
    return model, Contexts(torch.tensor([3, 4, 5]), context, sizes, noise)


@pytest.mark.parametrize("combine", ["mean", "sum"])
@pytest.mark.parametrize("method", ["skip-gram", "cbow"])
def test_the_loss_is_that_of_the_papers(method, combine):
    model, batch = drawn(method=method, combine=combine)
    v, u = model.embedding.weight, model.output.weight
    expected, predictions = 0.0, 0
    contexts = batch.context.split(batch.sizes.tolist())
    for word, context, noise in zip(batch.words, contexts, batch.noise, strict=True):
        whole = v[context].sum(0) / (len(context) if combine == "mean" else 1)
        pairs = [(v[word], u[c]) for c in context]
        for h, likely in pairs if method == "skip-gram" else [(whole, u[word])]:
            expected -= logsigmoid(likely @ h) + logsigmoid(-(u[noise] @ h)).sum()
            predictions += 1
    nats, count = model(batch)
    assert count == predictions
    torch.testing.assert_close(nats, expected)


def test_each_vector_of_a_context_gets_the_gradient_of_their_mean():
    model, batch = drawn(method="cbow")
    model(batch)[0].backward()
    v, u = model.embedding.weight.detach(), model.output.weight.detach()
    expected = torch.zeros_like(v)
    contexts = batch.context.split(batch.sizes.tolist())
    for word, context, noise in zip(batch.words, contexts, batch.noise, strict=True):
        h = v[context].mean(0).requires_grad_()
        (-logsigmoid(u[word] @ h) - logsigmoid(-(u[noise] @ h)).sum()).backward()
        expected.index_add_(0, context, h.grad.expand(len(context), -1))
    torch.testing.assert_close(model.embedding.weight.grad, expected)


@pytest.mark.parametrize("method", ["skip-gram", "cbow"])
def test_who_knows_nothing_is_as_surprised_as_by_tossing_coins(book, method):
    task = Embedding.create([book], settings(method=method, negatives=3))
    assert task.evaluate([book])["loss"] == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize("method", ["skip-gram", "cbow"])
def test_words_that_share_contexts_come_near_each_other(book, tmp_path, method):
    more = {"method": method, "lines": True, "subsample": 0.0, "epochs": 8}
    task = Embedding.train([book], run=tmp_path / "run", **SMALL | more)
    for topic in map(str.split, TOPICS):
        for word in topic:
            near = [record["neighbour"] for record in task.do("neighbours", [word], count=3)]
            assert {word, *near} == set(topic)
    lines = Run.open(tmp_path / "run").metrics()
    assert lines[-1]["validation_loss"] < lines[0]["validation_loss"] < 6 * math.log(2)


def test_neighbours_analogies_and_files_are_those_of_gensim(trained, tmp_path):
    from gensim.models import KeyedVectors

    _, task = trained
    (record,) = task.do("export-vectors", vectors=str(tmp_path / "v.txt"))
    assert (record["words"], record["width"]) == (12, 8)
    keyed = KeyedVectors.load_word2vec_format(record["file"])
    assert keyed.index_to_key == task.vectors().words
    found = [(r["neighbour"], r["cosine"]) for r in task.do("neighbours", ["Rook"], count=5)]
    for (word, cosine), (other, expected) in zip(
        found, keyed.most_similar("rook", topn=5), strict=True
    ):
        assert (word, cosine) == (other, pytest.approx(expected, abs=1e-5))
    found = [r["answer"] for r in task.do("analogy", ["bread honey", "rook"], count=4)]
    expected = keyed.most_similar(positive=["honey", "rook"], negative=["bread"], topn=4)
    assert found == [word for word, _ in expected]


def test_a_run_is_read_as_vectors(trained):
    run, task = trained
    read, own = read_vectors(run), open_run(run).vectors()
    assert read.words == own.words == task.vectors().words
    assert np.array_equal(read.matrix, own.matrix)


def test_words_that_are_not_learned_from_have_no_vector(tmp_path):
    (tmp_path / "a.txt").write_text("a b c d " * 50)
    (tmp_path / "b.txt").write_text("a b c z")
    held_out = {"validation_data": [str(tmp_path / "b.txt")], "subsample": 0.0}
    task = Embedding.create([str(tmp_path / "a.txt")], settings(**held_out))
    assert task.vectors().words == ["a", "b", "c", "d"]
    (batch,) = task.batches("validation")
    assert task.vocabulary.decode(batch.words) == "a b c"


def test_what_was_interrupted_goes_on_bit_for_bit(book, tmp_path, monkeypatch, capsys):
    chosen = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    assert cli.run(["train", "embed", book, *chosen, "--run", str(tmp_path / "whole")]) == 0
    real, calls = Embedding.loss, 0

    def interrupting(self, model, batch, carry):
        nonlocal calls
        calls += model.training
        if calls == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, model, batch, carry)

    monkeypatch.setattr(Embedding, "loss", interrupting)
    again = str(tmp_path / "again")
    assert cli.run(["train", "embed", book, *chosen, "--run", again]) != 0
    assert "go on with" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.run(["train", "embed", "--resume", again]) == 0
    one, other = (Run.open(tmp_path / name) for name in ("whole", "again"))
    for name, weight in one.load_model().items():
        assert torch.equal(weight, other.load_model()[name])
    assert [line["loss"] for line in one.metrics()] == [line["loss"] for line in other.metrics()]


def test_the_command_line(trained, capsys):
    run, _ = trained

    def typed(*words):
        code = cli.run([*words[:1], str(run), *words[1:]])
        return code, *capsys.readouterr()

    code, out, _ = typed("evaluate", "--json")
    figures = json.loads(out)
    assert code == 0
    assert list(figures)[:2] == ["loss", "words_per_second"]
    code, out, _ = typed("neighbours", "rook", "--count", "2")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["rook", "rook"]
    code, _, err = typed("neighbours", "rok")
    assert code == 2
    assert "'rok' has no vector (did you mean rook" in err
    code, _, err = typed("analogy", "rook", "bread")
    assert code == 2
    assert "an analogy needs three words, such as man king woman, received 2" in err
    assert cli.run(["compare", "embed", "x"]) == 2
    assert "no recurrent network" in capsys.readouterr().err


def test_judgements_are_scored_by_gensim():
    from scipy.stats import spearmanr

    (file,) = (path for path in find("word-judgements").paths() if "RG" in path.name)
    pairs = [line.split("\t") for line in file.read_text().splitlines()]
    words = sorted({word for pair in pairs[:40] for word in pair[:2]} | {"athens", "greece"})
    words += ["baghdad", "iraq"]
    draw = np.random.default_rng(0)
    vectors = Vectors("drawn", words, draw.standard_normal((len(words), 7)).astype(np.float32))
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    place = {word: k for k, word in enumerate(words)}
    known = [p for p in pairs if p[0] in place and p[1] in place]
    cosines = [unit[place[a]] @ unit[place[b]] for a, b, _ in known]
    found = judge(vectors)
    figures = found["similarities"]["RG-65"]
    assert figures["known"] == len(known) / 65
    expected = spearmanr(cosines, [float(score) for *_, score in known]).statistic
    assert figures["spearman"] == pytest.approx(expected)
    assert found["analogies"]["semantic"]["known"] > 0
    assert "syntactic" not in found["analogies"]
    strange = Vectors("strange", ["天", "地"], vectors.matrix[:2])
    assert judge(strange) == {}


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a a a a a a a b")
    with pytest.raises(ElmanError, match="1 come at least `min_count` 5 times, expected 2"):
        Embedding.create([str(tmp_path / "a.txt")], settings(min_count=5, validation=0.0))
    with pytest.raises(InputError, match="no text was given"):
        Embedding.create([], settings())
