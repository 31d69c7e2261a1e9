"""Classifying texts and sequences of numbers: what is learned, told, refused and kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics

from elman import cli
from elman.data.labelled import Labelled
from elman.data.place import Place
from elman.errors import ElmanError, InputError
from elman.tasks import open_run
from elman.tasks.classify.task import Classify, ClassifySettings

GOOD, BAD = ["fine", "lovely", "great"], ["poor", "dull", "awful"]
SMALL = {"hidden": 8, "embedding": 6, "epochs": 4, "batch": 8, "learning_rate": 0.03, "cell": "gru"}


def sentences(count, seed=0):
    draw = np.random.default_rng(seed)
    for k in range(count):
        words = ["a", "film", "of", "the", "year"] * 2
        words = [*draw.permutation(words)[: 2 + k % 7]]
        words.insert(k % len(words), str(draw.choice([GOOD, BAD][k % 2])))
        yield " ".join(words), ["good", "bad"][k % 2]


def scores(job, inputs):
    """What a job's model, or several as one, make of inputs in one batch."""
    records = [Labelled(each, None, Place("inputs", k)) for k, each in enumerate(inputs)]
    return job.scores(job.model, job.collate(list(job.read(records, labelled=False))))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in sentences(60)))
    return str(path)


@pytest.fixture
def waves(tmp_path):
    """Sines of one or of two features whose frequency is a class, and a number."""
    draw = np.random.default_rng(1)
    kinds = np.arange(48) % 3
    steps = np.arange(12)[None, :, None]
    x = np.sin(steps * (0.3 + 0.4 * kinds)[:, None, None] + draw.uniform(0, 6, (48, 1, 2)))
    np.savez(tmp_path / "waves.npz", X=5 + 3 * x, y=kinds, lengths=8 + np.arange(48) % 5)
    np.savez(tmp_path / "numbers.npz", X=x, y=10 + 0.5 * kinds)
    return tmp_path


def test_a_table_of_texts_is_learned(table, tmp_path, capsys):
    words = ["train", "classify", table, "--run", str(tmp_path / "run"), "--json"]
    words += [
        w for name, value in SMALL.items() for w in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert cli.run(words) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["accuracy"] == 1.0 and figures["part"] == "held out"
    assert figures["labels"]["good"]["support"] + figures["labels"]["bad"]["support"] == 6
    assert figures["confusion"]["good"] == {"bad": 0, "good": 3}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert 0 <= lines[0]["padding"] < 0.5
    job = open_run(tmp_path / "run")
    told = job.predict(["the film was awful", "lovely", "unheard of words", ""])
    assert [each["label"] for each in told[:2]] == ["bad", "good"]
    assert all(0.5 <= each["confidence"] <= 1 for each in told)
    shares = job.predict(["fine"], probabilities=True)[0]["probabilities"]
    assert list(shares) == ["bad", "good"] and math.isclose(sum(shares.values()), 1, rel_tol=1e-6)
    assert (
        cli.run(["evaluate", str(tmp_path / "run"), table, "--plot", str(tmp_path / "c.png")]) == 0
    )
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "precision" in capsys.readouterr().out


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("characters", ["none", "conv"])
def test_a_prediction_is_its_own(table, pooling, characters):
    settings = ClassifySettings(
        pooling=pooling, characters=characters, layers=2, **{**SMALL, "epochs": 1}
    )
    job = Classify.create([table], settings)
    job.model.double().eval()
    texts = [text for text, _ in sentences(20, seed=3)] + [""]
    together = scores(job, texts)
    for k, text in enumerate(texts):
        alone = scores(job, [text])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-12, atol=1e-12)


def test_what_stands_past_the_end_has_no_part(waves):
    job = Classify.create([str(waves / "waves.npz")], ClassifySettings(**{**SMALL, "batch": 32}))
    batch = next(iter(job.batches("train")))
    ((inputs, lengths),) = batch.inputs
    assert len(set(lengths.tolist())) > 1
    expected = job.loss(job.model, batch, None)
    poisoned = inputs.clone()
    for k, length in enumerate(lengths):
        poisoned[length:, k] = math.nan
    found = job.loss(job.model, batch._replace(inputs=((poisoned, lengths),)), None)
    gradients = torch.autograd.grad(found.value, list(job.model.parameters()), allow_unused=True)
    assert torch.equal(found.value, expected.value)
    assert all(g is None or g.isfinite().all() for g in gradients)


def test_numbers_are_scaled_by_what_is_learned_from(waves, tmp_path):
    run = tmp_path / "run"
    job = Classify.train(
        [str(waves / "waves.npz")], run=run, **{**SMALL, "hidden": 16, "epochs": 8}
    )
    train = np.concatenate([r.input for r in job.parts["train"]])
    np.testing.assert_allclose(job.model.reader.mean, train.mean(0), rtol=1e-5)
    assert job.evaluate()["accuracy"] >= 0.75
    again = open_run(run)
    arrays = [record.input for record in job.parts["validation"]]
    assert again.predict(arrays) == job.predict(arrays)
    assert again.predict(again.inputs_of(waves / "waves.npz"))[0]["label"] in "012"
    with pytest.raises(InputError, match=r"input 1: received a text, expected numbers \(T, 2\)"):
        job.predict(["a text"])


