"""Translation: its score is sacrebleu's, its verb translates, its picture is drawn."""

from __future__ import annotations

import json

import pytest
import sacrebleu

from elman import cli
from elman.tasks.translate import Translator

LINES = [
    ("Ein Hund.", "A dog."), ("Zwei Hunde rennen!", "Two dogs run!"), ("Ein Mann", "A man"),
    ("Der Mann rennt und rennt", "The man runs and runs"), ("Hunde", "Dogs"),
    ("Ein Hund und ein Mann", "A dog and a man"), ("zwei", "two"),
    ("Der Hund rennt", "The dog runs"),
]  # fmt: skip
SMALL = {"tokens": "word", "cell": "gru", "hidden": 8, "batch": 3, "validation": 0.25, "epochs": 2}


@pytest.fixture
def data(tmp_path):
    for side, name in enumerate(("train.de", "train.en")):
        (tmp_path / name).write_text("\n".join(line[side] for line in LINES * 3) + "\n")
    return [str(tmp_path / name) for name in ("train.de", "train.en")]


@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_is_that_of_the_whole_whatever_the_batches(data, lowercase):
    task = Translator.create(data, Translator.Settings.of(SMALL, {"lowercase": lowercase}))
    references = [target for _, target in LINES]
    written = [target.replace("run", "RUN").replace("man", "Dog") for target in references]
    sums = {"loss": 1.0, "count": 1}
    for begin in (0, 3, 4):
        some = slice(begin, {0: 3, 3: 4, 4: 8}[begin])
        for name, value in task.judge(written[some], references[some]).items():
            sums[name] = sums.get(name, 0) + value
    whole = sacrebleu.corpus_bleu(written, [references], lowercase=lowercase)
    assert 10 < whole.score < 90
    assert task.measures(sums)["bleu"] == pytest.approx(whole.score, rel=1e-12)


def test_what_evaluate_says_is_the_score_of_what_a_beam_writes(data):
    task = Translator.train(data, **SMALL)
    pairs = task.records("validation")
    found = [
        each["translation"]
        for each in task.translate([p.source for p in pairs], beam=3, length_penalty=1.0)
    ]
    measures = task.evaluate(beam=3, length_penalty=1.0)
    bleu = sacrebleu.corpus_bleu(found, [[pair.target for pair in pairs]])
    assert measures["bleu"] == pytest.approx(bleu.score, rel=1e-12)
    assert "tok:13a" in measures["signature"]


def test_chinese_is_scored_by_its_characters(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a dog\t一只狗。\na man\t一个男人。\n" * 4, encoding="utf-8")
    settings = {**SMALL, "target_tokens": "character"}
    task = Translator.create([str(path)], Translator.Settings.of(settings))
    assert task.settings.language == "zh"
    sums = task.judge(["一只狗。"], ["一只狗。"])
    assert sums["written words"] == 4
    assert "tok:zh" in str(task.bleu.get_signature())


def test_the_command_translates(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    assert cli.run(["train", "translate", *data, *options, "--run", "run"]) == 0
    capsys.readouterr()
    assert (
        cli.run(["translate", "run", "Ein Hund", "", "--n-best", "2", "--beam", "2", "--json"]) == 0
    )
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(first["translations"]) == 2
    assert second == {"translations": [""]}
    assert cli.run(["translate", "run", "Ein Hund", "--plot", "see.png", "--with", "run"]) == 0
    assert (tmp_path / "see.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert cli.run(["translate", "run", "Ein Hund", "Hunde", "--plot", "see.png"]) == 2
    assert "--plot draws one input, received 2" in capsys.readouterr().err
