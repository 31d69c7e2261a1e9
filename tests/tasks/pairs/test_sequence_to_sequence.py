"""What every job with an encoder and a decoder has: data, loss, decoding, resuming."""

from __future__ import annotations

import logging

import pytest
import torch

import elman
from elman.data.shards import Shard
from elman.decoding import draw
from elman.tasks.pairs.alignment import alignment
from elman.tasks.translate import Translator
from elman.training.run import Run
from elman.training.start import resume

LINES = [
    ("ein hund", "a dog"), ("zwei hunde rennen", "two dogs run"), ("ein mann", "a man"),
    ("der mann rennt und rennt", "the man runs and runs"), ("hunde", "dogs"),
    ("ein hund und ein mann", "a dog and a man"), ("zwei", "two"),
    ("der hund rennt", "the dog runs"),
]  # fmt: skip
SMALL = {"tokens": "word", "cell": "gru", "hidden": 8, "batch": 3, "validation": 0.25, "epochs": 2}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in LINES * 3))
    return [str(path)]


def made(data, **settings):
    task = Translator.create(data, Translator.Settings.of(SMALL, settings))
    task.model.double().eval()
    return task


KINDS = [{"attention": kind} for kind in ("none", "additive", "general")]
KINDS += [{"attention": "general", "input_feeding": True, "cell": "lstm", "layers": 2}]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_surprise_of_every_token(data, kind):
    task = made(data, **kind, reverse=True)
    nats, count = 0.0, 0
    pairs = task.records("validation")
    for pair in pairs:
        source = [*task.source.encode(pair.source)[::-1], task.source.end]
        target = [*task.target.encode(pair.target), task.target.end]
        state = task.model.encode(torch.tensor(source)[:, None], torch.tensor([len(source)]))
        for before, token in zip([task.target.end, *target], target, strict=False):
            logits, state = task.model.step(torch.tensor([before]), state)
            nats -= float(logits.log_softmax(-1)[0, token])
            count += 1
    assert len(pairs) == 6
    measures = task.measure(task.model, task.batches("validation"))
    assert measures["loss"] == pytest.approx(nats / count, rel=1e-9)
    assert measures["perplexity"] == pytest.approx(torch.tensor(nats / count).exp().item())


