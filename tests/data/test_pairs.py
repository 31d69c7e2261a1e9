"""Pairs of texts, from one file or from two."""

from __future__ import annotations

import gzip
import logging
import zipfile

import pytest

from elman.data.kinds import PAIRS
from elman.data.pairs import read_tsv
from elman.errors import ElmanError, InputError


@pytest.fixture
def write(tmp_path):
    def through(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return through


def plain(pairs):
    return [(pair.source, pair.target, pair.place.line) for pair in pairs]


def test_tabs_separate_source_and_target(write, caplog):
    path = write("a.tsv", "Go.\tVa !\tTatoeba #1\r\n\r\nRun!\t \t\r\nHi. \tSalut !\t\r\n")
    with caplog.at_level(logging.INFO, "elman"):
        assert plain(PAIRS.read([path])) == [("Go.", "Va !", 1), ("Hi.", "Salut !", 4)]
    assert "pairs left out, of which a side is empty: 1" in caplog.text


def test_json_lines(write):
    path = write("a.jsonl", '{"source": "Go.", "target": "Va !", "id": 1}\n')
    assert plain(PAIRS.read([path])) == [("Go.", "Va !", 1)]


def test_files_go_two_by_two(write):
    names = [
        write("a.de", "Hallo\n\nWelt\n"),
        write("a.en.gz", gzip.compress(b"Hello\nempty\nWorld")),
        write("more.tsv", "Ja\tYes\n"),
        write("b.de", "Nein"),
        write("b.en", "No\n"),
    ]
    assert plain(PAIRS.read(names)) == [
        ("Hallo", "Hello", 1), ("Welt", "World", 3), ("Ja", "Yes", 1), ("Nein", "No", 1),
    ]  # fmt: skip


def test_files_of_different_lengths_are_refused(write):
    one, other = write("a.de", "1\n2\n3\n"), write("a.en", "1\n")
    for longer, shorter in ((one, other), (other, one)):
        with pytest.raises(ElmanError, match=rf"{one} has 3 lines and {other} 1, expected as many"):
            PAIRS.read([longer, shorter])
    with pytest.raises(InputError, match=r"received 1 file of lines .*a.de.*, expected two by two"):
        PAIRS.read([one])


def test_a_zipped_table(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.txt", "about")
        archive.writestr("fra.txt", "Go.\tVa !\n")
    assert plain(read_tsv(path, "a.zip", "fra.txt")) == [("Go.", "Va !", 1)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "a\tb\nc\n", "a.tsv, line 2: received 'c', 1 column, expected 2 with tabs"),
        ("a.tsv", "a\tb\nc\td\te\n", "line 2: .* 3 columns, expected 2"),
        ("a.tsv", "a b\n", "line 1: received 'a b', 1 column, expected 2"),
        ("a.jsonl", '{"source": "a"}', r"line 1: .*expected {\"target\": a text"),
        ("a.jsonl", '["a", "b"]', r"line 1: .*expected {\"source\": a text"),
        ("a.tsv", "", "has no pairs of texts"),
        ("a.tsv", b"a\tcaf\xe9\n", "0xE9 on line 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(write, name, text, message):
    with pytest.raises(ElmanError, match=message):
        PAIRS.read([write(name, text)])
