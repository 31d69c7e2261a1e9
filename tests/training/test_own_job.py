"""A job in one file of sixty lines goes through everything that a job goes through."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from elman import cli
from elman.tasks import TASKS, open_run, restore
from elman.training.run import Run

FILE = Path(__file__).with_name("own_job.py")
RUN = ["--hidden", "8", "--batch", "20", "--epochs", "6", "--cell", "rnn", "--dropout", "0.1"]
RUN += ["--learning-rate", "0.03"]


@pytest.fixture(scope="module")
def job():
    found = importlib.util.spec_from_file_location("own_job", FILE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.Tones


@pytest.fixture(autouse=True)
def _registered(job, monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "tones", job)
    monkeypatch.chdir(tmp_path)


def _typed(capsys, *words):
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_it_has_sixty_lines_at_most():
    assert len(FILE.read_text().splitlines()) <= 60


def test_it_trains_evaluates_and_answers(capsys):
    code, out, _ = _typed(capsys, "train", "tones", *RUN, "--run", "run", "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures["accuracy"] >= 0.8
    assert figures["part"] == "held out"
    assert figures["sequences_per_second"] > 0
    lines = Run.open(Path("run")).metrics()
    # The best epoch's weights are kept: the most accurate's, not the least.
    best = max(line["validation_accuracy"] for line in lines)
    assert figures["accuracy"] == pytest.approx(best)
    assert Path("run/curves.png").read_bytes().startswith(b"\x89PNG")

    code, out, _ = _typed(capsys, "evaluate", "run")
    assert code == 0
    assert out.splitlines()[0].split()[0] == "accuracy"

    high = " ".join(str(float(v)) for v in torch.sin(0.9 * torch.arange(20.0)))
    low = " ".join(str(float(v)) for v in torch.sin(0.3 * torch.arange(20.0)))
    code, out, _ = _typed(capsys, "predict", "run", high, low)
    assert (code, out.split()) == (0, ["high", "low"])
    code, out, _ = _typed(capsys, "predict", "run", high, "--json")
    assert json.loads(out) == {"tone": "high"}

    code, _, err = _typed(capsys, "evaluate", "run", "other.txt")
    assert code == 2
    assert "measured on its own data alone" in err


def test_ctrl_c_and_resuming_are_bit_for_bit(job, capsys, monkeypatch):
    _typed(capsys, "train", "tones", *RUN, "--run", "whole")
    real = job.loss

    def interrupting(self, model, batch, carry):
        loss = real(self, model, batch, carry)
        if model.training:
            monkeypatch.setattr(job, "count", getattr(job, "count", 0) + 1, raising=False)
            if job.count == 9:  # the rehearsal was the first: the eighth of 18 updates
                os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(job, "loss", interrupting)
    code, _, err = _typed(capsys, "train", "tones", *RUN, "--run", "parts")
    assert code == 1
    assert "interrupted after 8 updates, all of it kept: go on with" in err
    torch.manual_seed(123)
    assert _typed(capsys, "train", "tones", "--resume", "parts")[0] == 0
    whole, parts = Run.open(Path("whole")), Run.open(Path("parts"))
    for name, tensor in whole.load_model().items():
        assert torch.equal(tensor, parts.load_model()[name]), name
    timed = ("seconds", "sequences_per_second")
    for a, b in zip(whole.metrics(), parts.metrics(), strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def test_cells_are_compared_the_better_the_higher(capsys):
    words = ["--cells", "rnn,gru", "--hidden", "4", "--epochs", "2", "--run", "compared"]
    code, out, _ = _typed(capsys, "compare", "tones", *words)
    assert code == 0
    assert "accuracy" in out.splitlines()[0]
    assert Path("compared/comparison.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(Path("compared/comparison.json").read_text())["rows"]) == 2


def test_it_is_a_class_of_python_too(job):
    task = job.train([], hidden=4, epochs=2, batch=20, cell="rnn", run="run")
    again = open_run("run")
    assert task.evaluate()["accuracy"] == again.evaluate()["accuracy"]
    assert restore(Run.open(Path("run"))).parameters() == task.parameters()


def test_the_page_that_explains_it_shows_it_as_it_is():
    page = (FILE.parents[2] / "docs" / "add-a-job.md").read_text(encoding="utf-8")
    assert f"```python\n{FILE.read_text()}```" in page


MINE = """import torch
from elman import Affine, Cell
class Mine(Cell):
    state = ("h",)
    net = Affine("a")
    def step(self, z, h):
        return torch.tanh(z.a)
"""


@pytest.mark.parametrize("cells", ["rnn,gru", "mine.py:Mine,rnn"])
def test_a_comparison_that_was_interrupted_goes_on(job, capsys, monkeypatch, cells):
    Path("mine.py").write_text(MINE)
    words = ["--cells", cells, "--hidden", "4", "--epochs", "3"]
    assert _typed(capsys, "compare", "tones", *words, "--run", "whole")[0] == 0
    real, seen = job.measures, []

    def interrupting(self, sums):
        seen.append(1)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, sums)

    monkeypatch.setattr(job, "measures", interrupting)
    code, _, err = _typed(capsys, "compare", "tones", *words, "--run", "parts")
    assert code == 1
    assert "all of it kept: go on with --resume parts" in err
    again = ["--cells", cells] if "mine" in cells else []
    assert _typed(capsys, "compare", "tones", "--resume", "parts", *again)[0] == 0
    for cell in cells.split(","):
        whole, parts = (
            Run.open(Path(each) / f"{cell}-4").load_model() for each in ("whole", "parts")
        )
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert _typed(capsys, "compare", "tones", "--resume", "parts", "--epochs", "9")[0] == 2
