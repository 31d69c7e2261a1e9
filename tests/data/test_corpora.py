from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import socket
import threading

import pytest

from elman.cli.messages import Typed, listening
from elman.data import checksums, download
from elman.data.checksums import Entry
from elman.data.corpora import CORPORA, find
from elman.data.corpus import Corpus, status
from elman.data.readers import plain
from elman.errors import ElmanError, InputError

POEM = "床前明月光\n".encode()
VERSE = b"Tyger Tyger, burning bright\n" * 100


def entry(content):
    return Entry(len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which it is served on this machine."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def corpus(served, tmp_path, monkeypatch):
    """A corpus of two files that only the server has."""
    folder, base = served
    (folder / "诗").mkdir()
    (folder / "诗" / "poem.txt").write_bytes(POEM)
    (folder / "verse.txt").write_bytes(VERSE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("ELMAN_DATA", raising=False)
    files = {"诗/poem.txt": entry(POEM), "verse.txt": entry(VERSE)}
    return Corpus("two", "Two files", "none", "en", "two", base, files, plain)


def cached(tmp_path):
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_files_are_downloaded_once(corpus, served, tmp_path, capfd):
    assert status(corpus) == "to download (0.0 MB)"
    assert "".join(corpus.blocks()) == (POEM + VERSE).decode()
    assert status(corpus) == "cached"
    assert cached(tmp_path) == sorted(corpus.paths())
    assert capfd.readouterr() == ("", "")  # a library shows nothing, unless it is told who does
    (served[0] / "verse.txt").unlink()
    assert "".join(corpus.blocks()) == (POEM + VERSE).decode()
    assert capfd.readouterr() == ("", "")


def test_the_command_line_shows_a_download(corpus, capfd):
    with listening(Typed([], "", {})):
        corpus.paths()
    output, errors = capfd.readouterr()
    assert output == ""
    assert "downloading two" in errors
    assert "2.8/2.8 kB" in errors and len(POEM + VERSE) == 2816
    assert download.bar is download.Bar


def test_a_damaged_file_in_the_cache_is_downloaded_anew(corpus):
    verse = corpus.paths()[1]
    verse.write_bytes(b"damaged")
    assert "".join(corpus.blocks()) == (POEM + VERSE).decode()


def test_a_wrong_checksum_keeps_nothing(corpus, served, tmp_path):
    (served[0] / "verse.txt").write_bytes(b"something else")
    with pytest.raises(
        ElmanError,
        match=r"/verse\.txt sent a file whose SHA-256.*FOLDER/two and set ELMAN_DATA to FOLDER\.$",
    ):
        corpus.paths()
    assert [path.name for path in cached(tmp_path)] == ["poem.txt"]


def test_a_missing_address_names_itself_percent_encoded(corpus, served, tmp_path):
    (served[0] / "诗" / "poem.txt").unlink()
    with pytest.raises(
        ElmanError,
        match=r"http://127\S+/%E8%AF%97/poem\.txt could not .*404.*ELMAN_DATA to FOLDER\.$",
    ):
        corpus.paths()
    assert cached(tmp_path) == []


def test_a_refused_connection(corpus, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{free.getsockname()[1]}/"
        offline = dataclasses.replace(corpus, base=base)
        with pytest.raises(
            ElmanError,
            match=rf"{base}.*ConnectionError.*network.*FOLDER/two and set ELMAN_DATA to FOLDER\.$",
        ):
            offline.paths()
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_written(corpus, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ElmanError, match=r"could not be written.*XDG_CACHE_HOME"):
        corpus.paths()


def test_a_user_without_a_home_folder(corpus, tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME", "ELMAN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # which the system does not know
    assert status(corpus).startswith("to download")
    with pytest.raises(ElmanError, match=r"no home folder to keep it in: .*XDG_CACHE_HOME, or put"):
        corpus.paths()
    folder = tmp_path / "mine" / "two"
    (folder / "诗").mkdir(parents=True)
    (folder / "诗" / "poem.txt").write_bytes(POEM)
    (folder / "verse.txt").write_bytes(VERSE)
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path / "mine"))
    assert corpus.paths() == [folder / "诗" / "poem.txt", folder / "verse.txt"]


def test_the_data_folder_comes_first(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "mine" / "two"
    (folder / "诗").mkdir(parents=True)
    (folder / "诗" / "poem.txt").write_bytes(POEM)
    (folder / "verse.txt").write_bytes(VERSE)
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path / "mine"))
    assert status(corpus) == "in ELMAN_DATA"
    assert corpus.paths() == [folder / "诗" / "poem.txt", folder / "verse.txt"]
    (folder / "verse.txt").write_bytes(b"edited")
    with pytest.raises(ElmanError, match=r"verse\.txt has SHA-256 .*expected .*unset ELMAN_DATA"):
        corpus.paths()


def test_a_file_missing_from_the_data_folder_is_downloaded(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "mine" / "two"
    folder.mkdir(parents=True)
    (folder / "verse.txt").write_bytes(VERSE)
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path / "mine"))
    assert [path.is_relative_to(folder) for path in corpus.paths()] == [False, True]


