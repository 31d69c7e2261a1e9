from __future__ import annotations

from elman.data.sources import labels, read_sources, short_name
from elman.data.vocabulary import Vocabulary


def test_texts_are_called_by_what_sets_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "book.txt").write_text("text")
    assert labels(["a/book.txt", "time-machine", "-"]) == ["book", "time-machine", "stdin"]
    assert labels(["a/book.txt", "b/book.txt"]) == ["a/book", "b/book"]
    assert labels(["a", "./b"]) == ["a", "b"]
    assert labels(["-", "-"]) == ["stdin (1)", "stdin (2)"]
    assert labels([]) == []


def test_many_texts_have_a_short_name_together():
    names = [f"{k}.txt" for k in "abcdefg"]
    assert short_name(names[:3]) == "a.txt-b.txt-c.txt"  # none is a file: as they were typed
    assert short_name(names) == "a.txt-b.txt-c.txt-and-4-more"
    assert short_name(["-"]) == "stdin"


def test_parts_and_checksums(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("abcdefghij" * 2)
    vocabulary = Vocabulary.build(["abcdefghij"], "character")
    (source,) = read_sources([str(path)], vocabulary, held_out=0.2)
    assert vocabulary.decode(source.train[:]) == "abcdefghijabcdef"
    assert vocabulary.decode(source.held_out[:]) == "ghij"
    (whole,) = read_sources([str(path)], vocabulary)
    assert (len(whole.train), len(whole.held_out)) == (20, 0)
    assert whole.checksum == source.checksum
    path.write_text("abcdefghij" * 2 + "a")
    assert read_sources([str(path)], vocabulary)[0].checksum != source.checksum
