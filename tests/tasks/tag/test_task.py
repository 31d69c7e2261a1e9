from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score
from sklearn.metrics import accuracy_score, classification_report

from elman import cli
from elman.data.place import Place
from elman.data.shards import Shard
from elman.data.tagged import Tagged
from elman.data.vectors import write_vectors
from elman.errors import ElmanError, InputError
from elman.tasks import open_run
from elman.tasks.tag.scores import Segmentation, Sentence
from elman.tasks.tag.task import Tagger
from elman.tasks.tag.verbs import shown
from elman.training.measures import add

TEXTS = [
    "the dog sees a cat",
    "a man did n't sleep",
    "she reads old books",
    "Lions eat",
    "he sleeps",
]
PARTS = ["DET NOUN VERB DET NOUN", "DET NOUN AUX PART VERB", "PRON VERB ADJ NOUN", "NOUN VERB",
         "PRON VERB"]  # fmt: skip
CHUNKS = ["B-NP I-NP B-VP B-NP I-NP", "B-NP I-NP B-VP I-VP I-VP", "B-NP B-VP B-NP I-NP",
          "B-NP B-VP", "B-NP B-VP"]  # fmt: skip
SMALL = {
    "validation": 0.0,
    "embedding": 8,
    "hidden": 6,
    "epochs": 3,
    "batch": 2,
    "learning_rate": 0.05,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of columns: words, parts of speech, chunks."""
    path = tmp_path_factory.mktemp("data") / "train.conll"
    columns = zip(TEXTS * 4, PARTS * 4, CHUNKS * 4, strict=True)
    rows = (zip(*(each.split() for each in three), strict=True) for three in columns)
    path.write_text("\n\n".join("\n".join(map("\t".join, each)) for each in rows) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "zh.tagged"
    lines = ["我们/PRON 喜欢/VERB 音乐/NOUN 。/PUNCT", "图书馆/NOUN 很/ADV 大/ADJ 。/PUNCT"]
    path.write_text("\n".join(lines * 6) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two taggers of parts of speech."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        Tagger.train(
            [data], run=folder / str(seed), tag_column="2", characters="conv", seed=seed, **SMALL
        )
    return [folder / str(seed) for seed in range(2)]


def told(job, part="train"):
    """What the data has and what the model finds, a list of tags for each sentence."""
    given, found = [], []
    for batch in job.batches(part):
        paths = job.model.decode(job.model(batch.input), batch.input.words.lengths)
        found += job.named(paths)
        rows = batch.input.tags.t().tolist()
        given += job.named(row[: len(path)] for row, path in zip(rows, paths, strict=True))
    return given, found


def test_parts_of_speech_are_learned_and_judged_as_scikit_learn_judges(runs):
    job = open_run(runs[0])
    figures = job.evaluate()
    given, found = (list(chain(*tags)) for tags in told(job))
    assert figures["accuracy"] == accuracy_score(given, found) > 0.5
    report = classification_report(given, found, output_dict=True, zero_division=0)
    assert figures["labels"]["NOUN"]["f1"] == pytest.approx(report["NOUN"]["f1-score"])
    assert sum(figures["confusion"]["NOUN"].values()) == report["NOUN"]["support"]
    assert job.headline.name == "accuracy" and job.settings.output == "softmax"


def test_spans_are_judged_as_seqeval_judges(data):
    job = Tagger.create([data], Tagger.Settings.of(SMALL))
    job.model.eval()
    assert job.headline.name == "f1" and job.settings.output == "crf"
    assert job.evaluate()["f1"] == pytest.approx(f1_score(*told(job)))
    assert set(job.evaluate()["labels"]) == {"NP", "VP"}


def test_sums_of_two_processes_are_those_of_one(data):
    job = Tagger.create([data], Tagger.Settings.of(SMALL))
    job.model.eval()
    whole, halves = {}, {}
    for batch in job.batches("train"):
        add(whole, job.tally(job.model, batch, None)[0])
    for rank in range(2):
        for batch in job.batches("train", None, Shard(rank, 2)):
            if batch is not None:
                add(halves, job.tally(job.model, batch, None)[0])
    assert halves == pytest.approx(whole, rel=1e-4)


def test_unknown_words_are_counted_apart(data, tmp_path):
    other = tmp_path / "other.conll"
    other.write_text("the\tDET\tB-NP\nunheard\tNOUN\tI-NP\n")
    job = Tagger.create([data], Tagger.Settings.of(SMALL))
    for batch in job.batches_of([str(other)]):
        assert batch.unseen.flatten().tolist() == [False, True]
    assert 0 <= job.evaluate([str(other)])["unknown_accuracy"] <= 1


def test_predictions_come_in_order_and_whatever_their_neighbours(runs):
    job = open_run(runs[0])
    texts = ["the dog sees a cat", "", "Lions eat", "he didn't sleep."]
    together = job.predict(texts)
    assert [each["tokens"] for each in together][1:] == [
        [], ["Lions", "eat"], ["he", "did", "n't", "sleep", "."],
    ]  # fmt: skip
    assert together == [job.predict([text])[0] for text in texts]
    assert all(0 < p <= 1 for p in together[0]["confidence"])
    assert job.predict(["he didn't"], tokenised=True)[0]["tokens"] == ["he", "didn't"]


def test_several_runs_answer_with_their_mean(runs):
    one, other = map(open_run, runs)
    sentence = ["the old dog sleeps"]
    alone = []
    for job in (one, other):
        read = Tagged(tuple(sentence[0].split()), (), Place("here", 1))
        batch = job.collate([job.as_example(read)]).input
        alone.append(job.model.marginals(job.model(batch), batch.words.lengths)[:, 0])
    one.companions = [other]
    mean = torch.stack(alone).mean(0)
    found = one.predict(sentence)[0]
    assert found["tags"] == [one.names.tags.names[k] for k in mean.argmax(-1)]
    assert found["confidence"] == [round(p, 4) for p in mean.amax(-1).tolist()]


def test_runs_with_other_tags_do_not_answer_together(runs, data):
    one = open_run(runs[0])
    other = Tagger.create([data], Tagger.Settings.of(SMALL, {"feature_columns": ["2"]}))
    with pytest.raises(InputError, match="must have the same tags and `feature_columns`: train"):
        one.companions = [other]
    assert not one.companions


def test_taggers_are_not_measured_together(runs, capsys):
    assert cli.run(["evaluate", str(runs[0]), "--with", str(runs[1])]) == 2
    assert capsys.readouterr().err == (
        "elman: runs of tag cannot evaluate together: leave out --with, and evaluate one.\n"
    )


def test_features_are_read_beside_the_words(data, tmp_path):
    run = tmp_path / "run"
    Tagger.train([data], run=run, feature_columns=["2"], **SMALL)
    job = open_run(run)
    assert [len(features) for features in job.names.features] == [2 + 7]
    asked = "the/DET dog/NOUN"
    found = job.predict([asked, ""])
    assert found[0]["tokens"] == ["the", "dog"] and found[1]["tokens"] == []
    with pytest.raises(InputError, match="received 'the', expected word/column 2"):
        job.predict(["the dog"])


def test_a_file_of_columns_is_asked(runs, data):
    job = open_run(runs[0])
    asked = job.inputs_of(Path(data))
    assert job.predict(asked[:1])[0]["tokens"] == TEXTS[0].split()


@pytest.mark.parametrize("kind", ["words", "joint"])
def test_text_without_spaces_is_segmented(chinese, tmp_path, kind):
    run = tmp_path / "run"
    Tagger.train([chinese], run=run, segment=kind, **(SMALL | {"epochs": 12}))
    job = open_run(run)
    figures = job.evaluate()
    assert figures["f1"] == 1 and "accuracy" not in figures
    assert ("word_f1" in figures) == (kind == "joint")
    found = job.predict(["图书馆 很大。", ""])
    assert found[0]["words"] == ["图书馆", "很", "大", "。"] and found[1]["words"] == []
    assert len(found[0]["confidence"]) == 4
    assert ("labels" in figures) == (kind == "joint")
    assert shown(found[0]).split()[0] == ("图书馆" if kind == "words" else "图书馆/NOUN")
    if kind == "joint":
        assert found[0]["tags"] == ["NOUN", "ADV", "ADJ", "PUNCT"]


def test_unknown_words_of_text_without_spaces_are_whole_words(chinese, tmp_path):
    other = tmp_path / "other.tagged"
    other.write_text("我们/PRON 喜/VERB 图书/NOUN\n", encoding="utf-8")
    job = Tagger.create([chinese], Tagger.Settings.of({**SMALL, "segment": "words"}))
    (batch,) = job.batches_of([str(other)])
    assert batch.unseen.flatten().tolist() == [False, False, True, True, True]
    given = [3, 0, 2, 0, 2]
    judge = Segmentation(["B", "I", "E", "S"])
    truth = [0, 2, 3, 0, 2]
    sums = judge.sums([Sentence(truth, given, batch.unseen.flatten().tolist())])
    assert (sums["unknown"], sums["unknown_right"]) == (2, 1)


def test_weights_of_classes_come_back_with_the_run(data, tmp_path):
    options = {"tag_column": "2", "class_weights": "balanced", **SMALL}
    job = Tagger.train([data], run=tmp_path / "run", **options)
    again = open_run(tmp_path / "run")
    assert job.model.class_weights.unique().numel() > 1
    torch.testing.assert_close(again.model.class_weights, job.model.class_weights)


def test_frozen_vectors_are_left_as_they_are(data, tmp_path):
    vectors = tmp_path / "vectors.txt"
    write_vectors(vectors, ["dog", "boat"], np.eye(2, 5, dtype=np.float32))
    how = {"embedding_from": str(vectors), "frozen": True, "tag_column": "2", "epochs": 1}
    job = Tagger.train([data], run=tmp_path / "run", **(SMALL | how))
    assert job.settings.embedding == 5
    rows = open_run(tmp_path / "run").model.words.embedding.weight
    known = rows[job.names.words.words.ids(["dog", "boat"])]
    torch.testing.assert_close(known, torch.eye(2, 5))


def test_a_tag_that_training_has_not_is_told_with_its_place(runs, tmp_path):
    other = tmp_path / "other.conll"
    other.write_text("the\tARTICLE\n")
    with pytest.raises(ElmanError, match="'ARTICLE' is not one of the 7 known names"):
        open_run(runs[0]).evaluate([str(other)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": "balanced"}, "the tags write spans, .* choose `output` softmax"),
        (
            {"class_weights": "balanced", "output": "crf"},
            "`class_weights` are for `output` softmax, received crf",
        ),
        ({"feature_columns": ["2"], "segment": "words"}, "which `segment` has yet to find"),
        ({"tag_column": "UPOS"}, "`tag_column` is 'UPOS', expected a number"),
        ({"feature_columns": ["7"]}, "`feature_columns` is 7, expected 2 to 3"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(data, settings, message):
    with pytest.raises(InputError, match=message):
        Tagger.create([data], Tagger.Settings.of(SMALL | settings))


def test_data_is_asked_for():
    with pytest.raises(InputError, match="no data was given, expected tagged sentences"):
        Tagger.create([], Tagger.Settings())
