"""Every learning rule trains through the one loop, and goes on from a checkpoint bit for bit."""

from __future__ import annotations

import pytest
import torch

import elman
from elman.errors import InputError
from elman.learning import RULES
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start

TEXT = "the quick brown fox jumps over the lazy dog. " * 8
SMALL = {"cell": "rnn", "hidden": 5, "batch": 3, "steps": 6, "epochs": 2, "optimizer": "adam"}
SMALL |= {"precision": "64-true", "sample_length": 3, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


@pytest.fixture
def begin(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)

    def begin(name, **changed):
        settings = LanguageModelSettings.of(SMALL, changed)
        return start(LanguageModeling, [str(tmp_path / "book.txt")], settings, tmp_path / name)

    return begin


def _weights(trainer):
    return {name: w.detach().clone() for name, w in trainer.model.named_parameters()}


def test_truncated_backpropagation_is_what_the_loop_does_by_itself(begin):
    plain, by_rule = begin("plain"), begin("rule", learning="tbptt")
    plain.train()
    by_rule.train()
    for name, weight in _weights(plain).items():
        torch.testing.assert_close(_weights(by_rule)[name], weight, rtol=1e-10, atol=1e-12)


def test_rtrl_reaches_back_beyond_the_window(begin):
    """With weights that hardly move, its gradient is that of the whole past: that of one window."""
    still = {"optimizer": "sgd", "learning_rate": 1e-9, "clip_norm": 0.0, "epochs": 1}
    still |= {"batch": 1, "validation": 0.0}
    found = {}
    for name, changed in {
        "rtrl": {"learning": "rtrl", "steps": 3},
        "truncated": {"steps": 3},
        "whole": {"steps": 300, "accumulate": 1},
    }.items():
        trainer = begin(name, **still, **changed)
        offset = trainer.task.texts.stream()
        total = torch.zeros(5, 5, dtype=torch.float64)
        carry, begun = None, 0
        tokens = torch.from_numpy(offset.tokens[:31].astype("int64"))
        for begun in range(0, 30, trainer.settings.steps):
            steps = min(trainer.settings.steps, 30 - begun)
            window = type(next(iter(trainer.batches(0))))(
                tokens[begun : begun + steps, None], tokens[begun + 1 : begun + 1 + steps, None]
            )
            trainer.model.zero_grad()
            carry = trainer.gradients(window, carry, True).carry
            total += trainer.model.recurrent.weight_hh_l0.grad
        found[name] = total
    torch.testing.assert_close(found["rtrl"], found["whole"], rtol=1e-9, atol=1e-12)
    assert (found["truncated"] - found["whole"]).abs().max() > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_resuming_is_bit_for_bit_by_every_rule(begin, tmp_path, rule):
    chosen = {"learning": rule, "reach": 9 if rule == "tbptt" else None}
    whole = begin("whole", **chosen)
    whole.train()
    parts = begin("parts", **chosen)
    update = parts._update

    def asked(some, interrupt):
        interrupt.asked = parts.position.update == 6
        return update(some, interrupt)

    parts._update = asked
    parts.train()
    assert parts.interrupted
    assert parts.position.window == 7
    torch.manual_seed(99)
    run = Run.open(tmp_path / "parts")
    again = Trainer(restore(run), run, parts.settings, resume=True)
    again.train()
    for name, weight in _weights(whole).items():
        assert torch.equal(_weights(again)[name], weight), name
    losses = [line["loss"] for line in run.metrics()]
    assert losses == [line["loss"] for line in whole.run.metrics()]


def test_what_a_rule_cannot_follow_is_told_before_anything_is_made(begin, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="x requires a gradient"):
        begin("embedded", learning="rtrl", embedding=4)
    with pytest.raises(InputError, match="make the network without dropout"):
        begin("dropping", learning="rtrl", dropout=0.5, layers=2)
    monkeypatch.setattr(LanguageModeling, "recurrence", lambda self: None)
    with pytest.raises(InputError, match="only backpropagation can train it: leave out `learning`"):
        begin("other", learning="rtrl")
    assert [path.name for path in tmp_path.iterdir()] == ["book.txt"]


def test_a_batch_in_which_nothing_is_asked_leaves_no_gradient(begin, monkeypatch):
    """Its mean is 0 / 0: the epoch goes on as if it had not been there."""
    trainer = begin("run", epochs=1)
    real, seen = LanguageModeling.loss, []

    def loss(self, model, batch, carry):
        seen.append(1)
        found = real(self, model, batch, carry)
        nothing = len(seen) == 3  # the rehearsal was the first
        return found._replace(value=found.value * torch.nan, count=0) if nothing else found

    monkeypatch.setattr(LanguageModeling, "loss", loss)
    trainer.train()
    assert trainer.position.update > 2
    assert all(w.isfinite().all() for w in _weights(trainer).values())
