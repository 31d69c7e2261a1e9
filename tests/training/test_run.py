from __future__ import annotations

import os

import pytest
import torch

from elman.errors import ElmanError
from elman.training import storage
from elman.training.run import FORMAT, Run, free_folder


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_metrics_on_a_full_disk(tmp_path):
    run = Run.create(tmp_path / "run", {})
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(ElmanError, match=r"metrics.jsonl could not be written \(No space"):
        run.add_metrics({"epoch": 1})


def test_opening_what_is_not_a_run(tmp_path):
    with pytest.raises(ElmanError, match="no run"):
        Run.open(tmp_path / "none")
    with pytest.raises(ElmanError, match=r"config.json is missing"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ElmanError, match=r"config.json is damaged"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}')
    with pytest.raises(ElmanError, match="not that of a run"):
        Run.open(tmp_path)
    storage.write_json(tmp_path / "config.json", {"format": FORMAT + 1, "elman": "9.0"})
    with pytest.raises(ElmanError, match=r"written by elman 9.0 in format 2.*reads format 1"):
        Run.open(tmp_path)
    storage.write_json(tmp_path / "config.json", {"format": FORMAT, "task": "x"})
    with pytest.raises(ElmanError, match=r"damaged \(.*'data' is missing"):
        Run.open(tmp_path)


def test_damaged_weights_and_checkpoints(tmp_path):
    run = Run.create(tmp_path / "run", {})
    with pytest.raises(ElmanError, match="no checkpoint to resume from"):
        run.load_checkpoint()
    with pytest.raises(ElmanError, match=r"model.safetensors is missing"):
        run.load_model()
    run.save_checkpoint({"a": torch.ones(100)})
    file = run.path / "checkpoint" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ElmanError, match="is damaged"):
        run.load_checkpoint()
    # A pickle is refused as damaged, never loaded.
    torch.save({"a": 1}, run.path / "model.safetensors")
    with pytest.raises(ElmanError, match="is damaged"):
        run.load_model()


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    Run.create(tmp_path / "run", {})
    with pytest.raises(ElmanError, match="is there already"):
        Run.create(tmp_path / "run", {})
    assert free_folder("run", tmp_path) == tmp_path / "run-2"


def test_forgetting_what_comes_after_the_checkpoint(tmp_path):
    run = Run.create(tmp_path / "run", {})
    for epoch in (1, 2, 3):
        run.add_metrics({"epoch": epoch})
        run.add_sample(epoch, f"text\n== {epoch} ==\nmore")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4')  # killed while writing
    run.forget_after(2)
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    samples = (run.path / "samples.txt").read_text()
    assert samples.count("== epoch") == 2
    assert samples.count("more") == 2
