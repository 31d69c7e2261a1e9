"""Labelled texts and sequences, from every format."""

from __future__ import annotations

import gzip
import io
import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elman.data.kinds import labels
from elman.data.labelled import name_of, number_of, read_blocks
from elman.data.place import Place
from elman.errors import ElmanError, InputError


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as labelled inputs."""

    def through(name, content, **columns):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return labels(**columns).read([str(path)])

    return through


def plain(records):
    return [(record.input, record.label, record.place.line) for record in records]


def test_a_table_with_tabs_takes_quotation_marks_as_they_are(read):
    found = read("a.tsv", '\ufefftext\tlabel\r\n"Oh," he said\tbad\r\n\r\n5" long\t 1 \r\n')
    assert plain(found) == [('"Oh," he said', "bad", 2), ('5" long', "1", 4)]


def test_a_table_with_commas_takes_quotation_marks_around_texts(read):
    found = read("a.csv", 'label,text\ngood,"one, two\nand ""three"""\nbad,four\n')
    assert plain(found) == [('one, two\nand "three"', "good", 2), ("four", "bad", 4)]


def test_packed_tables_are_unpacked(read):
    assert plain(read("a.tsv.gz", gzip.compress(b"text\tlabel\na\tb\n"))) == [("a", "b", 2)]


def test_of_two_columns_one_is_known_by_the_other(read):
    assert plain(read("a.tsv", "sentence\tlabel\na\tb\n")) == [("a", "b", 2)]
    assert plain(read("a.tsv", "stars\ttext\n3\ta\n")) == [("a", "3", 2)]
    assert plain(read("a.csv", "sentence,stars\na,3\n", label_column="stars")) == [("a", "3", 2)]


def test_columns_may_be_named(read):
    table = "id,note,kind,author\n1,well,x,Ann\n"
    found = read("a.csv", table, text_column="note", label_column="author")
    assert plain(found) == [("well", "Ann", 2)]
    with pytest.raises(InputError, match=r"`label_column` is 'who', expected .*'id, note, kind, a"):
        read("a.csv", table, text_column="note", label_column="who")


def test_a_table_without_a_header_is_refused(read):
    with pytest.raises(InputError, match=r"a.tsv, line 1: the columns are .*expected a header"):
        read("a.tsv", "I loved it\tgood\nI did not\tbad\n")
    with pytest.raises(ElmanError, match="the column 'text' is there twice"):
        read("a.tsv", "text\ttext\na\tb\n")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.tsv",
            "text\tlabel\na\tb\na b\n",
            r"a.tsv, line 3: 1 column, expected 2 .*add what is missing",
        ),
        ("a.csv", "text,label\na,b,c\n", r"a.csv, line 2: 3 columns, expected 2 .*quotation"),
        ("a.csv", 'text,label\n"a,b\n', r"a.csv, line 2: expected a line of a table \(unexpected"),
        ("a.tsv", "text\tlabel\na\t \n", "line 2: label is empty, expected a label"),
        ("a.jsonl", '{"text": "a"}\n{"text": "a", ', r"a.jsonl, line 2: .*expected JSON \(Expect"),
        ("a.jsonl", '{"label": 1}', r"line 1: .*expected {\"text\": a text"),
        ("a.jsonl", "[" * 100_000, "line 1: .*nested too deeply"),
        ("a.jsonl", '{"text": "a", "label": [1]}', r"`label` is \[1\], expected a name in quot"),
        ("a.jsonl", '{"text": "a", "label": NaN}', "`label` is nan, expected"),
        ("a.csv", "id,x\n1,a\n", "line 2: x is 'a', expected a finite number"),
        ("a.csv", "id,x\n1,nan\n", "line 2: x is 'nan', expected a finite number"),
        ("a.csv", "id,label\n1,a\n", "line 1: the columns are 'id, label', expected features"),
        ("a.csv", "id,x,label\n1,2,a\n1,2,b\n", "line 3: the label of '1' is 'b', expected 'a' as"),
        ("a.csv", "id,time,x\n1,2,3\n1,2,3\n", "line 2: the sequence '1' has the time 2 twice"),
        ("a.tsv", "", "has no labelled inputs"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, name, text, message):
    with pytest.raises(ElmanError, match=message):
        read(name, text)


def test_json_lines_may_have_names_numbers_and_no_labels(read):
    lines = '{"text": "a", "label": "b"}\n\n{"text": "c", "label": 0.5}\n{"text": "d"}\n'
    found = read("a.jsonl", lines)
    assert plain(found) == [("a", "b", 1), ("c", "0.5", 3), ("d", None, 4)]
    assert name_of(found[0]) == "b"
    assert number_of(found[1]) == 0.5
    with pytest.raises(ElmanError, match="line 1: the label is 'b', expected a finite number"):
        number_of(found[0])
    with pytest.raises(ElmanError, match="line 4: there is no label"):
        name_of(found[2])


