"""The networks of a study side by side: run folders, table, picture, Ctrl-C, resuming."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from elman.errors import ElmanError, InputError
from elman.studies import STUDIES
from elman.studies.long_lags import Adding, Copy
from elman.studies.series import resume_all, train_all
from elman.training.run import Run

TINY = {"hidden": 4, "updates": 6, "batch": 4, "every": 3}
TRAINED = ["reber", "two-sequence", "adding", "multiplication", "temporal-order", "copy"]
TRAINED += ["anbn", "anbncn"]


@pytest.mark.parametrize("name", TRAINED)
def test_every_training_runs(name, tmp_path, monkeypatch):
    cell = "gru" if name == "anbncn" else "lstm"  # states and cell states
    kind = STUDIES[name]
    monkeypatch.setattr(kind, "most", 30, raising=False)  # of the counting studies
    found = train_all(kind, kind.Settings(**TINY, cell=cell, length=10), [0, 1], tmp_path / "study")
    assert [row["seed"] for row in found["rows"]] == [0, 1]
    assert [point[0] for point in found["curves"][0]] == [3, 6]
    assert not any(row["reached"] for row in found["rows"])
    assert found == json.loads((tmp_path / "study/study.json").read_text()) | {
        "curves": found["curves"]
    }
    assert (tmp_path / "study/study.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "study/study.svg").read_text()
    for seed in (0, 1):
        run = Run.open(tmp_path / f"study/seed-{seed}")
        assert run.config["task"] == name and run.config["settings"]["seed"] == seed
        assert (run.path / "curves.png").is_file()


def test_training_ends_at_the_goal_and_is_the_same_for_the_same_seed(tmp_path):
    settings = Copy.Settings(length=5, hidden=64, updates=400)
    found = [train_all(Copy, settings, [0], tmp_path / name) for name in "ab"]
    (row,) = found[0]["rows"]
    assert row["reached"] and row["accuracy"] >= 0.99 and row["updates"] < 400
    assert found[0]["curves"] == found[1]["curves"]
    again = resume_all(Copy, tmp_path / "a", {})  # nothing is left to train
    assert again["rows"][0]["updates"] == row["updates"] and again["curves"] == found[0]["curves"]


def interrupted_at(monkeypatch, kind, update):
    """Ctrl-C comes while that update is made; updates are counted over all networks."""
    real, made = kind.loss, []

    def loss(self, model, batch, carry):
        if model.training and len(batch) == self.settings.batch:
            made.append(1)
            if len(made) == update:
                os.kill(os.getpid(), signal.SIGINT)
        return real(self, model, batch, carry)

    monkeypatch.setattr(kind, "loss", loss)


def test_ctrl_c_loses_nothing_and_resuming_gives_the_same(monkeypatch, tmp_path):
    settings = Adding.Settings(**TINY, length=10)
    whole = train_all(Adding, settings, [0, 1], tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted_at(patch, Adding, 6 + 5 + 2)  # each network's first update is rehearsed
        stopped = train_all(Adding, settings, [0, 1], tmp_path / "parts")
    assert stopped["interrupted"] and [row["seed"] for row in stopped["rows"]] == [0]
    assert json.loads((tmp_path / "parts/study.json").read_text())["interrupted"]
    found = resume_all(Adding, tmp_path / "parts", {})
    assert not found["interrupted"] and found["curves"] == whole["curves"]
    figures = [[row["mean_squared_error"] for row in f["rows"]] for f in (found, whole)]
    assert figures[0] == figures[1]


def test_interrupted_before_the_first_is_done_there_is_no_picture(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        interrupted_at(patch, Adding, 3)
        found = train_all(Adding, Adding.Settings(**TINY, length=10), [0, 1], tmp_path / "study")
    assert found["interrupted"] and not found["rows"]
    assert not (tmp_path / "study/study.png").exists()
    assert len(resume_all(Adding, tmp_path / "study", {})["rows"]) == 2


def test_more_updates_and_a_limit_of_time(tmp_path):
    settings = Adding.Settings(**TINY, length=10, seconds=1e-9)
    found = train_all(Adding, settings, [0], tmp_path / "study")
    assert [row["updates"] for row in found["rows"]] == [1]
    found = resume_all(Adding, tmp_path / "study", {"updates": 9, "seconds": 1e9})
    assert [row["updates"] for row in found["rows"]] == [9]
    assert json.loads((tmp_path / "study/study.json").read_text())["settings"]["updates"] == 9


def test_what_cannot_be_resumed_is_said(tmp_path):
    settings = Adding.Settings(**TINY, length=10)
    train_all(Adding, settings, [0], tmp_path / "study")
    with pytest.raises(ElmanError, match="is there already"):
        train_all(Adding, settings, [0], tmp_path / "study")
    with pytest.raises(InputError, match="`length` cannot change"):
        resume_all(Adding, tmp_path / "study", {"length": 20})
    with pytest.raises(ElmanError, match="a study of 'adding', expected 'copy'"):
        resume_all(Copy, tmp_path / "study", {})
    with pytest.raises(ElmanError, match="no study"):
        resume_all(Copy, tmp_path / "none", {})
    with pytest.raises(InputError, match="different numbers"):
        train_all(Adding, settings, [1, 1], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_cannot_start_leaves_no_folder(tmp_path):
    with pytest.raises(InputError):
        train_all(Adding, Adding.Settings(cell="nosuch"), [0], tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_of_equals_the_last_is_kept(monkeypatch, tmp_path):
    """As for counting: to be right up to 50 is easy, and who trains on counts further."""
    monkeypatch.setattr(Adding, "measures", lambda self, sums: {"mean_squared_error": 1.0})
    train_all(Adding, Adding.Settings(**TINY, length=10), [0], tmp_path / "study")
    run = Run.open(tmp_path / "study/seed-0")
    assert len(run.metrics()) == 2
    for name, value in run.load_checkpoint()["model"].items():
        assert torch.equal(run.load_model()[name], value)