def test_a_data_folder_that_is_none(corpus, monkeypatch):
    monkeypatch.setenv("ELMAN_DATA", "/no/such/folder")
    with pytest.raises(ElmanError, match="ELMAN_DATA is /no/such/folder, expected a folder"):
        corpus.paths()


def test_the_shipped_corpus_needs_nothing(monkeypatch):
    monkeypatch.setenv("ELMAN_DATA", "/no/such/folder")
    corpus = find("time-machine")
    assert status(corpus) == "shipped"
    assert [checksums.sha256(path) for path in corpus.paths()] == [
        file.sha256 for file in corpus.files.values()
    ]


def test_an_unknown_name_lists_what_comes_close():
    with pytest.raises(InputError, match=r"'shakespeare' .*did you mean tiny-shakespeare.*`elman"):
        find("shakespeare")
    with pytest.raises(InputError, match="did you mean tang-poems"):
        find("Tang")


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_registry_entries_are_pinned_and_checked(corpus):
    assert corpus.size > 10_000
    assert all(len(file.sha256) == 64 for file in corpus.files.values())
    for path in corpus.files:
        base = corpus.elsewhere.get(path, corpus.base)
        if base:
            commit = base.removeprefix("https://raw.githubusercontent.com/").split("/")[2]
            assert len(commit) == 40
            assert base.endswith("/")
    assert {path for files in corpus.parts.values() for path in files} <= corpus.files.keys()


def test_a_file_without_an_address_must_be_in_the_data_folder(corpus, tmp_path, monkeypatch):
    pieces = dataclasses.replace(corpus, elsewhere={"verse.txt": ""})
    assert status(pieces) == "for ELMAN_DATA"
    with pytest.raises(ElmanError, match=r"two .*downloaded as it is, verse\.txt: put it"):
        pieces.paths()
    folder = tmp_path / "mine" / "two"
    folder.mkdir(parents=True)
    (folder / "verse.txt").write_bytes(VERSE)
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path / "mine"))
    assert status(pieces) == "to download (0.0 MB)"
    assert "".join(pieces.blocks()) == (POEM + VERSE).decode()


def test_a_file_may_be_at_another_address(corpus, served):
    folder, base = served
    (folder / "later").mkdir()
    (folder / "verse.txt").rename(folder / "later" / "verse.txt")
    moved = dataclasses.replace(corpus, elsewhere={"verse.txt": f"{base}later/"})
    assert "".join(moved.blocks()) == (POEM + VERSE).decode()


@pytest.mark.skipif(not os.environ.get("ELMAN_DATA"), reason="ELMAN_DATA names no folder")
@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_the_files_in_the_data_folder_are_those_of_the_registry(corpus):
    assert status(corpus) in ("shipped", "in ELMAN_DATA")
    assert len(corpus.paths()) == len(corpus.files)


def test_a_new_corpus_is_entered_in_natural_order(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "TABLE", tmp_path / "checksums.json")
    for name in ("p.10.txt", "p.9.txt", "a.txt"):
        (tmp_path / name).write_text(name)
    checksums.add("new", tmp_path, ["p.*.txt", "a.txt"])
    checksums.add("more", tmp_path, ["a.txt"])
    table = checksums.load()
    assert list(table) == ["more", "new"]
    assert list(table["new"]) == ["p.9.txt", "p.10.txt", "a.txt"]
    assert table["new"]["a.txt"] == entry(b"a.txt")