def test_lines_are_texts_without_labels(read):
    assert plain(read("a.txt", "a b\n\nc")) == [("a b", None, 1), ("", None, 2), ("c", None, 3)]


def test_a_folder_of_folders_is_labelled_by_them(tmp_path, caplog):
    files = {"pos/2.txt": "good\n", "pos/1.txt": "fine", "neg/1.txt.gz": "bad", "neg/x.md": "#"}
    for name, text in files.items():
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    with caplog.at_level(logging.INFO, "elman"):
        found = labels().read([str(tmp_path / "films")])
    assert [record[:2] for record in found] == [("bad", "neg"), ("fine", "pos"), ("good\n", "pos")]
    assert found[1].place.file.endswith("films/pos/1.txt")
    assert "1 files left out" in caplog.text
    with pytest.raises(ElmanError, match=r"pos has no texts as class/file.txt"):
        labels().read([str(tmp_path / "films" / "pos")])


def test_a_long_table_holds_sequences(read):
    table = "id,time,x,y,label\nb,2,3,4,up\na,1,9,9,down\nb,1,1,2,up\n"
    b, a = read("a.csv", table)
    assert b.input.tolist() == [[1, 2], [3, 4]]
    assert (b.label, b.place.line, a.label) == ("up", 2, "down")
    assert b.input.dtype == np.float32
    # Without a time, steps are in the order of their lines.
    first, _ = read("a.csv", "id,x\nb,2\na,1\nb,1\n")
    assert first.input.tolist() == [[2], [1]]
    assert first.label is None


def test_arrays_hold_sequences(tmp_path):
    x = np.arange(12.0).reshape(2, 3, 2)
    path = tmp_path / "a.npz"
    np.savez(path, X=x, y=np.array([0.1, 2]), lengths=[3, 1])
    one, other = labels().read([str(path)])
    assert (one.input == x[0]).all()
    assert (other.input == x[1, :1]).all()
    assert number_of(one) == 0.1
    assert str(other.place).endswith("a.npz, sequence 2")
    np.save(tmp_path / "a.npy", x[:, :, 0])
    found = labels().read([str(tmp_path / "a.npy")])
    assert [(record.input.shape, record.label) for record in found] == [((3, 1), None)] * 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3))}, "received nothing under X, expected an array of numbers"),
        ({"X": np.zeros(3)}, r"X has the shape \(3,\), expected \(N, T, F\)"),
        ({"X": np.array([["a"]])}, "received an array of <U1 under X"),
        ({"X": np.zeros((2, 3)), "y": np.zeros(3)}, r"y has the shape \(3,\), expected \(2,\)"),
        ({"X": np.full((2, 3), np.nan)}, "sequence 1: a step is not finite"),
        (
            {"X": np.zeros((2, 3)), "lengths": [3, 4]},
            "sequence 2: its length is 4.*expected 1 to 3",
        ),
        ({"X": np.array([None, 1])}, "could not be read .*Object arrays cannot be loaded"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ElmanError, match=message):
        labels().read([str(tmp_path / "a.npz")])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 500), byte=st.integers(0, 255), packed=st.booleans())
def test_damaged_arrays_are_told_in_one_sentence(tmp_path, place, byte, packed):
    whole = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(whole, X=np.ones((2, 3)), y=["a", "b"])
    damaged = bytearray(whole.getvalue())
    damaged[place % len(damaged)] = byte
    (tmp_path / "a.npz").write_bytes(damaged)
    try:
        labels().read([str(tmp_path / "a.npz")])
    except ElmanError as error:
        assert "\n" not in str(error)


def test_blocks_are_closed_by_a_line_of_their_own(tmp_path):
    path = tmp_path / "a.train"
    path.write_text("0 2\n3 4 \n1 1\n5 6\n1 1\n")
    one, other = read_blocks(path, "a", [1, 1], "pq")
    assert one.input.tolist() == [[0, 2], [3, 4]]
    assert (one.label, other.label, other.place) == ("p", "q", Place("a", 4))
    with pytest.raises(ElmanError, match="a has 2 whole sequences, expected 3"):
        list(read_blocks(path, "a", [1, 1], "pqr"))
    path.write_text("0 2\n1 1\n5 6\n")
    with pytest.raises(ElmanError, match="a has 1 whole sequences and a cut one, expected 1"):
        list(read_blocks(path, "a", [1, 1], "p"))
