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
    with pytest.raises(ElmanError, match=r"written by elman 9.0 in format 3.*reads format 2"):
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


def test_what_a_job_gives_is_kept_by_name(tmp_path):
    run = Run.create(tmp_path / "run", {})
    text = tmp_path / "some.bin"
    text.write_bytes(b"\x00\xff" * 5)
    run.save_assets(
        {
            "labels": ["é", "界"], "nothing": None, "a.b": {"c": 1.5},
            "mean": torch.arange(3.0), "deviation": torch.ones((), dtype=torch.float64),
            "-": text, "dictionary.txt": text,
        }
    )  # fmt: skip
    found = Run(run.path, {}).load_assets()
    assert found["labels"] == ["é", "界"]
    assert found["nothing"] is None
    assert found["a.b"] == {"c": 1.5}
    torch.testing.assert_close(found["mean"], torch.arange(3.0), rtol=0, atol=0)
    assert found["deviation"].dtype == torch.float64
    text.unlink()  # the files are copies
    assert found["-"].read_bytes() == found["dictionary.txt"].read_bytes() == b"\x00\xff" * 5
    assert sorted(found) == sorted(
        ["labels", "nothing", "a.b", "mean", "deviation", "-", "dictionary.txt"]
    )
    # A file that is half-copied is none of them.
    (run.path / "assets" / ".dictionary.txt.copy").write_text("")
    assert sorted(run.load_assets()) == sorted(found)


def test_a_job_may_give_nothing(tmp_path):
    run = Run.create(tmp_path / "run", {})
    with pytest.raises(ElmanError, match=r"run/assets is missing: expected the folder of a run"):
        run.load_assets()
    run.save_assets({})
    assert run.load_assets() == {}
    with pytest.raises(ElmanError, match=r"'labels' is missing: restore it or train anew"):
        run.load_assets()["labels"]
    assert run.load_assets().get("labels") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.json", b"[1, "),
        ("labels.json", b"\xff"),
        ("tensors.safetensors", b"short"),
        ("tensors.safetensors", b""),
    ],
)
def test_damaged_assets(tmp_path, name, content):
    run = Run.create(tmp_path / "run", {})
    run.save_assets({"labels": [1], "mean": torch.ones(2)})
    (run.path / "assets" / name).write_bytes(content)
    with pytest.raises(ElmanError, match=rf"assets/{name} is damaged \(") as caught:
        run.load_assets()
    assert "\n" not in str(caught.value)


def test_an_asset_that_cannot_be_copied(tmp_path):
    run = Run.create(tmp_path / "run", {})
    with pytest.raises(ElmanError, match=r"assets/files/-.* could not be written \(No such file"):
        run.save_assets({"-": tmp_path / "none"})
    assert run.load_assets() == {}


CONFIG = {"task": "x", "data": ["y"], "settings": {}, "fingerprints": {"y": 1}}


def test_a_run_is_made_aside_and_moved_to_its_place(tmp_path):
    run = Run.begin(tmp_path / "made" / "for" / "run", CONFIG)
    run.save_model({"w": torch.ones(1)})
    assert not run.place.exists()
    assert run.place == tmp_path / "made" / "for" / "run"
    run.settle()
    assert run.path == run.place
    assert os.listdir(run.path.parent) == ["run"]
    assert Run.open(run.path).load_model()["w"] == 1
    # It is locked all the time.
    with pytest.raises(ElmanError, match="run is being trained already"):
        Run.open(run.path).lock()


def test_what_a_killed_process_was_making_is_made_again(tmp_path):
    killed = Run.begin(tmp_path / "run", CONFIG)
    killed.save_checkpoint({"a": 1})
    aside = killed.path
    (aside / ".config.json.abcdefgh").write_text("{")
    with pytest.raises(ElmanError, match="run is being made already"):
        Run.begin(tmp_path / "run", CONFIG)
    assert free_folder("run", tmp_path) == tmp_path / "run-2"
    assert killed.checkpoint.exists()
    killed.unlock()  # as the system does
    assert free_folder("run", tmp_path) == tmp_path / "run"
    run = Run.begin(tmp_path / "run", CONFIG)
    assert sorted(os.listdir(aside)) == ["checkpoint", "config.json"]
    assert os.listdir(aside / "checkpoint") == []
    run.settle()
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_that_came_meanwhile_is_not_touched(tmp_path):
    run = Run.begin(tmp_path / "run", CONFIG)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(ElmanError, match="run is there already"):
        run.settle()
    run.remove()
    assert os.listdir(tmp_path) == ["run"]
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"


def test_a_link_in_the_place_aside_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    (tmp_path / ".run.making").symlink_to("mine")
    with pytest.raises(ElmanError, match=r"\.run\.making is a link: delete it"):
        Run.begin(tmp_path / "run", CONFIG)
    assert os.listdir(tmp_path / "mine") == ["a.txt"]


def test_a_folder_that_moved_is_not_cleared(tmp_path, monkeypatch):
    """One process opens the place aside, another moves its run from there and ends."""
    other = Run.begin(tmp_path / "run", CONFIG)
    real = os.open

    def slow(path, *flags):
        folder = real(path, *flags)
        monkeypatch.setattr(os, "open", real)
        other.settle()
        other.unlock()
        return folder

    monkeypatch.setattr(os, "open", slow)
    monkeypatch.setattr("elman.training.run.refuse_existing", lambda path: None)
    with pytest.raises(ElmanError, match="is being made already"):
        Run.begin(tmp_path / "run", CONFIG)
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint", "config.json"]


def test_what_can_be_done_with_a_folder_that_is_there_is_said(tmp_path):
    path = tmp_path / "my run"
    path.mkdir()
    with pytest.raises(ElmanError, match="nothing in it can be gone on with: delete it, or name"):
        Run.begin(path, CONFIG)
    (path / "a.txt").write_text("mine")
    with pytest.raises(ElmanError, match="is there already: name another folder"):
        Run.begin(path, CONFIG)
    # As versions of elman left it that were killed while they made it.
    (path / "checkpoint").mkdir()
    with pytest.raises(ElmanError, match="nothing in it can be gone on with: delete it, or name"):
        Run.begin(path, CONFIG)
    (path / "checkpoint" / "state.safetensors").write_text("")
    with pytest.raises(ElmanError, match=r"go on with that run with `resume` '.*my run', or name"):
        Run.begin(path, CONFIG)


def test_a_run_in_a_folder_whose_name_is_not_utf8(tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    run = Run.create(place, {"task": "x", "data": ["y"], "settings": {}, "fingerprints": {"y": 1}})
    run.save_model({"a": torch.ones(3)})
    run.save_checkpoint({"a": torch.arange(3), "b": ("é", 1)})
    again = Run.open(place)
    assert torch.equal(again.load_model()["a"], torch.ones(3))
    kept = again.load_checkpoint()
    assert torch.equal(kept["a"], torch.arange(3)) and kept["b"] == ("é", 1)


def test_a_link_that_leads_nowhere_is_there_already(tmp_path):
    (tmp_path / "run").symlink_to("nowhere")
    with pytest.raises(ElmanError, match=r"run is there already: name another folder"):
        Run.begin(tmp_path / "run", {})


def test_links_in_what_a_killed_process_was_making_are_not_followed(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "book.txt").write_text("text")
    aside = tmp_path / ".run.making"
    aside.mkdir()
    (aside / "link").symlink_to(tmp_path / "texts")
    Run.create(tmp_path / "run", {})
    assert not (tmp_path / "run" / "link").exists()
    assert (tmp_path / "texts" / "book.txt").read_text() == "text"
