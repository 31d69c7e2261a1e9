from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import ElmanError
from elman.training import storage
from elman.training.run import FORMAT, Run, free_folder

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(tree=trees)
def test_any_nesting_survives_a_checkpoint(tmp_path_factory, tree):
    run = Run.create(tmp_path_factory.mktemp("r") / "run", {})
    tensor = torch.randn(3, dtype=torch.float64)
    run.save_checkpoint({"tree": tree, 0: [tensor, (tensor.long(), None)]})
    back = run.load_checkpoint()
    assert back["tree"] == tree
    assert torch.equal(back[0][0], tensor)
    assert torch.equal(back[0][1][0], tensor.long())
    assert isinstance(back[0][1], tuple)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    storage.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ElmanError, match=r"No space left on device.*untouched"):
        storage.write_json(path, {"a": 2})
    assert storage.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["f.json"]


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
    with pytest.raises(ElmanError, match=r"damaged: 'data' is None"):
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
