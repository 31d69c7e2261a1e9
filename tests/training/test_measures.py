"""Measures with a direction: whatever asks which of two is better goes by it."""

from __future__ import annotations

import math

import pytest
import torch

import elman
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.measures import Loss, Measure, add, sums_of
from elman.training.start import start

TEXT = "the quick brown fox jumps over the lazy dog. " * 12


def test_a_cost_is_what_is_to_become_small():
    assert Measure("error").cost({"loss": 3.0, "error": 0.5}) == 0.5
    assert Measure("f1", higher=True).cost({"loss": 3.0, "f1": 0.5}) == -0.5
    # As while training, which measures less.
    assert Measure("f1", higher=True).cost({"loss": 3.0}) == 3.0
    assert Measure("f1", higher=True).of({"loss": 3.0}) == {"loss": 3.0}
    assert Measure("f1", higher=True).of({"loss": 3.0, "f1": 0.5}) == {"f1": 0.5}


def test_sums_are_of_losses_times_counts():
    sums = sums_of(Loss(torch.tensor(1.5), 4, sums={"right": torch.tensor(3)}))
    assert sums == {"loss": 6.0, "count": 4, "right": 3.0}
    # The mean over nothing is no number, and counts for nothing.
    add(sums, sums_of(Loss(torch.tensor(math.nan), 0, sums={"wrong": 1})))
    assert sums == {"loss": 6.0, "count": 4, "right": 3.0, "wrong": 1.0}


class Sure(LanguageModeling):
    """A language model that is judged by how sure it is."""

    headline = Measure("sureness", higher=True)

    def measures(self, sums):
        return {"sureness": math.exp(-sums["loss"] / sums["count"])}


SURENESS = [0.2, 0.9, 0.5, 0.6, 0.95]


@pytest.fixture
def train(tmp_path):
    """Train with these figures of validation; the loss becomes smaller in every epoch."""
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    small = {"hidden": 4, "batch": 4, "steps": 10, "prompts": ["the"], "sample_length": 3}

    def run(name, **changed):
        settings = LanguageModelSettings.of(small, changed)
        trainer = start(Sure, [str(book)], settings, tmp_path / name)
        found = iter([{"loss": 1 / (k + 1), "sureness": s} for k, s in enumerate(SURENESS)])
        trainer.task.measure = lambda *_: next(found)
        trainer.train()
        return trainer

    with elman.engine("reference"):
        yield run


def test_the_best_weights_are_the_surest(train):
    four, two = train("four", epochs=4).run, train("two", epochs=2).run
    for name, weight in two.load_model().items():
        assert torch.equal(weight, four.load_model()[name]), name
    last = four.load_checkpoint()["model"]
    assert not torch.equal(last["output.weight"], four.load_model()["output.weight"])
    assert [line["validation_sureness"] for line in four.metrics()] == SURENESS[:4]


def test_early_stopping_and_plateau_go_by_it(train):
    trainer = train("run", epochs=50, patience=2, schedule="plateau", division=2.0)
    assert trainer.position.epoch == 4
    assert trainer.schedule.divisions == 2
    rates = [line["learning_rate"] for line in trainer.run.metrics()]
    assert rates == pytest.approx([2e-3, 2e-3, 2e-3, 1e-3])