def test_a_number_is_foretold(waves):
    job = Classify.create([str(waves / "numbers.npz")], ClassifySettings(regression=True, **SMALL))
    assert job.headline == ("rmse", False)
    batches = job.batches("validation")
    found = job.measure(job.model, batches)
    told = [each["number"] for each in job.predict(r.input for r in job.parts["validation"])]
    wanted = [float(r.label) for r in job.parts["validation"]]
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(wanted, told), rel=1e-5)
    assert found["r2"] == pytest.approx(metrics.r2_score(wanted, told), rel=1e-4, abs=1e-5)
    assert job.loss(job.model, next(iter(batches)), None).value < 5  # in standard deviations
    with pytest.raises(InputError, match="no picture"):
        job.draw_measures(found, waves / "a.png")


LONG = """id,time,x,y,label
a,1,0.4,0.7,circle
a,0,0.1,0.9,circle
b,0,0.3,0.2,square
c,0,0.2,0.8,circle
d,0,0.5,0.1,square
"""


def test_a_table_of_steps_is_learned_and_told_without_labels(tmp_path, capsys):
    (tmp_path / "shapes.csv").write_text(LONG)
    settings = {**SMALL, "epochs": 1, "validation": 0}
    job = Classify.train([str(tmp_path / "shapes.csv")], run=tmp_path / "run", **settings)
    np.testing.assert_array_equal(job.parts["train"][0].input, np.float32([[0.1, 0.9], [0.4, 0.7]]))
    without = [",".join(line.split(",")[:4]) for line in LONG.splitlines()]
    (tmp_path / "new.csv").write_text("\n".join(without))
    capsys.readouterr()
    assert cli.run(["predict", str(tmp_path / "run"), "--file", str(tmp_path / "new.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.split("\t")[0] in ("circle", "square") for line in lines)


@pytest.mark.parametrize("missing", ["", "nan", "?"])
def test_missing_numbers_are_refused_with_their_line(tmp_path, missing):
    path = tmp_path / "shapes.csv"
    path.write_text(LONG.replace("0.3", missing))
    with pytest.raises(ElmanError, match=r"shapes\.csv, line 4: x is '.*', expected a finite"):
        Classify.create([str(path)], ClassifySettings(**SMALL))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0.5, math.nan]], "input 2: received numbers that are missing"),
        ([0.5, 0.5], r"received numbers of the shape \(2,\), expected numbers \(T, 2\)"),
        ([[0.5, 0.5, 0.5]], r"of the shape \(1, 3\)"),
        ("a text", "received a text"),
    ],
)
def test_what_is_asked_must_be_like_what_was_learned(waves, given, message):
    job = Classify.create([str(waves / "waves.npz")], ClassifySettings(**SMALL))
    with pytest.raises(InputError, match=message):
        job.predict([[[0.5, 0.5]], given])


def test_texts_and_numbers_do_not_mix(table, waves):
    with pytest.raises(ElmanError, match=r"waves\.npz, sequence 1: received numbers"):
        Classify.create([table, str(waves / "waves.npz")], ClassifySettings(validation=0, **SMALL))


def test_classes_may_count_alike(tmp_path):
    path = tmp_path / "rare.tsv"
    path.write_text("text\tlabel\n" + "fine film\tgood\n" * 9 + "poor film\tbad\n" * 3)
    job = Classify.create(
        [str(path)], ClassifySettings(class_weights="balanced", validation=0, **SMALL)
    )
    weights = job.targets.weights
    torch.testing.assert_close(weights, torch.tensor([12 / (2 * 3), 12 / (2 * 9)]))
    batch = next(iter(job.batches("train")))
    each = torch.nn.functional.cross_entropy(
        job.model(*batch.inputs[0]), batch.targets, reduction="none"
    )
    expected = (each * weights[batch.targets]).mean()
    torch.testing.assert_close(job.loss(job.model, batch, None).value, expected)
    with pytest.raises(InputError, match="an effect only where `regression` is off"):
        ClassifySettings(class_weights="balanced", regression=True)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_class_that_is_held_out_alone_counts_as_wrong(tmp_path, caplog, weights):
    (tmp_path / "train.tsv").write_text("text\tlabel\nfine\tgood\ndull\tbad\n")
    (tmp_path / "test.tsv").write_text("text\tlabel\nfine\tgood\nso so\tmixed\n")
    own = {"test_data": [str(tmp_path / "test.tsv")], "validation": 0.0, "epochs": 20, "hidden": 4}
    own |= {"run": tmp_path / "run", "class_weights": weights, "learning_rate": 0.05}
    job = Classify.train([str(tmp_path / "train.tsv")], **own)
    assert "of the 3 classes, 1 is in what the model is judged by alone, such as 'mixed'" in (
        caplog.text
    )
    found = open_run(tmp_path / "run").evaluate()
    assert found == job.evaluate() | {"sequences_per_second": found["sequences_per_second"]}
    assert found["accuracy"] == 0.5 and math.isfinite(found["loss"])
    assert found["labels"]["mixed"]["recall"] == 0


