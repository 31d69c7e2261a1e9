"""The measures for TensorBoard: those of metrics.jsonl, by update."""

from __future__ import annotations

import struct

import pytest

import elman
from elman.errors import InputError
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start
from elman.training.tensorboard import Board

SMALL = {"hidden": 4, "batch": 4, "steps": 10, "epochs": 2, "prompts": ["the"]}
SMALL |= {"sample_length": 3, "tensorboard": True}


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 12)
    with elman.engine("reference"):
        yield str(tmp_path / "book.txt")


def _events(folder):
    """Every value that was written, by name and update: records of TFRecord with an Event each."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def _as_written(lines):
    return {
        (name, line["update"]): pytest.approx(value, rel=1e-6)
        for line in lines
        for name, value in line.items()
    }


def test_every_line_of_metrics_is_written(tmp_path, book):
    trainer = start(LanguageModeling, [book], LanguageModelSettings.of(SMALL), tmp_path / "run")
    trainer.train()
    run = Run.open(tmp_path / "run")
    lines = run.metrics()
    assert len(lines) == 2
    assert {"epoch", "loss", "validation_perplexity", "gradient_norm"} <= lines[0].keys()
    assert _events(run.path / "tensorboard") == _as_written(lines)
    # Going on writes more of them.
    settings = LanguageModelSettings.of(run.config["settings"], {"epochs": 3})
    Trainer(restore(run), run, settings, resume=True).train()
    assert _events(run.path / "tensorboard") == _as_written(run.metrics())


def test_without_the_flag_nothing_is_written(tmp_path, book):
    settings = LanguageModelSettings.of(SMALL, {"tensorboard": False})
    start(LanguageModeling, [book], settings, tmp_path / "run").train()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_where_it_is_not_installed_a_sentence_says_so(tmp_path, book, monkeypatch):
    for package in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{package}", False)
    with pytest.raises(InputError, match="`tensorboard` needs the package of that name: pip inst"):
        Board(Run(tmp_path, {}))
    # Before anything is trained, and nothing is left of the run.
    with pytest.raises(InputError, match="`tensorboard` needs"):
        start(LanguageModeling, [book], LanguageModelSettings.of(SMALL), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.txt"]