def test_labels_are_smoothed_while_it_learns_alone(data):
    task, plain = made(data, label_smoothing=0.2), made(data)
    batch = next(iter(task.batches("validation")))
    expected = plain.loss(plain.model, batch, None).value
    torch.testing.assert_close(task.loss(task.model, batch, None).value, expected)
    task.model.train()
    readouts, _ = task.model(batch.source, batch.lengths, batch.previous)
    surprise = -task.model.output(readouts).log_softmax(-1)
    within = batch.target >= 0
    picked = surprise.gather(-1, batch.target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    smoothed = (0.8 * picked + 0.2 * surprise.mean(-1))[within].mean()
    torch.testing.assert_close(task.loss(task.model, batch, None).value, smoothed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_depends_on_the_source_alone(data, kind):
    task, texts = made(data, **kind, batch=8), [source for source, _ in LINES]
    together = list(task.write(texts, task.search, []))
    for text, beside in zip(texts, together, strict=True):
        ((alone,),) = task.write([text], task.search, [])
        assert alone.tokens == beside[0].tokens
        assert alone.log_probability == pytest.approx(beside[0].log_probability, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_takes_the_likeliest_token(data, kind):
    task = made(data, **kind)
    for text in ("ein hund", "zwei hunde rennen"):
        source = [*task.source.encode(text), task.source.end]
        state = task.model.encode(torch.tensor(source)[:, None], torch.tensor([len(source)]))
        token, written = task.target.end, []
        while len(written) < 2 * len(source) + 10:
            logits, state = task.model.step(torch.tensor([token]), state)
            logits[0, task.target.vocabulary.unknown_id] = -torch.inf
            token = int(logits.argmax())
            if token == task.target.end:
                break
            written.append(token)
        ((found,),) = task.write([text], task.search, [])
        assert found.tokens == written


def test_of_an_empty_text_nothing_is_written_and_a_long_one_is_cut(data, caplog):
    task = made(data, longest=5)
    with caplog.at_level(logging.WARNING, "elman"):
        first, second, third = task.best(["", "hund " * 100_000, " "])
    assert first == third == [""]
    assert second == next(task.best(["hund " * 5]))
    assert "more than 5 tokens" in caplog.text
    assert "1, the longest with 100,000" in caplog.text


def test_long_pairs_are_left_out_and_counted(data, caplog):
    with caplog.at_level(logging.INFO, "elman"):
        task = made(data, longest=3, validation=0.0)
        learned = sum(len(batch.lengths) for batch in task.batches("train", 0))
    assert learned == 18
    assert "more than 3 tokens on a side: 6 of 24" in caplog.text
    with pytest.raises(elman.ElmanError, match=r"all of the 24 pairs .* raise `longest`"):
        made(data, longest=1, validation=0.0, tokens="character").batches("train", 0)


def test_processes_together_read_every_pair_once(data):
    task = made(data)
    whole = [t for batch in task.batches("train", 1) for t in batch.references]
    parts = [
        t
        for rank in range(2)
        for batch in task.batches("train", 1, Shard(rank, 2))
        if batch is not None
        for t in batch.references
    ]
    assert sorted(whole) == sorted(parts)


def test_scheduled_sampling_grows_over_the_epochs(data):
    task = made(data, scheduled_sampling=0.4, epochs=5)
    shares = [next(iter(task.batches("train", epoch))).own for epoch in range(5)]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert next(iter(task.batches("validation"))).own == 0


@pytest.mark.parametrize("tokens", ["word", "character", "bpe", "whitespace"])
def test_a_side_reads_what_it_writes(data, tokens):
    task = made(data, tokens=tokens, shared=True, vocabulary_size=300, validation=0.0)
    for text in ("ein hund", "zwei hunde rennen"):
        for side in (task.source, task.target):
            assert side.decode(side.encode(text)) == text
    assert task.model.source is task.model.target


def test_sides_of_their_own_kinds(data):
    task = made(data, target_tokens="character", lowercase=True)
    assert task.source.vocabulary.kind == "word"
    assert task.target.vocabulary.kind == "character"
    assert task.source.encode("Ein HUND") == task.source.encode("ein hund")
    with pytest.raises(elman.InputError, match="`shared`"):
        made(data, target_tokens="character", shared=True)


def test_a_training_goes_on_bit_for_bit(data, tmp_path):
    settings = {**SMALL, "dropout": 0.3, "scheduled_sampling": 0.5, "attention": "additive"}
    through = Translator.train(data, run=tmp_path / "through", **settings)
    Translator.train(data, run=tmp_path / "cut", **settings, seconds=1e-9)
    trainer = resume(Translator, Run.open(tmp_path / "cut"), seconds=None)
    trainer.train()
    trainer.run.give_weights(trainer.task.model)
    for name, weight in through.model.state_dict().items():
        assert torch.equal(weight, trainer.task.model.state_dict()[name]), name


@torch.no_grad()
def test_several_runs_answer_as_their_average(data):
    one, other = made(data), made(data, seed=1)
    batch = next(iter(one.batches("validation")))
    one.companions = [other]
    asked = one.asked(batch)
    assert len(asked["step"]) == len(asked["state"]) == 2
    ((found,), *_) = one.search(batch)
    one.companions = []
    states = [task.model.encode(batch.source, batch.lengths) for task in (one, other)]
    token, total = batch.previous[0], 0.0
    for next_token in [*found.tokens, one.target.end]:
        told = []
        for k, task in enumerate((one, other)):
            logits, states[k] = task.model.step(token, states[k])
            told.append(logits[0].softmax(-1))
        total += float(((told[0] + told[1]) / 2).log()[next_token])
        token = torch.full_like(token, next_token)
    assert found.log_probability == pytest.approx(total, abs=1e-9)


@torch.no_grad()
def test_several_runs_are_measured_as_their_average(data):
    one, other = made(data), made(data, seed=1)
    batch = next(iter(one.batches("validation")))
    told = [
        task.model.output(task.model(batch.source, batch.lengths, batch.previous)[0]).softmax(-1)
        for task in (one, other)
    ]
    within = batch.target >= 0
    mean = (0.5 * told[0] + 0.5 * told[1])[within]
    nats = -mean.gather(-1, batch.target[within].unsqueeze(-1)).log().sum()
    one.companions = [other]
    assert one.tally(one.model, batch, None)[0]["loss"] == pytest.approx(float(nats))


def test_runs_answer_together_that_read_the_same(data):
    one = made(data)
    with pytest.raises(elman.InputError, match="must have the same `reverse`: train them"):
        one.companions = [made(data, reverse=True)]


def test_where_it_looked(data):
    task = made(data)
    weights, source, target = alignment(task, "ein hund", width=3)
    assert source == ["ein", "hund", "<eos>"]
    assert target[-1] == "<eos>"
    assert weights.shape == (len(target), 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(target)).double())
    with pytest.raises(elman.InputError, match="empty"):
        alignment(task, " ")
    with pytest.raises(elman.InputError, match="`attention`"):
        alignment(made(data, attention="none"), "ein hund")


def test_data_must_be_named():
    with pytest.raises(elman.InputError, match="pairs of texts"):
        Translator.create([], Translator.Settings())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_depends_on_the_source_and_its_seed_alone(data, kind):
    task, texts = made(data, **kind, batch=8), sorted((source for source, _ in LINES), key=len)

    def drawn(texts, seeds):
        decode = lambda batch: draw(**task.asked(batch), seeds=seeds)  # noqa: E731
        return [found.tokens for found in task.write(texts, decode, None)]

    together = drawn(texts, range(8))
    assert together == [drawn([text], [seed])[0] for seed, text in enumerate(texts)]
    assert together != drawn(texts, range(8, 16))
