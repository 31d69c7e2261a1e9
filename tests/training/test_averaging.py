"""Averages of the weights: their equations, what is measured and kept, and resuming with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import elman
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.averaging import Average
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start

TEXT = "the quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture(autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


def _walk(average, model, updates):
    """The weights after each of some updates, which the average is told of."""
    seen = []
    for _ in range(updates):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update()
        seen.append(model.weight.detach().clone())
    return seen


def _inside(average, model):
    with average.in_place():
        return model.weight.detach().clone()


@pytest.fixture
def model():
    return nn.Linear(3, 2).double()


def test_exponential(model):
    average = Average(model, "exponential", 0.7, 0)
    expected = None
    for k, weight in enumerate(_walk(average, model, 40), start=1):
        decay = min(0.7, k / (k + 9))
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    torch.testing.assert_close(_inside(average, model), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(model.weight, weight)  # what it learns with is there again


def test_stochastic_begins_when_nothing_was_better_for_long(model):
    average = Average(model, "stochastic", 0.0, 2)
    # Better, worse, better, worse, worse: two in a row are borne, the third begins it.
    for better in (True, False, True, False, False):
        last = _walk(average, model, 3)[-1]
        average.observe(better)
        assert torch.equal(_inside(average, model), last)
    average.observe(False)
    seen = _walk(average, model, 5)
    average.observe(True)  # once it has begun, it goes on
    seen += _walk(average, model, 2)
    mean = torch.stack(seen).mean(0)
    torch.testing.assert_close(_inside(average, model), mean, rtol=1e-12, atol=1e-12)


def test_none_is_the_model_itself(model):
    average = Average(model, "none", 0.9, 0)
    last = _walk(average, model, 3)[-1]
    average.observe(False)
    assert torch.equal(_inside(average, model), last)
    assert average.state_dict()["means"] == {}


def test_the_weights_are_given_back_whatever_fails_inside(model):
    average = Average(model, "exponential", 0.9, 0)
    last = _walk(average, model, 3)[-1]
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert not torch.equal(model.weight, last)
        1 / 0  # noqa: B018
    assert torch.equal(model.weight, last)


def test_an_average_of_another_kind_is_not_gone_on_with(model):
    average = Average(model, "exponential", 0.9, 0)
    last = _walk(average, model, 5)[-1]
    for kind in ("none", "stochastic"):
        other = Average(model, kind, 0.9, 0)
        other.load_state_dict(average.state_dict())
        assert torch.equal(_inside(other, model), last)
    same = Average(model, "exponential", 0.5, 0)
    same.load_state_dict(average.state_dict())
    assert torch.equal(_inside(same, model), _inside(average, model))


SMALL = {"cell": "rnn", "hidden": 6, "batch": 4, "steps": 10, "epochs": 6, "prompts": ["the"]}
SMALL |= {"sample_length": 3, "learning_rate": 0.05, "clip_norm": 0.0}
KINDS = {
    "exponential": {"average": "exponential", "average_decay": 0.9},
    # So high a rate that some epochs are worse.
    "stochastic": {"average": "stochastic", "average_patience": 0, "learning_rate": 0.3},
    "AWD-LSTM": {
        "average": "stochastic",
        "average_patience": 0,
        "learning_rate": 0.3,
        "variational": True,
        "embedding": 5,
        "dropout": 0.2,
        "embedding_dropout": 0.1,
        "weight_drop": 0.3,
        "activation_decay": 2.0,
        "slowness": 1.0,
        "softmax": "sampled",
        "softmax_samples": 9,
    },
}


def _train(path, book=None, stop_at=None, **changed):
    """Train anew or go on, and maybe die right after an update was kept."""
    settings = LanguageModelSettings.of(SMALL, changed)
    if book is None:
        run = Run.open(path)
        trainer = Trainer(restore(run), run, settings, resume=True)
    else:
        trainer = start(LanguageModeling, [str(book)], settings, path)
    real = trainer._update

    def update(some, asked):
        done = real(some, asked)
        if trainer.position.update == stop_at:
            trainer.save()
            raise KeyboardInterrupt
        return done

    trainer._update = update
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_bit_for_bit(tmp_path, kind):
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    whole = _train(tmp_path / "whole", book, **KINDS[kind])
    updates = whole.position.update
    assert whole.average.count > 0
    for stop_at in (1, updates // 2, updates - 3):
        path = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(KeyboardInterrupt):
            _train(path, book, stop_at, **KINDS[kind])
        torch.manual_seed(99)
        resumed = _train(path, **KINDS[kind])
        assert resumed.average.count == whole.average.count
        for kept in ("model", "average"):
            one = whole.run.load_checkpoint()[kept]
            other = resumed.run.load_checkpoint()[kept]
            if kept == "average":
                assert one.pop("waited") == other.pop("waited")
                one, other = one["means"], other["means"]
            assert one.keys() == other.keys() and one
            assert all(torch.equal(one[name], other[name]) for name in one)
        weights = whole.run.load_model()
        again = resumed.run.load_model()
        assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_average_is_what_is_measured_and_kept(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    trainer = _train(tmp_path / "run", book, epochs=1, **KINDS["exponential"])
    kept, learned = trainer.run.load_model(), trainer.model.state_dict()
    means = trainer.average.state_dict()["means"]
    assert all(torch.equal(kept[name], means[name]) for name in means)
    assert not torch.equal(kept["output.weight"], learned["output.weight"])
    told = trainer.run.metrics()[-1]["validation_loss"]
    trainer.run.give_weights(trainer.model)
    measured = trainer.task.measure(trainer.model, trainer.task.batches("validation"))
    assert measured["loss"] == pytest.approx(told, rel=1e-5)
