"""The commands of benchmarks/studies.md ask for what their recorded results were made with."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from elman import cli
from elman.errors import ElmanError
from elman.studies import STUDIES, TrainedStudy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TEXT = " ".join((BENCHMARKS / "studies.md").read_text(encoding="utf-8").split())
COMMANDS = sorted(set(re.findall(r"`elman (study [^`]+)`", TEXT)))
RECORDED = re.findall(r"`elman (study [^`]+)`(?: \([^)]*\))?:? → \[[^]]*\]\(([^)]*)\)", TEXT)


def asked(command, monkeypatch):
    """What would be trained: the study, its settings, the seeds."""
    found = []

    def train_all(kind, settings, seeds, folder, report):
        found.append((kind, settings, seeds))
        raise ElmanError("it would train now")

    def run(self, report):
        found.append((type(self), self.settings, []))
        raise ElmanError("it would be computed now")

    monkeypatch.setattr("elman.studies.series.train_all", train_all)
    for kind in STUDIES.values():
        if not issubclass(kind, TrainedStudy):
            monkeypatch.setattr(kind, "run", run)
    assert cli.run(shlex.split(command)) == 1
    return found[0]


def test_there_are_commands_and_results():
    results = {path.name for path in (BENCHMARKS / "results").glob("studies-*.json")}
    linked = set(re.findall(r"\(results/(studies-[^)]*)\)", TEXT))
    assert linked == results
    assert len(COMMANDS) > 20 and len(RECORDED) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    kind, _, _ = asked(command, monkeypatch)
    assert kind.name == command.split()[1]


@pytest.mark.parametrize(("command", "result"), RECORDED)
def test_a_result_has_the_settings_of_its_command(command, result, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    kind, settings, seeds = asked(command, monkeypatch)
    recorded = json.loads((BENCHMARKS / result).read_text(encoding="utf-8"))
    assert recorded["study"] == kind.name
    given, now = recorded["settings"], settings.to_json()
    varied = {"seeds", "seed"}  # which networks, not how each is trained
    if given.get("hidden_sizes"):
        varied |= {"layers", "hidden"}  # which are not read then
    assert {k: v for k, v in given.items() if k not in varied} == {
        k: now[k] for k in given if k not in varied
    }
    trained = [row["seed"] for row in recorded["rows"] if row.get("model") not in BASELINES]
    assert sorted(set(trained)) == sorted(seeds)


BASELINES = ("echo state", "linear")
