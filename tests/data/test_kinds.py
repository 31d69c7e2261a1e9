"""Every kind of record, from files of any content: records, or an error of one sentence."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from elman.data.kinds import DIALOGUES, PAIRS, POEMS, labels, tags
from elman.data.records import ANY, FOLDER
from elman.errors import ElmanError

KINDS = (labels(), tags(), PAIRS, DIALOGUES, POEMS)
FORMATS = [
    (kind, ".de" if ending == ANY else ending)
    for kind in KINDS
    for ending in kind.readers
    if ending != FOLDER
]

# Pieces of every format, so that what is drawn is often nearly right.
PIECES = [
    *("text", "label", "id", "time", "x", "1", "1-2", "nan", "1e999", "9" * 5000, "床前明月光"),
    *(
        "\t",
        ",",
        '"',
        "\n",
        "\r\n",
        "\n\n",
        " ",
        "/",
        "_",
        "# ",
        "\ufeff",
        "\u2028",
        "\x0b",
        "\x00",
    ),
    *("{", "}", "[", "]", ":", '"text"', '"label"', '"source"', '"target"', '"turns"', '"tune"'),
    *('"lines"', "null", "true", "__eou__", "-DOCSTART-", "a\tb\n", '{"text": "a", "label": 1}\n'),
]
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(PIECES)).map(lambda pieces: "".join(pieces).encode()),
    st.lists(st.sampled_from(PIECES)).map(lambda pieces: gzip.compress("".join(pieces).encode())),
)


def attempt(kind, paths):
    """Read files; what is wrong with them is one sentence."""
    try:
        assert kind.read([*map(str, paths)])
    except ElmanError as error:
        assert "\n" not in str(error)
        assert str(error).endswith(".")
        assert len(str(error)) < 1_000


@pytest.mark.parametrize(("kind", "ending"), FORMATS, ids=[f"{k.name}{e}" for k, e in FORMATS])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENTS)
@example(b"")
@example(b"\n")
@example(b"\xef\xbb\xbf")
@example(b"a\n")
@example(b"text\tlabel\na\tb\tc\n")
@example(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'shape': (9999999999999,), }")
@example("caf\xe9 au lait\n".encode("latin-1"))
def test_any_content_gives_records_or_one_sentence(tmp_path, kind, ending, content):
    path = tmp_path / f"any{ending}"
    path.write_bytes(content)
    attempt(kind, [path, path] if kind is PAIRS else [path])


@pytest.mark.parametrize(("kind", "ending"), FORMATS, ids=[f"{k.name}{e}" for k, e in FORMATS])
@pytest.mark.parametrize("word", ["word ", "word/tag ", "词", "word\t", "word,"])
def test_a_line_may_be_very_long(tmp_path, kind, ending, word):
    path = tmp_path / f"long{ending}"
    path.write_text("text\tlabel\n" + word * 100_000, encoding="utf-8")
    attempt(kind, [path, path] if kind is PAIRS else [path])


def test_a_long_text_in_a_table_is_one_record(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("text,label\n" + "word " * 100_000 + ",a\n", encoding="utf-8")
    (record,) = labels().read([str(path)])
    assert len(record.input) == 500_000
