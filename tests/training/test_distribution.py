"""Two processes give what one does with twice the batch; what befalls one ends both with a word."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import elman
from elman.training.run import Run

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


def test_one_folder_written_by_one(folder, two):
    lines = Run.open(folder / "a text 2").metrics()
    assert [line["epoch"] for line in lines] == [1, 2]
    assert not list(folder.glob(".*"))
