from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from elman.data.corpora import CORPORA
from elman.data.corpus import Corpus
from elman.data.kinds import PAIRS, labels
from elman.data.records import FOLDER, Kind, Parts, Place, spread
from elman.errors import ElmanError, InputError


def lines(path, name):
    for k, line in enumerate(path.read_text().splitlines(), start=1):
        yield line, Place(name, k)


def folder(path, name):
    for file in sorted(path.iterdir()):
        yield from lines(file, str(file))


LINES = Kind("lines", "lines", {".txt": lines, FOLDER: folder})


def settings(validation=0.25, validation_data=(), test_data=()):
    return SimpleNamespace(
        validation=validation, validation_data=list(validation_data), test_data=list(test_data)
    )


@pytest.fixture
def write(tmp_path):
    def make(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return make


def texts(found):
    return [text for text, _ in found]


def test_places_are_told_as_people_say_them():
    assert str(Place("train.tsv", 12_345)) == "train.tsv, line 12,345"


def test_files_and_folders_are_read_in_order(write, tmp_path):
    a = write("a.txt", "one\ntwo\n")
    write("more/b.txt", "three\n")
    found = LINES.read([str(tmp_path / "more"), a])
    assert texts(found) == ["three", "one", "two"]
    assert found[-1][1] == Place(a, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.csv", r"ends in \.csv, expected lines in a file that ends in one of \.txt"),
        ("plain", "ends in nothing, expected lines"),
        ("missing.txt", "neither a file nor the name of a corpus"),
        ("empty.txt", "has no lines, expected some"),
        ("time-machine", "time-machine is a corpus of text, expected lines"),
    ],
)
def test_what_cannot_be_read_is_said(write, name, message):
    path = name if name in ("missing.txt", "time-machine") else write(name, "")
    with pytest.raises(ElmanError, match=message):
        LINES.read([path])


def test_a_share_is_held_out_evenly(write):
    data = write("sorted.txt", "".join(f"{k}\n" for k in range(12)))
    parts = Parts(LINES, [data], settings())
    assert texts(parts["validation"]) == ["1", "4", "9"]
    assert len(parts["train"]) == 9
    assert parts["test"] == []


def test_parts_may_be_files_of_their_own(write):
    data, held, test = (write(f"{n}.txt", f"{n}\n" * 3) for n in ("a", "b", "c"))
    parts = Parts(LINES, [data], settings(0.3, [held], [test]))
    assert texts(parts["train"]) == ["a"] * 3
    assert texts(parts["validation"]) == ["b"] * 3
    assert texts(parts["test"]) == ["c"] * 3
    first = parts.fingerprints()
    assert list(first) == [data, f"{held} (validation)", f"{test} (test)"]
    write("b.txt", "changed\n")
    assert {n for n, k in parts.fingerprints().items() if k != first[n]} == {f"{held} (validation)"}


def test_a_corpus_comes_in_its_own_parts(write, tmp_path, monkeypatch):
    made = Corpus(
        "three", "Three files", "none", "en", "three", "http://nowhere/", dict.fromkeys("abc"),
        records={"lines": lambda paths, part: [(p, None) for p in paths]},
        parts={"train": ["a"], "validation": ["b"], "test": ["c"]},
    )  # fmt: skip
    monkeypatch.setitem(CORPORA, "three", made)
    monkeypatch.setattr(
        Corpus, "paths", lambda self, part=None: list(self.parts[part]) if part else ["a", "b", "c"]
    )
    parts = Parts(LINES, ["three"], settings())
    assert [texts(parts[n]) for n in ("train", "validation", "test")] == [["a"], ["b"], ["c"]]
    held = write("held.txt", "mine\n")
    parts = Parts(LINES, ["three"], settings(validation_data=[held]))
    assert texts(parts["validation"]) == ["mine"]
    with pytest.raises(InputError, match="three is a corpus of lines, expected a text"):
        made.text()


def test_a_part_that_a_corpus_has_not_is_said(monkeypatch):
    made = Corpus(
        "two", "Two files", "none", "en", "two", "http://nowhere/", dict.fromkeys("ab"),
        records={"lines": None}, parts={"train": ["a"], "test": ["b"]},
    )  # fmt: skip
    monkeypatch.setitem(CORPORA, "two", made)
    with pytest.raises(InputError, match="two has no validation part, expected lines"):
        LINES.read(["two"], "validation")


def test_nothing_held_out_leaves_all_to_learn_from(write):
    data = write("a.txt", "1\n2\n")
    parts = Parts(LINES, [data], settings(validation=0))
    assert texts(parts["train"]) == ["1", "2"] and parts["validation"] == []


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_spreading_keeps_every_record_once(share):
    kept, held = spread(range(1000), share)
    assert sorted(kept + held) == list(range(1000))
    for some in (range(300), range(500, 1000), range(0, 1000, 2), range(1, 1000, 3)):
        found = sum(k in some for k in held)
        assert abs(found - share * len(some)) <= 6
    assert spread([], share) == ([], [])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_spreading_keeps_what_is_equal_together(share):
    records = [(k * k % 101, k) for k in range(500)]  # about half a hundred squares modulo 101
    kept, held = spread(records, share, key=lambda record: record[0])
    assert sorted(kept + held, key=lambda record: record[1]) == records and held
    assert not {square for square, _ in kept} & {square for square, _ in held}
    first = dict(reversed(records)).items()
    assert {s for s, _ in held} == {s for s, k in first if (k + 1) * (5**0.5 - 1) / 2 % 1 < share}


def test_translations_of_one_sentence_are_held_out_together(write):
    lines = [f"{k // 3}\t{k}" for k in range(60)]
    parts = Parts(PAIRS, [write("pairs.tsv", "\n".join(lines) + "\n")], settings())
    train, held = (parts[name] for name in ("train", "validation"))
    assert len(train) + len(held) == 60 and held
    assert not {pair.source for pair in train} & {pair.source for pair in held}


def test_sequences_that_are_equal_are_held_out_together(tmp_path):
    path = tmp_path / "waves.npz"
    x = np.arange(30).repeat(2).astype(float)[:, None, None] * np.ones((1, 4, 1))
    np.savez(path, X=x, y=np.arange(60))
    parts = Parts(labels(), [str(path)], settings())
    held = [record.input[0, 0] for record in parts["validation"]]
    assert held and held[::2] == held[1::2]


def test_too_little_to_hold_out_is_said(write, caplog):
    caplog.set_level("INFO", "elman")
    assert Parts(LINES, [write("a.txt", "1\n" * 20)], settings())["validation"] == []
    assert "nothing is held out: there are too few different lines for a share" in caplog.text
