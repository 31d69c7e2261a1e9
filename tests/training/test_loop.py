from __future__ import annotations

import json

import pytest
import torch

from elman.data.batches import Batches
from elman.errors import ElmanError, InputError
from elman.tasks import open_run, restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


@pytest.fixture
def train(tmp_path):
    """Train a small language model, anew or from where a run stands."""
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    small = {"hidden": 12, "batch": 4, "steps": 10, "epochs": 3, "prompts": ["the"]}
    small |= {"sample_length": 10, "optimizer": "adam", "learning_rate": 0.01}

    def run(name, resume=False, stop_at=None, judged=None, **changed):
        settings = LanguageModelSettings.of(small, changed)
        if resume:
            folder = Run.open(tmp_path / name)
            trainer = Trainer(restore(folder), folder, settings, resume=True)
        else:
            trainer = start(LanguageModeling, [str(book)], settings, tmp_path / name)
        if stop_at is not None:
            _interrupt_at(trainer, stop_at)
        if judged is not None:
            _judge(trainer.task, judged)
        trainer.train()
        return trainer, trainer.run

    return run


def _interrupt_at(trainer, update):
    """Send the signal of Ctrl-C while that update's batch is read."""
    import os
    import signal

    real = trainer.batches

    def watched(epoch):
        def read(done):
            for batch in real(epoch).after(done):
                if trainer.position.update == update - 1:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

        return Batches(len(real(epoch)), read)

    trainer.batches = watched


def _judge(task, losses):
    """Let validation find these mean losses, epoch by epoch."""
    each = iter(losses)
    task.measure = lambda *_: task.described({"loss": next(each), "count": 1})


def _without_times(folder):
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


