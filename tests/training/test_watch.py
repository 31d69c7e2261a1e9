"""Watching a training: what is logged, and that nothing else changes."""

from __future__ import annotations

import json

import pytest
import torch

from elman import InputError, gradient_flow
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start
from elman.training.watch import flows, read_log

TEXT = "the quick brown fox jumps over the lazy dog. " * 15


@pytest.fixture
def train(tmp_path):
    """Train a small language model for two epochs, or go on to a third."""
    (tmp_path / "book.txt").write_text(TEXT)
    small = {"hidden": 6, "layers": 2, "batch": 4, "steps": 10, "epochs": 2, "dropout": 0.3}
    small |= {"prompts": ["the"], "sample_length": 5}

    def run(name, resume=False, **changed):
        every = {"watch_every": 10} if "watch_gradients" in changed else {}
        settings = LanguageModelSettings.of(small, every, changed)
        if resume:
            folder = Run.open(tmp_path / name)
            trainer = Trainer(restore(folder), folder, settings, resume=True)
        else:
            book = str(tmp_path / "book.txt")
            trainer = start(LanguageModeling, [book], settings, tmp_path / name)
        trainer.train()
        return trainer, trainer.run

    return run


def test_the_run_folder_has_the_log_and_the_plots(train):
    trainer, folder = train("run", watch_gradients=True)
    lines = read_log(folder.path / "gradients.jsonl")
    updates = trainer.position.update
    assert [line["update"] for line in lines] == list(range(0, updates, 10))
    assert len(lines) > 2
    for line in lines:
        assert [cell["layer"] for cell in line["cells"]] == [0, 1]
        for cell in line["cells"]:
            assert set(cell["norms"]) == {"all", "h", "c"}
            assert len(cell["norms"]["all"]) in (9, 10, 11)
            assert cell["norms"]["h"][0] > 0
            assert cell["verdict"] in ("vanishes", "explodes", "holds")
            assert list(cell["gates"]) == ["i", "f", "o"]
            for gate in cell["gates"].values():
                assert 0 <= gate["below"] <= 1 and 0 <= gate["above"] <= 1 and 0 < gate["mean"] < 1
            assert cell["state_norms"]["h"] > 0
    assert (folder.path / "gradients.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (folder.path / "gradients.svg").read_bytes()


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")  # bfloat16 has no native kernels
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_watching_changes_nothing(train, precision):
    _, plain = train("plain", precision=precision)
    assert not (plain.path / "gradients.jsonl").exists()
    _, watched = train("watched", precision=precision, watch_gradients=True, watch_every=5)
    for name, tensor in plain.load_model().items():
        assert torch.equal(tensor, watched.load_model()[name]), name
    losses = [[line["loss"] for line in folder.metrics()] for folder in (plain, watched)]
    assert losses[0] == losses[1]


def test_resuming_goes_on_with_the_log(train):
    trainer, folder = train("run", watch_gradients=True)
    log = folder.path / "gradients.jsonl"
    ahead = {"update": trainer.position.update, "cells": [{}]}
    log.write_text(log.read_text() + json.dumps(ahead) + "\n" + '{"update": 1')
    resumed, _ = train("run", resume=True, watch_gradients=True, epochs=3)
    updates = [line["update"] for line in read_log(log)]
    assert updates == list(range(0, resumed.position.update, 10))


def test_a_look_is_gradient_flow(train):
    trainer, _ = train("run")
    task = trainer.task
    window = next(iter(task.batches("train", 0)))
    (look,) = flows(task, window, None)
    model = task.model.eval()

    def loss(y):
        targets = window.targets[-1]
        logits = model.output(y)
        return torch.nn.functional.cross_entropy(logits, targets) / len(window.targets)

    expected = gradient_flow(model.recurrent, model.embed(window.inputs), loss=loss)
    for ours, theirs in zip(look.flow.cells, expected.cells, strict=True):
        torch.testing.assert_close(ours.norms, theirs.norms, rtol=1e-4, atol=0)


def test_a_model_without_recurrence(train):
    trainer, _ = train("run")
    trainer.task.model = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"has no elman.Recurrent to look at"):
        flows(trainer.task, None, None)
