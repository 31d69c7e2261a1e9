from __future__ import annotations

import json
import shutil

import pytest
import torch
from seqeval.metrics import f1_score

from elman.data.annotated import read_jsonl
from elman.data.shards import Shard
from elman.errors import ElmanError
from elman.tasks import open_run
from elman.tasks.extract import Extractor, located_tokens, triples
from elman.training.measures import add

SMALL = {
    "embedding": 16, "hidden": 16, "relation_hidden": 16, "batch": 4, "learning_rate": 0.02,
    "validation": 0.3,
}  # fmt: skip


def line(person, verb, place, label, *, order=1):
    text = f"{person} {verb} {place}." if order else f"In {place} {verb} {person}."
    marked = [
        {"start": text.index(name), "end": text.index(name) + len(name), "label": kind}
        for name, kind in ((person, "person"), (place, "place"))
    ]
    return {
        "text": text, "entities": marked, "relations": [{"from": 0, "to": 1, "label": label}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lives.jsonl"
    people, places = ["Ann Lee", "Bob", "Carl May", "Dora"], ["Ulm", "New York", "Jena"]
    lines = [
        line(person, verb, place, label, order=order)
        for person in people
        for place in places
        for verb, label, order in (("was born in", "born in", 1), ("died", "died in", 0))
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    Extractor.train([data], run=folder, epochs=12, **SMALL)
    return folder


def test_entities_and_relations_are_found_and_told_in_the_form_of_the_data(run, tmp_path):
    job = open_run(run)
    found = job.extract(["Bob was born in New York.", "", "In Ulm died Ann Lee."])
    assert found[1] == {"text": "", "entities": [], "relations": []}
    assert [each["text"] for each in found[0]["entities"]] == ["Bob", "New York"]
    assert triples(found[2]).startswith("Ann Lee | died in | Ulm  ")
    path = tmp_path / "found.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in found), encoding="utf-8")
    for given, again in zip(found, read_jsonl(path, "found"), strict=True):
        assert given["text"] == again.text
        assert [given["text"][e.start : e.end] for e in again.entities] == [
            each["text"] for each in given["entities"]
        ]


def test_what_is_found_does_not_depend_on_neighbours(run):
    job = open_run(run)
    texts = ["Bob was born in New York.", "In Ulm died Ann Lee.", "Nobody."]
    assert job.extract(texts) == [job.extract([text])[0] for text in texts]


def test_figures_are_seqevals_and_add_up(run):
    job = open_run(run)
    figures = job.evaluate()
    assert figures["f1"] > 0.8 and set(figures["relations"]) == {"born in", "died in"}
    given, found, whole, halves = [], [], {}, {}
    for batch in job.batches("validation"):
        paths = job.model.decode(job.model(batch.input), batch.input.words.lengths)
        found += job.named(paths)
        rows = batch.input.tags.t().tolist()
        given += job.named(row[: len(path)] for row, path in zip(rows, paths, strict=True))
        add(whole, job.tally(job.model, batch, None)[0])
    assert figures["entity_f1"] == pytest.approx(f1_score(given, found))
    for rank in range(2):
        for batch in job.batches("validation", None, Shard(rank, 2)):
            if batch is not None:
                add(halves, job.tally(job.model, batch, None)[0])
    assert halves == pytest.approx(whole, rel=1e-4)


def test_the_loss_is_that_of_tags_and_pairs(data):
    job = Extractor.create([data], Extractor.Settings.of(SMALL))
    job.model.eval()
    batch = next(iter(job.batches("validation")))
    count = int(batch.input.words.lengths.sum())
    y = job.model.read(batch.input)
    tags = job.model.loss(job.model.output(y), batch.input.tags, batch.input.words.lengths)
    p = job.model.relations(y, batch.pairs).sigmoid()
    pairs = -torch.where(batch.relations, p, 1 - p).log().sum()
    torch.testing.assert_close(job.loss(job.model, batch, None).value, (tags + pairs) / count)


def test_an_entity_within_a_word_is_told_with_its_place(tmp_path):
    path = tmp_path / "texts.jsonl"
    marked = {"start": 0, "end": 3, "label": "person"}
    path.write_text(json.dumps({"text": "Bobby", "entities": [marked]}) + "\n")
    with pytest.raises(ElmanError, match=r"line 1: the entity 'Bob' begins or ends within a word"):
        Extractor.create([str(path)], Extractor.Settings.of(SMALL))


def test_tokens_are_located():
    text = "Wells's “Time Machine” 出版于1895年。"
    located = located_tokens(text)
    assert [token for token, _ in located][:3] == ["Wells", "'s", "“"]
    assert all(text[start:].startswith(token) for token, start in located)
    assert "".join(token for token, _ in located) == text.replace(" ", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("between", [["person", "born in"]], "expected a list of triples"),
        ("words", ["Bob"], "expected words, characters, lower"),
        ("features", {}, "expected a list of lists"),
        ("tags", 3, "expected a list of different texts"),
    ],
)
def test_damaged_assets_are_told(run, tmp_path, name, content, message):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "assets" / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(ElmanError, match=f"assets is damaged: .*{message}"):
        open_run(copy)
