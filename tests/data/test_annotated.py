from __future__ import annotations

import json

import pytest

from elman.data.annotated import Entity, Relation, read_jsonl
from elman.data.kinds import ANNOTATIONS
from elman.errors import ElmanError

LINE = {
    "text": "Noether was born in Erlangen.",
    "entities": [
        {"start": 20, "end": 28, "label": "place"},
        {"start": 0, "end": 7, "label": "person"},
    ],
    "relations": [{"from": 1, "to": 0, "label": "born in"}],
}


def read(tmp_path, *lines):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return list(read_jsonl(path, "texts.jsonl"))


def test_entities_come_in_the_order_of_the_text_and_relations_follow(tmp_path):
    (found,) = read(tmp_path, LINE)
    assert found.entities == (Entity(0, 7, "person"), Entity(20, 28, "place"))
    assert found.relations == (Relation(0, 1, "born in"),)
    assert str(found.place) == "texts.jsonl, line 1"
    assert read(tmp_path, {"text": "Nothing."})[0].entities == ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": 3}, 'expected {"text": a text'),
        ({"entities": 3}, "`entities` is 3, expected a list"),
        ({"entities": [{"start": 0, "end": 40, "label": "x"}]}, "goes from 0 to 40, expected one"),
        ({"entities": [{"start": 3, "end": 3, "label": "x"}]}, "goes from 3 to 3"),
        ({"entities": [{"start": "0", "end": 3, "label": "x"}]}, "a whole number"),
        (
            {"entities": [{"start": a, "end": 9, "label": "x"} for a in (0, 5)]},
            "begins behind the one before",
        ),
        (
            {"relations": [{"from": 0, "to": 2, "label": "x"}]},
            "places of two of the 2",
        ),
        ({"relations": [{"from": 1, "to": 1, "label": "x"}]}, "goes from 1 to 1"),
        ({"relations": [{"from": 0, "to": 1}]}, '"label": a text'),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, changed, message):
    with pytest.raises(ElmanError, match=r"texts\.jsonl, line 2: ") as error:
        read(tmp_path, LINE, LINE | changed)
    assert message in str(error.value)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_lives_that_come_with_elman_are_whole(language):
    parts = [ANNOTATIONS.read([f"lives-{language}"], part) for part in ("train", "test")]
    assert len(parts[0]) >= 110 and len(parts[1]) == 30
    texts = [each.text for part in parts for each in part]
    assert len(set(texts)) == len(texts)
    labels = {entity.label for part in parts for each in part for entity in each.entities}
    assert labels == {"person", "place", "work", "date", "organisation"}
    for each in parts[0] + parts[1]:
        for start, end, _ in each.entities:
            assert each.text[start:end] == each.text[start:end].strip(" 《》")