VARIANTS = [
    {"dropout": 0.4, "layers": 2},
    {"cell": "gru-reset-before", "optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.5},
    {"cell": "rnn", "schedule": "plateau", "validation": 0.3, "embedding": 6, "tied": True},
    {"schedule": "cosine", "warmup": 7, "validation": 0.0, "clip_value": 0.1, "l1": 1e-4},
]


@pytest.mark.parametrize("changed", VARIANTS)
@pytest.mark.parametrize("stop_at", [1, 31, 45])
def test_resuming_goes_on_bit_for_bit(train, changed, stop_at):
    _, whole = train("whole", **changed)
    stopped, _ = train("parts", stop_at=stop_at, **changed)
    assert stopped.interrupted
    assert stopped.position.update == stop_at
    torch.manual_seed(12345)  # what a new process would have drawn meanwhile
    resumed, parts = train("parts", resume=True, **changed)
    assert not resumed.interrupted
    for name, tensor in whole.load_model().items():
        assert torch.equal(tensor, parts.load_model()[name]), name
    assert _without_times(whole) == _without_times(parts)
    assert (whole.path / "samples.txt").read_text() == (parts.path / "samples.txt").read_text()


def test_a_run_folder_has_all_it_should(train):
    _, folder = train("run")
    names = {p.name for p in folder.path.iterdir()}
    assert names == {
        "config.json", "assets", "model.safetensors", "checkpoint", "metrics.jsonl",
        "curves.png", "samples.txt",
    }  # fmt: skip
    assert [p.name for p in (folder.path / "assets").iterdir()] == ["vocabulary.json"]
    assert (folder.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = folder.metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[-1]["validation_perplexity"] < lines[0]["validation_perplexity"]
    assert (folder.path / "samples.txt").read_text().count("== epoch") == 3


def test_the_best_weights_are_kept_not_the_last(train):
    _, folder = train("run", epochs=4, judged=[3.0, 1.0, 2.0, 1.5])
    _, until_then = train("run2", epochs=2, judged=[3.0, 1.0])
    for name, tensor in until_then.load_model().items():
        assert torch.equal(tensor, folder.load_model()[name]), name


def test_without_held_out_data_the_best_is_that_of_the_training_loss(train):
    _, folder = train("run", learning_rate=0.7, epochs=8, validation=0.0)
    losses = [line["loss"] for line in folder.metrics()]
    best = losses.index(min(losses))
    _, until_then = train("run2", learning_rate=0.7, epochs=best + 1, validation=0.0)
    for name, tensor in until_then.load_model().items():
        assert torch.equal(tensor, folder.load_model()[name]), name


def test_early_stopping(train):
    trainer, _ = train("run", epochs=50, patience=2, judged=[3.0, 1.0, 2.0, 1.5, 0.5])
    assert trainer.position.epoch == 4


def test_a_budget_of_seconds(train):
    trainer, folder = train("run", seconds=0.3, epochs=10**6)
    assert 0.3 <= trainer.position.seconds < 3
    assert (folder.path / "model.safetensors").exists()


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_divergence_stops_and_keeps_the_last_good_checkpoint(train, validation):
    diverging = {"cell": "rnn-relu", "optimizer": "sgd", "clip_norm": 0.0, "save_every": 0.0}
    diverging |= {"learning_rate": 1e12, "validation": validation}
    with pytest.raises(ElmanError) as caught:
        train("run", **diverging)
    message = str(caught.value)
    assert "became" in message
    assert "update" in message
    assert "`learning_rate` (now 1e+12)" in message
    assert "`clip_norm` (now off)" in message


def test_after_divergence_the_checkpoint_is_finite(train, tmp_path):
    # It learns well for two epochs; then one weight is broken, as by a fault or an overflow.
    trainer, folder = train("run", epochs=2)
    settings = LanguageModelSettings.of(trainer.settings.to_json(), {"epochs": 4})
    folder.reconfigure(settings.to_json())
    again = Trainer(restore(folder), folder, settings, resume=True)
    real = again._update

    def broken(some, asked):
        if again.position.update == 70:
            with torch.no_grad():
                again.task.model.output.bias[0] = torch.nan
        return real(some, asked)

    again._update = broken
    with pytest.raises(ElmanError, match="the loss became nan at update 71"):
        again.train()
    kept = folder.load_checkpoint()
    assert all(t.isfinite().all() for t in kept["model"].values())
    assert all(t.isfinite().all() for t in folder.load_model().values())


def test_a_checkpoint_of_other_settings(train):
    train("run", stop_at=5)
    with pytest.raises(ElmanError, match="does not fit the settings of its run"):
        _, folder = train("run2", stop_at=5, hidden=16)
        target = folder.path / "checkpoint" / "state.safetensors"
        source = folder.path.parent / "run" / "checkpoint" / "state.safetensors"
        target.write_bytes(source.read_bytes())
        train("run2", resume=True, hidden=16)


def test_a_device_that_is_not_there(train):
    with pytest.raises(InputError, match="device 'cuda:7' cannot be used"):
        train("run", device="cuda:7")
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        train("run2", device="abacus")


def test_the_threads_own_signals_are_restored(train):
    import signal

    before = signal.getsignal(signal.SIGINT)
    train("run", epochs=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_from_python(tmp_path, monkeypatch):
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    small = {"hidden": 6, "batch": 4, "steps": 10, "epochs": 2, "sample_length": 3}
    task = LanguageModeling.train([str(book)], run=str(tmp_path / "run"), **small)
    assert not task.model.training
    # It has the best weights, which the run has kept.
    again = open_run(tmp_path / "run", "cpu")
    for name, weight in again.model.state_dict().items():
        assert torch.equal(task.model.state_dict()[name].cpu(), weight), name
    assert task.evaluate()["perplexity"] == pytest.approx(again.evaluate()["perplexity"])
    assert again.settings.hidden == 6
    monkeypatch.chdir(tmp_path)
    assert LanguageModeling.train([str(book)], **small).data == [str(book)]
    assert (tmp_path / "runs" / "language-model-book" / "metrics.jsonl").exists()
    with pytest.raises(ElmanError, match="run is there already"):
        LanguageModeling.train([str(book)], run=tmp_path / "run", **small)
    with pytest.raises(InputError, match="unknown setting 'hiden': did you mean 'hidden'"):
        LanguageModeling.train([str(book)], hiden=6)
    with pytest.raises(InputError, match="no text was given"):
        LanguageModeling.train([])
