"""Two processes give what one does with twice the batch; what befalls one ends both with a word."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import elman
from elman.errors import InputError
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.distribution import Processes
from elman.training.run import Run
from elman.training.start import start

SCRIPT = Path(__file__).with_name("two_processes.py")
TEXT = "the quick brown fox jumps over the lazy dog. " * 12


def _environment():
    return {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("processes")
    (where / "book.txt").write_text(TEXT)
    (where / "other.txt").write_text("zebras quarrel. " * 20)
    return where


@pytest.fixture(scope="module")
def two(folder):
    """The losses of both processes, by training."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    done = subprocess.run(
        [*command, "--", str(SCRIPT), str(folder)],
        env=_environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"losses-{rank}").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def script():
    found = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


NAMES = ["a text", "two texts, clipped, decaying", "by RTRL", "accumulated", "a job of one's own"]


@pytest.mark.parametrize("name", NAMES)
def test_they_give_the_losses_of_one_with_twice_the_batch(folder, two, script, name):
    assert set(NAMES) == set(script.TRAININGS)
    with elman.engine("reference"):
        alone = script.losses(name, folder, 6, 1)
    assert len(alone) > 4
    assert two[0][name] == two[1][name]
    assert two[0][name] == pytest.approx(alone, rel=1e-6)
    # The weights, too: nothing is averaged that should be summed.
    kept = [Run.open(folder / f"{name} {processes}").load_model() for processes in (1, 2)]
    for weight in kept[0]:
        torch.testing.assert_close(kept[0][weight], kept[1][weight], rtol=1e-9, atol=1e-9)


def test_ctrl_c_in_one_of_them_and_resuming_are_bit_for_bit(two):
    assert two[0]["resumed"] is two[1]["resumed"] is True


def test_one_folder_written_by_one(folder, two):
    lines = Run.open(folder / "a text 2").metrics()
    assert [line["epoch"] for line in lines] == [1, 2]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("part", ["data", "validation_data"])
def test_standard_input_is_for_one_process(part, tmp_path, monkeypatch):
    """Each of several would read a piece of it."""
    monkeypatch.setattr(Processes, "several", True)
    settings = LanguageModelSettings.of({} if part == "data" else {part: ["-"]})
    data = ["-"] if part == "data" else ["book.txt"]
    with pytest.raises(InputError, match="standard input"):
        start(LanguageModeling, data, settings, tmp_path / "run")


@pytest.fixture
def begin(folder):
    """Begin ``elman train language-model …`` in a group of processes that ends with the test."""
    begun = []

    def begin(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "elman", "train", "language-model", *words],
            cwd=folder, env=_environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        begun.append(process)
        return process

    yield begin
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


LONG = ["book.txt", "--cell", "rnn", "--hidden", "4", "--batch", "2", "--steps", "5"]
LONG += ["--epochs", "100000", "--device", "cpu", "--devices", "2", "--save-every", "0.2"]


def _until_it_trains(process, path):
    """Wait for the third epoch; the numbers of both processes, the first one's first."""
    metrics = path / "metrics.jsonl"
    ends = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [process.pid, *map(int, children)]


def test_ctrl_c_ends_both_and_they_go_on_together(folder, begin):
    process = begin(*LONG, "--run", "stopped")
    _until_it_trains(process, folder / "stopped")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "interrupted after" in err
    assert "Traceback" not in err
    update = Run.open(folder / "stopped").load_checkpoint()["position"]["update"]
    more = begin("--resume", "stopped", "--seconds", "0.1", "--json")
    _, err = more.communicate(timeout=120)
    assert more.returncode in (0, 2), err  # 2: it had trained for longer already
    fewer = begin("--resume", "stopped", "--devices", "1")
    _, err = fewer.communicate(timeout=60)
    assert fewer.returncode == 1
    assert "it was trained by 2 processes" in err
    assert update > 0


def test_where_one_is_killed_the_other_says_so_and_ends(folder, begin):
    process = begin(*LONG, "--run", "killed")
    _, second = _until_it_trains(process, folder / "killed")
    os.kill(second, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in err
    run = Run.open(folder / "killed")
    checkpoint = run.load_checkpoint()
    assert checkpoint["position"]["update"] > 0
    at = checkpoint["position"]
    assert run.load_share(1, f"{at['epoch']}-{at['window']}-{at['update']}")["sums"]
