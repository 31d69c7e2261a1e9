"""What trained models answer: typed, from a file, into a file, together, and after a break."""

from __future__ import annotations

import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from elman import cli
from elman.errors import InputError
from elman.tasks import TASKS, open_run
from elman.training.settings import Settings, option
from elman.training.task import Verb

OWN_JOB = Path(__file__).parents[2] / "training" / "own_job.py"
INPUTS = [f"{k % 3} 0.5 {k % 5} 1" for k in range(30)]


@pytest.fixture(scope="module")
def job():
    found = importlib.util.spec_from_file_location("own_job", OWN_JOB)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.Tones


@pytest.fixture(scope="module")
def runs(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        job.train([], run=folder / f"{seed}", hidden=4, epochs=1, cell="rnn", seed=seed)
    return folder


@pytest.fixture(autouse=True)
def _registered(job, monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "tones", job)
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("\n".join(INPUTS) + "\n")


def _typed(capsys, *words):
    code = cli.run([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def _answers(path="out.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_file_is_answered_line_by_line_in_order(runs, capsys):
    code, out, _ = _typed(capsys, "predict", runs / "0", *INPUTS, "--json")
    typed = [json.loads(line) for line in out.splitlines()]
    code, out, err = _typed(
        capsys, "predict", runs / "0", "--file", "in.txt", "--output", "out.jsonl"
    )
    assert (code, out) == (0, "") and "inputs/s" in err
    assert _answers() == typed and len(typed) == 30
    assert not Path("out.jsonl.part").exists()
    assert _typed(capsys, "predict", runs / "0", "--file", "in.txt")[1].split() == [
        each["tone"] for each in typed
    ]
    code, _, err = _typed(
        capsys, "predict", runs / "0", "--file", "in.txt", "--output", "out.jsonl"
    )
    assert code == 1 and "out.jsonl is there already" in err


@pytest.mark.parametrize("torn", ["", '{"tone": "hi'])
def test_what_was_interrupted_goes_on(runs, capsys, job, monkeypatch, torn):
    whole = job.verbs[0]

    def broken(task, inputs, settings):
        for k, answer in enumerate(whole.run(task, inputs, settings)):
            if k == 7:
                raise KeyboardInterrupt
            yield answer

    words = ("predict", runs / "0", "--file", "in.txt", "--output", "out.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(job, "verbs", (Verb(**{**vars(whole), "run": broken}),))
        code, _, err = _typed(capsys, *words)
    assert code == 1 and "interrupted after 7 of 30 inputs" in err
    with Path("out.jsonl.part").open("a") as part:
        part.write(torn)
    asked = []

    def counted(task, inputs, settings):
        asked.extend(inputs)
        return whole.run(task, inputs, settings)

    monkeypatch.setattr(job, "verbs", (Verb(**{**vars(whole), "run": counted}),))
    assert _typed(capsys, *words)[0] == 0
    assert asked == INPUTS[7:]
    assert _answers() == open_run(runs / "0").predict(INPUTS)


def test_a_part_of_something_else_is_refused(runs, capsys):
    words = ("predict", runs / "0", "--file", "in.txt", "--output", "out.jsonl")
    Path("out.jsonl.part").write_text('{"answers to": 1}\n{"tone": "low"}\n')
    code, _, err = _typed(capsys, *words)
    assert code == 1 and "has answers to other inputs, or of another model" in err
    assert len(Path("out.jsonl.part").read_text().splitlines()) == 2


def test_verbs_are_methods(runs):
    tones = open_run(runs / "0")
    assert tones.predict(INPUTS) == tones.do("predict", iter(INPUTS))
    with pytest.raises(AttributeError, match="has no attribute 'predicts'"):
        _ = tones.predicts
    with pytest.raises(InputError, match="tones cannot sing; it can: predict"):
        tones.do("sing")
    with pytest.raises(InputError, match=r"put it in \[ \]"):
        tones.predict("0 1")


def test_several_runs_answer_together(runs, capsys, job, monkeypatch):
    code, _, err = _typed(capsys, "predict", runs / "0", "1 0", "--with", runs / "1")
    assert code == 2 and "cannot predict together" in err  # tones answer alone
    seen = []

    def together(task, inputs, settings):
        seen.append([companion.settings.seed for companion in task.companions])
        return job_run(task, inputs, settings)

    job_run = job.verbs[0].run
    both = Verb(**{**vars(job.verbs[0]), "run": together, "together": True})
    monkeypatch.setattr(job, "verbs", (both,))
    assert _typed(capsys, "predict", runs / "0", "1 0", "--with", runs / "1")[0] == 0
    assert seen == [[1]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1 0", "--file", "in.txt"), "leave the one or the other out"),
        (("--file", "missing.txt"), "missing.txt"),
        (("--file", "empty.txt"), "empty.txt is empty, expected a line for each input"),
        (("1 0", "--output", "no/out.jsonl"), "no folder 'no' for out.jsonl: make it first"),
    ],
)
def test_what_cannot_be_asked_is_said(runs, capsys, words, message):
    Path("empty.txt").touch()
    code, out, err = _typed(capsys, "predict", runs / "0", *words)
    assert code in (1, 2) and out == "" and message in err and "Traceback" not in err


def test_a_job_that_converses_asks_for_a_line_at_a_time(runs, capsys, job, monkeypatch):
    asking = Verb(**{**vars(job.verbs[0]), "asks": "> "})
    monkeypatch.setattr(job, "verbs", (asking,))
    typed = io.StringIO("0 1\n1 1\n")
    typed.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", typed)
    code, out, err = _typed(capsys, "predict", runs / "0")
    assert code == 0 and len(out.split()) == 2 and err.count("> ") == 3


def test_what_draws_goes_on_with_its_seed(runs, capsys, job, monkeypatch):
    @dataclass
    class Drawing(Settings):
        seed: int | None = option(None, "Fixes the draws.")

    def draw(task, inputs, settings):
        for k, _ in enumerate(inputs):
            if k == 5 and interrupted:
                raise KeyboardInterrupt
            yield {"seed": settings.seed}

    drawing = Verb(**{**vars(job.verbs[0]), "run": draw, "Settings": Drawing})
    monkeypatch.setattr(job, "verbs", (drawing,))
    words = ("predict", runs / "0", "--file", "in.txt", "--output", "out.jsonl")
    interrupted = True
    assert _typed(capsys, *words)[0] == 1
    interrupted = False
    assert _typed(capsys, *words)[0] == 0
    assert len({answer["seed"] for answer in _answers()}) == 1 and len(_answers()) == 30


def test_a_part_without_answers_is_begun_anew(runs, capsys):
    Path("out.jsonl.part").write_text('{"answers to": 1}\n')
    words = ("predict", runs / "0", "--file", "in.txt", "--output", "out.jsonl")
    assert _typed(capsys, *words)[0] == 0 and len(_answers()) == 30
