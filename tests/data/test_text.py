from __future__ import annotations

import errno
import gc
import gzip
import io
import os
import subprocess
import sys

import pytest

from elman.data import text
from elman.data.corpora import CORPORA
from elman.data.text import open_text
from elman.errors import ElmanError, InputError


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("Hello, World!\n")
    return path


def test_a_file(book):
    source = open_text(book)
    assert source.name == "book"
    assert "".join(source.blocks()) == "Hello, World!\n"
    assert "".join(source.blocks("lower")) == "hello, world!\n"
    assert "".join(source.blocks("letters")) == "hello world "


def test_a_corpus_by_name():
    source = open_text("time-machine")
    assert source.name == "time-machine"
    assert len("".join(source.blocks())) == 178_979
    # The length that Dive into Deep Learning prints for the same text and normalisation.
    assert len("".join(source.blocks("letters"))) == 173_428


def test_a_file_comes_before_a_corpus(tmp_path, monkeypatch):
    (tmp_path / "time-machine").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert "".join(open_text("time-machine").blocks()) == "mine"


@pytest.mark.parametrize("limit", [1, 5, 11, 12, 100])
def test_limit_counts_normalised_characters(book, limit):
    assert "".join(open_text(book).blocks("letters", limit)) == "hello world "[:limit]


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one(book, limit):
    with pytest.raises(InputError, match=f"limit is {limit}, expected"):
        open_text(book).blocks(limit=limit)


def test_an_unknown_normalization_is_refused_at_once(book):
    with pytest.raises(InputError, match="normalize is 'UPPER'"):
        open_text(book).blocks("UPPER")


def test_neither_file_nor_corpus_names_what_comes_close(book):
    with pytest.raises(ElmanError, match=r"neither.*did you mean book\.txt"):
        open_text(book.with_name("bok.txt"))
    with pytest.raises(ElmanError, match=r"neither.*did you mean time-machine.*`elman data`"):
        open_text("time-machin")
    with pytest.raises(ElmanError, match="neither"):
        open_text("no/such/folder/at-all.txt")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(ElmanError, match=r"empty\.txt is empty"):
        open_text(path)


def test_a_file_empty_after_normalising(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3\n")
    with pytest.raises(ElmanError, match="numbers holds no text after normalize='letters'"):
        list(open_text(path).blocks("letters"))


def test_the_texts_of_a_folder_one_after_the_other(tmp_path):
    folder = tmp_path / "poems"
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_text("first")
    (folder / "b" / "1.MD").write_text("second\n")
    (folder / "c.txt.gz").write_bytes(gzip.compress(b"third"))
    (folder / "d.txt").write_text("")
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    (folder / ".hidden.txt").write_text("no")
    source = open_text(folder)
    assert (source.name, "".join(source.blocks())) == ("poems", "first\nsecond\nthird")
    assert "".join(source.blocks(limit=9)) == "first\nsec"


def test_a_folder_without_endings_is_read_as_a_whole(tmp_path):
    for name in ("ca02", "ca01"):
        (tmp_path / name).write_text(name)
    assert "".join(open_text(tmp_path).blocks()) == "ca01\nca02"


def test_folders_that_hold_no_text(tmp_path):
    with pytest.raises(ElmanError, match="is a folder without files"):
        open_text(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ElmanError, match="are empty"):
        open_text(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ElmanError, match="is the folder of a run"):
        open_text(tmp_path)


def test_a_folder_below_that_cannot_be_opened_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "below").mkdir()
    scandir = os.scandir

    def refuse(path):  # as the system does, but whoever runs this
        if os.path.basename(path) == "below":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ElmanError, match=r"below could not be read \(Permission denied\)"):
        open_text(tmp_path)


@pytest.mark.parametrize("name", ["book.txt", "book.txt.gz", "book"])
def test_the_name_of_a_text_has_no_endings(tmp_path, name):
    content = gzip.compress(b"text") if name.endswith("gz") else b"text"
    (tmp_path / name).write_bytes(content)
    assert open_text(tmp_path / name).name == "book"


def test_standard_input_is_read_as_often_as_needed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"some text"))))
    for _ in range(2):
        source = open_text("-")
        assert (source.name, "".join(source.blocks())) == ("stdin", "some text")
    kept = text.standard_input()
    assert kept.is_file()
    monkeypatch.undo()
    del source
    gc.collect()
    assert not kept.exists()  # gone with the stream that it was read from
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(ElmanError, match="standard input is empty"):
        open_text("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ElmanError, match="no standard input"):
        open_text("-")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "pipe"])
def test_a_device_or_a_pipe(device, tmp_path):
    path = tmp_path / device  # a path from the root stays what it is
    if device == "pipe":
        os.mkfifo(path)
    with pytest.raises(ElmanError, match=f"{path} is not a regular file"):
        open_text(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="there is no /proc")
@pytest.mark.parametrize("name", ["kmsg", "self/maps", "self/pagemap", "cpuinfo"])
def test_a_file_that_the_system_makes_as_it_is_read(name):
    with pytest.raises(ElmanError, match=f"{name} is empty, or made by the system as it is read"):
        open_text(f"/proc/{name}")


def test_a_binary_file_is_refused_when_opened(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(ElmanError, match="binary"):
        open_text(path)


def test_a_large_text_takes_little_memory(tmp_path):
    path = tmp_path / "large.txt"
    line = "The Time Traveller, for so it will be convenient to speak of him.\n"
    with path.open("w") as file:
        for _ in range(16):
            file.write(line * (1_000_000 // len(line)))
    code = (
        "import resource, sys; from elman.data.text import open_text; "
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024; "
        "before = peak(); "
        "total = sum(map(len, open_text(sys.argv[1]).blocks('letters'))); "
        "print(total, peak() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    total, mebibytes = map(int, run.stdout.split())
    assert total > 15_000_000
    assert mebibytes < 14


def test_every_corpus_name_can_be_typed():
    assert all(name == name.lower() and " " not in name for name in CORPORA)
