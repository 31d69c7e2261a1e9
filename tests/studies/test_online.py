from __future__ import annotations

import io
import json
import mmap
import os
import signal
import sys

import pytest
import torch

import elman
from elman import ElmanError, InputError, cli
from elman.cli.commands.learning import print_rules
from elman.learning import RTRL, RULES
from elman.plots.learning_rules import draw_rules
from elman.studies import online
from elman.studies.online import OnlineSettings, compare_rules, learn
from elman.training.memory import Memory


@pytest.fixture(autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


@pytest.fixture
def together(monkeypatch):
    """Run every rule in this process: a process of its own takes seconds to start."""
    monkeypatch.setattr(online, "_alone", lambda function, *arguments: function(*arguments))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_learns(name, tmp_path):
    settings = OnlineSettings(hidden=8, steps=1500, update=10, sequence=50, learning_rate=0.02)
    learned = learn(name, "mackey-glass", settings, tmp_path / "run")
    assert learned["failed"] is None
    assert learned["steps"] == 1500
    assert learned["curve"][-1]["step"] == 1500
    assert learned["error"] < 0.8 * learned["curve"][0]["error"]
    assert [p["step"] for p in learned["curve"]] == sorted({p["step"] for p in learned["curve"]})


def test_the_curve_is_the_error_before_learning(tmp_path):
    # With no learning to speak of, the errors are those of the fresh network, window by window.
    settings = OnlineSettings(hidden=4, steps=90, update=7, learning_rate=1e-12)
    learned = learn("rtrl", "mackey-glass", settings, tmp_path / "run")
    stream = online.open_endless("mackey-glass")
    model = online.Online.create(["mackey-glass"], settings).model
    rule = RTRL(model["network"], lambda y, target: stream.loss(model["head"](y), target))
    x, target = next(stream.windows(1, 91))
    whole = stream.measure(rule.gradients(x, target).item())
    errors = torch.tensor([p["error"] for p in learned["curve"]])
    assert len(errors) == 13
    assert torch.allclose(errors.square().mean().sqrt(), torch.tensor(whole), rtol=1e-4)


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    settings = OnlineSettings(hidden=4, steps=60, update=3)
    runs = [tmp_path / "a", tmp_path / "b"]
    curves = [learn("uoro", "mackey-glass", settings, run)["curve"] for run in runs]
    assert [p["error"] for p in curves[0]] == [p["error"] for p in curves[1]]


def test_a_comparison_keeps_table_curves_and_what_could_not_be(together, tmp_path, capsys):
    settings = OnlineSettings(cell="lstm-projected", hidden=4, steps=40, update=4)
    compared = compare_rules(["tbptt", "snap1"], "mackey-glass", settings, tmp_path / "run")
    assert "acts on neither the input nor a state" in compared["rows"][1]["failed"]
    assert json.loads((tmp_path / "run" / "comparison.json").read_text()) == compared
    assert (tmp_path / "run" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "run" / "comparison.svg").read_bytes()
    print_rules(compared)
    shown = capsys.readouterr().out
    assert "tbptt" in shown
    assert "Use RTRL or UORO" in shown


def test_what_diverges_is_said(together, tmp_path, capsys):
    settings = OnlineSettings(
        cell="rnn-relu", hidden=4, steps=400, optimizer="sgd", learning_rate=1e30, clip_norm=0
    )
    learned = learn("rtrl", "mackey-glass", settings, tmp_path / "run")
    assert "diverged" in learned["failed"]
    draw_rules({"rows": [learned], "data": "", "measure": "error", "settings": settings.to_json()},
         tmp_path / "drawn.png")  # fmt: skip


def test_the_command(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--learning", "rtrl", "--steps", "60", "--update", "5", "--hidden", "4"]
    assert cli.run(["compare-learning", *options, "--run", str(run), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in compared["rows"]] == ["rtrl"]
    assert all(row["steps"] == 60 and row["failed"] is None for row in compared["rows"])
    assert cli.run(["compare-learning", *options, "--run", str(run)]) == 1
    assert "name another folder" in capsys.readouterr().err


def test_the_command_on_standard_input(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the quick brown fox " * 9)))
    wild = ["--cell", "rnn-relu", "--optimizer", "sgd", "--learning-rate", "1e30"]
    wild += ["--clip-norm", "0", "--steps", "400", "--hidden", "4", "--learning", "rtrl"]
    assert cli.run(["compare-learning", "-", *wild]) == 0
    out = capsys.readouterr().out
    assert "steps: lower --learning-rate" in out
    assert (tmp_path / "runs" / "compare-learning-stdin" / "comparison.json").is_file()


@pytest.mark.parametrize("name", ["rtrl", "tbptt"])
def test_a_rule_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch, name):
    """In the midst between two points of its curve, and at one of them."""
    settings = OnlineSettings(hidden=4, steps=300, update=2, reach=5)
    whole = learn(name, "mackey-glass", settings, tmp_path / "whole")
    for stop in (31, 33):
        real = online.Online.measures

        def stopping(self, sums, stop=stop, real=real, seen=[]):  # noqa: B006
            seen.append(1)
            if len(seen) == stop:
                os.kill(os.getpid(), signal.SIGINT)
            return real(self, sums)

        monkeypatch.setattr(online.Online, "measures", stopping)
        stopped = learn(name, "mackey-glass", settings, tmp_path / f"parts{stop}")
        assert "interrupted after" in stopped["failed"]
        monkeypatch.setattr(online.Online, "measures", real)
        again = learn(name, "mackey-glass", settings, tmp_path / f"parts{stop}")
        assert [p["error"] for p in again["curve"]] == [p["error"] for p in whole["curve"]]


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    for options, message, code in (
        (["--learning", "rtrl,magic"], "unknown rule 'magic'", 2),
        (["--learning", "rtrl,rtrl"], "each rule can be compared once", 2),
        (["--hidden", "0"], "hidden", 2),
        (["no-such-book.txt"], "no-such-book", 1),
        (["--cell", "magic"], "unknown cell 'magic'", 2),
    ):
        assert cli.run(["compare-learning", *options, "--run", str(tmp_path / "run")]) == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError):
        OnlineSettings(reach=0)
    with pytest.raises(ElmanError, match="is there already"):
        compare_rules(["rtrl"], "mackey-glass", OnlineSettings(), tmp_path)


def test_memory_sees_what_is_taken_and_given_back():
    memory = Memory()
    if memory.now() is None:
        pytest.skip("the resident memory of a process is read on Linux alone")
    # Of the system itself: what a test before has freed may be kept, and be taken again.
    taken = mmap.mmap(-1, 40_000_000)
    taken.write(b"1" * len(taken))
    assert 35e6 < memory.now() < 100e6
    taken.close()
    assert memory.peak() > 35e6
    assert Memory().peak() < 5e6
