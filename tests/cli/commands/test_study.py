"""The command of the studies."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from elman import cli
from elman.studies import STUDIES

COLUMNS = ["seed", "updates", "seconds", "cpu", "mean_squared_error", "reached"]


def words(text):
    """A command as it is typed."""
    return shlex.split(text)


@pytest.fixture
def elman(capsys, tmp_path, monkeypatch):
    """Run a command; give its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_all_are_listed(elman):
    code, out, _ = elman("study")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", *STUDIES]
    assert [row["name"] for row in json.loads(elman("study", "--json")[1])] == list(STUDIES)


def test_a_training_leaves_table_figures_and_plot(elman):
    small = [
        "--hidden",
        "4",
        "--length",
        "10",
        "--updates",
        "4",
        "--every",
        "2",
        "--batch",
        "4",
        "--seeds",
        "2",
    ]
    code, out, errors = elman("study", "adding", *small, "--run", "here")
    assert code == 0, errors
    assert out.splitlines()[0].split() == [
        *["seed", "updates", "seconds", "cpu", "mean_squared_error", "reached"]
    ]
    found = json.loads(Path("here/study.json").read_text())
    assert found["study"] == "adding" and len(found["rows"]) == 2
    assert found["settings"]["length"] == 10
    assert Path("here/study.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("here/study.svg").read_text()
    code, _, errors = elman("study", "adding", *small, "--run", "here")
    assert code == 1 and "is there already" in errors


def test_turing_runs_a_machine_of_ones_own_and_prints_its_weights(elman):
    table = "go 0 → 1 R go\ngo 1 → 0 R go\ngo _ → _ L halt  # done"
    Path("flip.txt").write_text(table, encoding="utf-8")
    code, out, errors = elman(
        "study", "turing", "--machine", "flip.txt", "--word", "0110", "--weights"
    )
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["flip", "0110"] and "1001" in out and "yes" in out
    assert "[go,0].right' = σ(" in errors
    code, out, _ = elman("study", "turing", "--json")
    assert [row["steps"] for row in json.loads(out)["rows"]] == [8, 36, 107]


def test_what_is_wrong_is_said(elman):
    code, _, errors = elman("study", "turing", "--machine", "nosuch")
    assert code == 2 and "increment, palindrome, busy-beaver" in errors
    code, _, errors = elman("study", "adding", "--length", "0")
    assert code == 2 and "length must be at least 1" in errors
    code, _, errors = elman("study", "adding", "--cell", "nosuch")
    assert code == 2


def test_seeds_are_counted_or_named(elman):
    small = words("--hidden 2 --length 4 --updates 1 --batch 2")
    for given, seeds in (("--seed 4 --seeds 2", [4, 5]), ("--seed 7 --seed 3", [7, 3])):
        code, out, _ = elman("study", "adding", *small, *words(given), "--json")
        assert code == 0 and json.loads(out)["seeds"] == seeds
        folder = Path(json.loads(out)["folder"])
        assert sorted(p.name for p in folder.glob("seed-*")) == sorted(f"seed-{k}" for k in seeds)
    code, _, errors = elman("study", "adding", *small, *words("--seed 1 --seed 2 --seeds 3"))
    assert code == 2 and "--seeds counts from one --seed" in errors
    code, _, errors = elman("study", "adding", *small, "--seed", "one")
    assert code == 2 and "seed must be an integer, received 'one'" in errors


def test_a_study_is_resumed(elman):
    small = [
        "--hidden",
        "2",
        "--length",
        "4",
        "--updates",
        "4",
        "--every",
        "2",
        "--batch",
        "2",
        "--seeds",
        "2",
    ]
    assert elman("study", "adding", *small, "--run", "here")[0] == 0
    code, out, _ = elman("study", "adding", "--resume", "here", "--updates", "8", "--json")
    assert code == 0 and [row["updates"] for row in json.loads(out)["rows"]] == [8, 8]
    code, _, errors = elman("study", "adding", "--resume", "here", "--length", "5")
    assert code == 2 and "--length cannot change when a study is resumed" in errors
    code, _, errors = elman("study", "adding", "--resume", "here", "--seeds", "3")
    assert code == 2 and "--seeds, --seed and --run cannot change" in errors
    code, _, errors = elman("study", "copy", "--resume", "here")
    assert code == 1 and "a study of 'adding', expected 'copy'" in errors
