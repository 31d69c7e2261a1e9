from __future__ import annotations

import json
import os

import pytest

from elman.data import readers
from elman.data.corpora import find

needs_data = pytest.mark.skipif(
    not os.environ.get("ELMAN_DATA"), reason="ELMAN_DATA names no folder"
)


def poems(tmp_path, entries):
    path = tmp_path / "poems.json"
    path.write_text(json.dumps(entries), "utf-8")
    return [path]


def test_song_lyrics(tmp_path):
    whole = {"rhythmic": "如梦令", "paragraphs": ["昨夜雨疏风骤，", " 浓睡不消残酒。"]}
    damaged = [
        {"rhythmic": "导引", "paragraphs": []},
        {"rhythmic": "", "paragraphs": ["归去。"]},
        {"rhythmic": "导引", "paragraphs": ["浦映□花花映浦。"]},
        {"rhythmic": "导引", "paragraphs": ["归去。", "（下缺）"]},
        {"rhythmic": "导引", "paragraphs": ["倚杖け然长啸。"]},
        {"rhythmic": "导引", "paragraphs": ["门前数十丘\ufffd岫。"]},
    ]
    paths = poems(tmp_path, [*damaged, whole, whole])
    expected = "如梦令\n昨夜雨疏风骤，\n浓睡不消残酒。\n\n"
    assert list(readers.poems(paths)) == [expected * 2]


def test_tang_poems_keep_corrections_and_drop_other_readings(tmp_path):
    poem = {"title": "詠 一", "paragraphs": ["[爽]節在重九，", "邏人（一作「叉」）橫鳥道。"]}
    lost = {"title": "詠 二", "paragraphs": ["妖韶援綠{𥫗/戢}。"]}
    text = list(readers.poems(poems(tmp_path, [poem, lost])))
    assert text == ["詠 一\n爽節在重九，\n邏人橫鳥道。\n\n"]


def test_brown(tmp_path):
    path = tmp_path / "ca01"
    path.write_text("\n\n\tThe/at jury/nn and/or/cc 1/2/cd ./.\n\n\n\tIt/pps said/vbd\n")
    assert list(readers.brown([path])) == ["The jury and/or 1/2 .\nIt said\n"]


@needs_data
@pytest.mark.parametrize(("name", "poems"), [("song-lyrics", 20_050), ("tang-poems", 9_968)])
def test_poems_left(name, poems):
    assert sum(block.count("\n\n") for block in find(name).blocks()) == poems


@needs_data
def test_brown_has_its_published_number_of_words():
    blocks = list(find("brown").blocks())
    assert len(blocks) == 500
    assert sum(len(block.split()) for block in blocks) == 1_161_192


@needs_data
def test_tiny_shakespeare_has_its_published_length():
    assert sum(map(len, find("tiny-shakespeare").blocks())) == 1_115_394