def test_several_runs_answer_and_are_measured_as_their_average(table, tmp_path, capsys):
    """Also where they read the same texts differently."""
    jobs = [
        Classify.train([table], run=tmp_path / tokens, **{**SMALL, "epochs": 1, "tokens": tokens})
        for tokens in ("word", "character")
    ]
    records = jobs[0].parts["validation"]
    texts = [record.input for record in records]
    for job in jobs:
        job.model.eval()
    mean = sum(scores(job, texts).double().softmax(-1) for job in jobs).detach() / 2
    expected = [jobs[0].targets.of(record) for record in records]
    folders = [str(tmp_path / tokens) for tokens in ("word", "character")]
    capsys.readouterr()
    asked = ["predict", folders[0], "--with", folders[1], "--json", "--probabilities", *texts]
    assert cli.run(asked) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, shares in zip(told, mean, strict=True):
        found = torch.tensor(list(line["probabilities"].values()))
        torch.testing.assert_close(found.double(), shares, rtol=1e-4, atol=1e-6)
    assert cli.run(["evaluate", folders[0], "--with", folders[1], "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["accuracy"] == metrics.accuracy_score(expected, mean.argmax(-1))
    assert figures["loss"] == pytest.approx(metrics.log_loss(expected, mean), rel=1e-4)


def test_runs_of_other_labels_do_not_answer_together(table, waves):
    job = Classify.create([table], ClassifySettings(**SMALL))
    other = Classify.create([str(waves / "waves.npz")], ClassifySettings(**SMALL))
    with pytest.raises(InputError, match="must have the same labels: train them on the same data"):
        job.companions = [other]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tlabel\na\tx\nb\tx\n", "all 2 sequences are of one class, x"),
        ("text\tlabel\na\tx\nb\n", "line 3: 1 column, expected 2"),
        ("text\tlabel\na\tx\nb\t\n", "line 3: label is empty"),
        ("one\ttwo\na\tx\n", "expected a header with text and label"),
        ("text\na\n", "there is no label, expected one to learn from|expected a header"),
    ],
)
def test_what_cannot_be_learned_from_is_said_with_its_line(tmp_path, content, message):
    path = tmp_path / "bad.tsv"
    path.write_text(content)
    with pytest.raises(ElmanError, match=message):
        Classify.create([str(path)], ClassifySettings(validation=0, **SMALL))


def test_a_label_that_was_not_learned_is_refused(table, tmp_path):
    held = tmp_path / "held.tsv"
    held.write_text("text\tlabel\nfine\tgood\nwell\tmiddling\n")
    job = Classify.create([table], ClassifySettings(**SMALL))
    with pytest.raises(ElmanError, match=r"held\.tsv, line 3: the label is 'middling'"):
        job.evaluate([str(held)])


def test_long_inputs_are_cut_with_a_word(tmp_path, caplog):
    path = tmp_path / "long.tsv"
    path.write_text("text\tlabel\n" + "word " * 100_000 + "\tx\nshort\ty\n")
    with caplog.at_level("WARNING", logger="elman"):
        job = Classify.create([str(path)], ClassifySettings(validation=0, **SMALL))
    assert "1 of 2 sequences have more steps than `longest`, 1,000" in caplog.text
    assert next(iter(job.batches("train"))).inputs[0][1].tolist() == [1, 1000]


def test_a_training_goes_on_bit_for_bit(table, tmp_path):
    from elman.training.run import Run
    from elman.training.start import resume

    chosen = {**SMALL, "epochs": 3, "dropout": 0.2, "word_dropout": 0.1}
    whole = Classify.train([table], run=tmp_path / "whole", **chosen)
    Classify.train([table], run=tmp_path / "part", **{**chosen, "epochs": 1})
    trainer = resume(Classify, Run.open(tmp_path / "part"), epochs=3)
    trainer.train()
    trainer.run.give_weights(trainer.task.model)
    for a, b in zip(whole.model.parameters(), trainer.task.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_standard_input_is_kept(table, tmp_path, monkeypatch):
    with open(table, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        job = Classify.train(["-"], run=tmp_path / "run", **{**SMALL, "epochs": 1})
    again = open_run(tmp_path / "run")
    assert again.evaluate()["accuracy"] == job.evaluate()["accuracy"]


def test_a_folder_a_class(tmp_path):
    for label, words in (("good", GOOD), ("bad", BAD)):
        (tmp_path / "films" / label).mkdir(parents=True)
        for word in words:
            Path(tmp_path, "films", label, f"{word}.txt").write_text(f"a {word} film")
    job = Classify.create([str(tmp_path / "films")], ClassifySettings(validation=0, **SMALL))
    assert job.targets.labels.names == ("bad", "good") and len(job.parts["train"]) == 6
