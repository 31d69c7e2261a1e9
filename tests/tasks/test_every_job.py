"""What holds for every job that is registered: none is there by half."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import fields

import pytest

from elman import cli
from elman.cli import program
from elman.cli.options import flag
from elman.data.corpora import CORPORA
from elman.errors import InputError
from elman.tasks import TASKS
from elman.training import start as training
from elman.training.measures import Measure
from elman.training.task import Task


@pytest.fixture(params=list(TASKS))
def job(request):
    return TASKS[request.param]


@pytest.fixture
def example(job, monkeypatch):
    """The data and the settings that the job's example would train on and with."""
    started = []

    def start(task, data, settings, run, report):
        started.append((task, data, settings))
        raise InputError("this is far enough.")

    monkeypatch.setattr(training, "start", start)
    assert cli.run(["train", job.name, *shlex.split(job.example)]) == 2
    ((task, data, settings),) = started
    assert task is job
    return data, settings


def test_its_entry_is_what_its_class_says(job):
    entry = TASKS.entries()[job.name]
    assert (entry.module, entry.name) == (job.__module__, job.__name__)
    assert entry.summary == job.summary() == inspect.getdoc(job).splitlines()[0]
    assert {verb.name: verb.help for verb in job.verbs} == entry.verbs
    assert entry.summary.endswith(".") and len(entry.summary) < 100


def test_it_says_all_that_a_job_must(job):
    assert not inspect.isabstract(job) and issubclass(job, Task)
    assert isinstance(job.headline, Measure)
    assert job.unit.endswith("s")
    for settings in (job.Settings, *(verb.Settings for verb in job.verbs)):
        settings()  # its defaults go together
        for declared in fields(settings):
            assert declared.metadata["help"].endswith((".", "…")), declared.name


def test_its_example_is_a_command(job, example):
    data, settings = example
    assert settings != job.Settings() and all(name in CORPORA for name in data)


def test_the_examples_of_its_verbs_are_commands(job):
    for verb in job.verbs:
        command = program.command().commands[verb.name]
        for line in verb.example.splitlines():
            given = command.make_context(verb.name, shlex.split(line)).params
            assert str(given["run"]) == shlex.split(line)[0]


def test_a_verb_of_several_jobs_has_one_help():
    helps = {}
    for name in TASKS:
        for verb in TASKS[name].verbs:
            assert helps.setdefault(verb.name, verb.help) == verb.help


def test_its_help_shows_what_it_is_and_what_it_can_be_told(job, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for command in ("train", "compare"):
        assert cli.run([command, job.name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert job.summary() in shown and f"elman {command} {job.name}" in shown
        apart = {"cell", "hidden"} if command == "compare" else ()
        for declared in fields(job.Settings):
            assert declared.name in apart or flag(declared.name) in shown


def test_data_that_is_not_there_is_said_in_one_sentence(
    job, example, tmp_path, capsys, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    makes_its_own = not example[0]
    for data in (["no-such.tsv"],) if makes_its_own else (["no-such.tsv"], []):
        assert cli.run(["train", job.name, *data, "--epochs", "1"]) in (1, 2)
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert said.endswith(".") and all(name in said for name in data)
    assert not list(tmp_path.iterdir())
