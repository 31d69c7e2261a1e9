"""Poems, from every format."""

from __future__ import annotations

import json
import logging

import pytest

from elman.data.kinds import POEMS
from elman.errors import ElmanError


@pytest.fixture
def read(tmp_path):
    def through(name, content):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(text.encode())
        return POEMS.read([str(path)])

    return through


def plain(poems):
    return [(poem.tune, poem.lines, poem.author, poem.place[1:]) for poem in poems]


def test_the_json_of_the_collection(read, caplog):
    whole = {
        "rhythmic": "如梦令",
        "paragraphs": ["昨夜雨疏风骤，", " ", "浓睡不消残酒。"],
        "author": "李清照",
    }
    lacking = [
        {"rhythmic": "导引", "paragraphs": [], "author": "和岘"},
        {"rhythmic": "导引", "paragraphs": ["浦映□花花映浦。"], "author": "和岘"},
    ]
    titled = {"title": "詠", "paragraphs": ["[爽]節（一作「叉」）在重九，"]}
    with caplog.at_level(logging.INFO, "elman"):
        found = read("a.json", [*lacking, whole, titled])
    assert plain(found) == [
        ("如梦令", ("昨夜雨疏风骤，", "浓睡不消残酒。"), "李清照", (3, "poem")),
        ("詠", ("爽節在重九，",), "", (4, "poem")),
    ]
    assert "poems left out, which lack words: 2" in caplog.text
    assert found[0].text() == "如梦令\n昨夜雨疏风骤，\n浓睡不消残酒。\n\n"


def test_json_lines(read):
    lines = '{"tune": "Ode", "lines": ["O", "so"], "author": "Ann"}\n{"tune": "A", "lines": ["b"]}'
    assert plain(read("a.jsonl", lines)) == [
        ("Ode", ("O", "so"), "Ann", (1, "line")), ("A", ("b",), "", (2, "line")),
    ]  # fmt: skip


def test_plain_text(read):
    found = plain(read("a.txt", "\r\n如梦令\r\n昨夜。\r\n残酒。\r\n\r\n\r\n导引\r\n归去。"))
    assert found == [
        ("如梦令", ("昨夜。", "残酒。"), "", (2, "line")), ("导引", ("归去。",), "", (7, "line")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", "a.json: received {}, expected a list of poems"),
        ("a.json", '[{"title": "a", "paragraphs": "b"}]', "a.json, poem 1: received .*expected {"),
        ("a.json", '[{"title": "a", "paragraphs": [1]}]', "a.json, poem 1: received .*expected {"),
        ("a.json", "[1]", "a.json, poem 1: received 1, expected {"),
        ("a.json", "[", "a.json: received '\\[', expected JSON"),
        ("a.json", "[]", "has no poems"),
        ("a.jsonl", '{"tune": "a", "lines": []}', "line 1: 'a' has no lines"),
        ("a.jsonl", '{"tune": " ", "lines": ["a"]}', "line 1: '' has no tune"),
        ("a.txt", "a\nb\n\nc\n", "line 4: 'c' has no lines, expected a tune and lines below"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(read, name, text, message):
    with pytest.raises(ElmanError, match=message):
        read(name, text)
